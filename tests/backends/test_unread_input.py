"""Bytes or a close that the event loop has not read when the next call comes, since the loop was blocked."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from hyperframe.frame import GoAwayFrame, PingFrame

from llm_pool.engine.config import Origin
from llm_pool.engine.loops import portal
from testbed import Gate
from testbed.behaviours import close, fin, hold, json_reply, per_connection, raw, reset, send, steps
from testbed.behaviours import until as until_gate
from testbed.http2 import offering_http2
from tests.backends.conftest import HTTP1, HTTP2
from tests.backends.servers import answer, over_http2
from tests.fixtures.callers import in_thread, until
from tests.fixtures.internals import block_at_finished, wait_for_unread

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_pool.calling.pool import LLMPool
    from testbed import Script, ScriptedServer, ServerConnection

STOLEN = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{"stolen": 1}'[:-1]
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"

BETWEEN_CALLS = {
    "a close": close,
    "a FIN alone": fin,
    "a reset": reset,
    "408 and a close": steps(
        send(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"), close
    ),
    "a second response": send(STOLEN),
    "the beginning of one": send(STOLEN[:20]),
}


@pytest.fixture(params=["http", "https"])
def server_and_pool(request, serve, configure, kind, certificates) -> Callable[..., Any]:
    """``server_and_pool(script)``: a server, over TCP or TLS, and its pool."""

    def make(script: Script) -> tuple[ScriptedServer, LLMPool]:
        if request.param == "http":
            server = serve(script)
            return server, configure(server)
        http2 = kind in HTTP2
        server = serve(script, tls=offering_http2(certificates) if http2 else certificates.good)
        by_alpn = {"HTTP2": True} if http2 else {}
        return server, configure(server, TLS={"ca_file": certificates.ca_file}, **by_alpn)

    return make


@pytest.fixture
def block(each_loop) -> Callable[[ScriptedServer, LLMPool], None]:
    """``block(server, pool)`` blocks the host loop, opens the gate "act", and waits for unread input."""

    def act(server: ScriptedServer, pool: LLMPool) -> None:
        server.gate("act").open()
        wait_for_unread(pool.engine)

    def block(server: ScriptedServer, pool: LLMPool) -> None:
        if each_loop == "server loop":
            act(server, pool)
        else:
            portal.portal().call(partial(act, server, pool))

    return block


@pytest.mark.kinds(HTTP1)
@pytest.mark.parametrize("act", BETWEEN_CALLS.values(), ids=BETWEEN_CALLS)
async def test_nothing_that_came_before_a_request_answers_it(server_and_pool, block, act):
    """Scenarios 29 and 55: the call gets its own answer, on another connection."""
    first = steps(json_reply({"call": 1}), until_gate("act"), act, hold)
    server, pool = server_and_pool(per_connection(first, json_reply({"call": 2})))
    assert (await pool.arequest("POST", "/x", content=b"{}")).json() == {"call": 1}
    block(server, pool)
    assert (await pool.arequest("POST", "/x", content=b"{}")).json() == {"call": 2}
    assert [request.connection for request in server.requests] == [0, 1]


@pytest.mark.kinds(HTTP1)
@pytest.mark.parametrize("act", [close, send(STOLEN)], ids=["a close", "a second response"])
async def test_a_thread_gets_its_own_answer(server_and_pool, block, act):
    """Scenario 55: ``request`` on a thread, and so on the portal."""
    first = steps(json_reply({"call": 1}), until_gate("act"), act, hold)
    server, pool = server_and_pool(per_connection(first, json_reply({"call": 2})))
    assert (await in_thread(pool.request, "GET", "/x")).json() == {"call": 1}
    portal.portal().post(block, server, pool)
    assert (await in_thread(pool.request, "GET", "/x")).json() == {"call": 2}


@pytest.mark.kinds(HTTP1)
@pytest.mark.parametrize("act", [close, send(STOLEN)], ids=["a close", "a second response"])
async def test_uvloop_reads_the_input_too(server_and_pool, act):
    """Scenario 55: the loop of a server that runs on uvloop was blocked."""
    first = steps(json_reply({"call": 1}), until_gate("act"), act, hold)
    server, pool = server_and_pool(per_connection(first, json_reply({"call": 2})))

    async def call_twice() -> list[Any]:
        portal.adopt_server_loop()
        responses = [await pool.arequest("GET", "/x")]
        server.gate("act").open()
        wait_for_unread(pool.engine)
        responses.append(await pool.arequest("GET", "/x"))
        return [response.json()["call"] for response in responses]

    assert await in_thread(uvloop.run, call_twice()) == [1, 2]


async def test_every_idle_connection_that_was_closed_is_replaced(serve, play, configure, block):
    """Scenario 55: five calls at once, after the server has closed all five idle connections."""

    async def answer_and_close(exchange: Any) -> None:
        await exchange.wait_for("all")
        await answer(exchange)
        await exchange.wait_for("act")
        await exchange.cut()

    server = serve(per_connection(*[play(answer_and_close)] * 5, play(answer)))
    pool = configure(server, LIMITS={"max_connections": 5})
    calls = [asyncio.create_task(pool.arequest("GET", "/x")) for _ in range(5)]
    await server.await_until(lambda s: s.gate("all").reached == 5)
    server.gate("all").open()
    await asyncio.gather(*calls)
    block(server, pool)
    responses = await asyncio.gather(*[pool.arequest("GET", "/x") for _ in range(5)])
    assert {response.status_code for response in responses} == {200}
    assert len(server.requests) == 10


@pytest.mark.kinds(HTTP2)
@pytest.mark.parametrize("goaway", [False, True])
async def test_a_closed_http2_connection_is_replaced(server_and_pool, block, goaway):
    """Scenario 55: closed without GOAWAY, and with GOAWAY."""

    async def answer_and_close(exchange: Any) -> None:
        await answer(exchange)
        await exchange.wait_for("act")
        if goaway:
            await exchange.stream.peer.send_frames(GoAwayFrame(last_stream_id=exchange.stream.number))
        await exchange.cut()

    server, pool = server_and_pool(per_connection(over_http2(answer_and_close), over_http2(answer)))
    await pool.arequest("POST", "/x", content=b"{}")
    block(server, pool)
    assert (await pool.arequest("POST", "/x", content=b"{}")).status_code == 200
    assert [request.connection for request in server.requests] == [0, 1]


@pytest.mark.kinds(["native-http2"])
async def test_unread_frames_are_no_reason_to_drop_an_http2_connection(server_and_pool, block):
    """Scenario 55: a PING."""

    async def answer_and_ping(exchange: Any) -> None:
        await answer(exchange)
        await exchange.wait_for("act")
        await exchange.stream.peer.send_frames(PingFrame(opaque_data=b"12345678"))

    server, pool = server_and_pool(over_http2(answer_and_ping))
    await pool.arequest("GET", "/x")
    block(server, pool)
    await pool.arequest("GET", "/x")
    assert [request.connection for request in server.requests] == [0, 0]


@pytest.mark.kinds(["native-http1", "native-http2"])
@pytest.mark.usefixtures("server_loop")
async def test_unread_session_tickets_are_no_reason_to_drop_a_connection(
    serve, play, configure, kind, certificates
):
    """Scenario 55: a TLS 1.3 server sends them after the handshake, here to a prewarmed connection."""
    context, finished = offering_http2(certificates), Gate("finished")
    block_at_finished(context, finished)
    server = serve(play(answer), tls=context)
    pool = configure(
        server,
        TLS={"ca_file": certificates.ca_file},
        LIMITS={"min_connections": 1, "max_streams_per_connection": 1},
        HTTP2=kind in HTTP2,
    )
    await pool.engine.prewarm(Origin(*server.origin))
    await until(lambda: pool.stats().idle == 1)
    finished.open()
    wait_for_unread(pool.engine)
    await pool.arequest("GET", "/x")
    assert server.connections_accepted == 1


@pytest.mark.kinds(HTTP1)
@pytest.mark.parametrize("writes", [1, 2])
@pytest.mark.usefixtures("each_loop")
async def test_bytes_that_arrive_with_the_end_of_a_response_are_no_response(server_and_pool, writes):
    """Scenarios 29 and 55: in one write or in two (two TLS records), which arrive together."""

    async def answer_twice(conn: ServerConnection) -> None:
        conn.cork()
        await (raw(ANSWER + STOLEN) if writes == 1 else raw(ANSWER, STOLEN))(conn)
        conn.uncork()

    server, pool = server_and_pool(per_connection(steps(answer_twice, hold), json_reply({"own": 2})))
    assert (await pool.arequest("GET", "/x")).json() == {}
    assert (await pool.arequest("GET", "/x")).json() == {"own": 2}
    assert [request.connection for request in server.requests] == [0, 1]
