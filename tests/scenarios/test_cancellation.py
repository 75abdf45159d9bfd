"""Calls are cancelled while they wait, dial, write or read, by tasks, timeouts and disconnects."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

import pytest
from asgiref.testing import ApplicationCommunicator
from django.test import override_settings
from django.urls import path

from llm_pool import pools
from llm_pool.asgi import get_asgi_application
from llm_pool.engine.loops import portal
from llm_pool.engine.pool import Pool
from llm_pool.exceptions import PoolClosed
from llm_pool.http import event_stream
from testbed import ScriptedServer
from testbed.behaviours import echo, json_reply, per_connection, stall, stop_reading
from testbed.board import WAIT_SECONDS
from testbed.chat import chat_stream
from testbed.ports import unanswering_port
from tests.fixtures.callers import AT_ONCE, bodies, gated, occupy, queue_up, trusting, until
from tests.fixtures.engine import request_to
from tests.fixtures.internals import drains_of, has_room
from tests.scenarios.steppers import CANCEL_MOMENTS, assert_serves_at_once, cancel, cancelled_at

PIECE = b"x" * 1024 * 1024


async def unending(conn) -> None:
    """Read a request and send half a response, then nothing."""
    await conn.read_request()
    await conn.send_head(200, {"Content-Length": "8"})
    await conn.send(b"half")
    conn.server.mark("half")
    await conn.hold()


# Waiting.


async def test_cancelled_while_queued(each_loop, serve, engine_pool):
    """Scenario 14: cancelled calls leave the queue; the others keep their places."""
    server = serve(gated())
    pool = engine_pool(max_connections=1)
    in_use = await occupy(pool, server)
    order = [b"%d" % number for number in range(6)]
    waiting = await queue_up(pool, *(pool.fetch(request_to(server, body)) for body in order))
    for task in waiting[1::2]:
        await cancel(task)
    await until(lambda: pool.stats().waiting == 3)
    server.gate("go").open()
    await asyncio.gather(*in_use, *waiting[::2])
    assert bodies(server)[1:] == order[::2]
    assert pool.stats().idle == 1


async def test_a_connection_delivered_to_a_cancelled_call_serves_the_next(server_loop, serve, engine_pool):
    """Scenario 15: the first of three waiters is cancelled in the tick in which it is served."""
    server = serve(gated())
    pool = engine_pool(max_connections=1)
    in_use = await occupy(pool, server)
    first = asyncio.create_task(cancelled_at(0, CANCEL_MOMENTS[1], pool.fetch(request_to(server, b"first"))))
    await until(lambda: pool.stats().waiting == 1)
    waiting = await queue_up(pool, *(pool.fetch(request_to(server, body)) for body in (b"second", b"third")))
    server.gate("go").open()
    with pytest.raises(asyncio.CancelledError):
        await first
    await asyncio.gather(*in_use, *waiting)
    assert bodies(server) == [b"{}", b"second", b"third"]
    assert server.connections_accepted == 1


async def test_a_response_delivered_to_a_cancelled_call_is_closed(serve, engine_pool):
    """Scenario 15: the result is on the way from the portal to another loop when its caller is cancelled."""
    server = serve(per_connection(unending, json_reply()))
    pool = engine_pool(max_connections=1)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(cancelled_at(0, CANCEL_MOMENTS[1], pool.open(request_to(server))))
    await assert_serves_at_once(pool, server)


async def test_cancelled_between_assignment_and_dial(server_loop, serve, engine_pool):
    """Scenario 16: the caller is cancelled before its dial begins, and the connection goes to the pool."""
    server = serve(json_reply())
    pool = engine_pool(max_connections=1)
    task = asyncio.create_task(pool.fetch(request_to(server)))
    await asyncio.sleep(0)
    assert (pool.stats().dialing, server.connections_accepted) == (1, 0)
    await cancel(task)
    assert pool.stats().waiting == 0
    await assert_serves_at_once(pool, server)
    assert server.connections_accepted == 1


def test_a_dial_that_is_cancelled_before_its_first_step_frees_its_slot(serve, engine_pool):
    """Scenario 16: the loop is shut down in the tick in which the dial was ordered."""
    server = serve(json_reply())
    pool = engine_pool(max_connections=1)

    async def main() -> None:
        portal.adopt_server_loop()
        asyncio.create_task(pool.fetch(request_to(server)))  # noqa: RUF006 - the loop's end cancels it
        await asyncio.sleep(0)
        assert pool.stats().dialing == 1

    asyncio.run(main())
    assert (pool.stats().dialing, pool.stats().waiting) == (0, 0)
    assert pool.fetch_sync(request_to(server, pool=AT_ONCE)).status == 200


# Dialing.


async def test_cancelled_in_dns(each_loop, serve, engine_pool, fake_dns):
    """Scenario 17: three calls look up one name, two are cancelled; the third uses the same query."""
    server = serve(json_reply())
    fake_dns.names["llm.test"] = server.host
    fake_dns.gate = server.gate("dns")
    pool = engine_pool()
    tasks = [asyncio.create_task(pool.fetch(request_to(server, host="llm.test"))) for _ in range(3)]
    await server.gate("dns").await_reached()
    await until(lambda: pool.stats().dialing == 3)
    await cancel(tasks[0])
    await cancel(tasks[1])
    server.gate("dns").open()
    assert (await tasks[2]).status == 200
    assert fake_dns.queries == ["llm.test"]
    await until(lambda: pool.stats().dialing == 0)


@dataclass
class Deaf:
    """A listener that completes no TCP handshake, because its backlog is full."""

    host: str
    port: int
    scheme: str = "http"

    @property
    def authority(self) -> str:
        return f"{self.host}:{self.port}"


@pytest.fixture
def deaf():
    with unanswering_port() as port:
        yield Deaf("127.0.0.1", port)


async def test_cancelled_in_tcp_connect(each_loop, serve, engine_pool, deaf):
    """Scenario 18: the dial ends at its own timeout and frees its slot."""
    server = serve(json_reply())
    pool = engine_pool(max_connections=1)
    task = asyncio.create_task(pool.fetch(request_to(deaf, connect=1.5)))  # ends only after it is cancelled
    await until(lambda: pool.stats().dialing == 1)
    await cancel(task)
    await until(lambda: pool.stats().waiting == 0)
    await until(lambda: pool.stats().dialing == 0)
    assert "1.5 s" in pool.stats().dial_failure
    await assert_serves_at_once(pool, server)


async def test_cancelled_in_the_handshake(each_loop, serve, engine_pool, certificates):
    """Scenario 19: the dial goes on, and its connection serves the next call."""
    server: ScriptedServer
    server = serve(json_reply(), tls=certificates.good, before_handshake=lambda: server.gate("tls").passage())
    pool = engine_pool(max_connections=1, tls=trusting(certificates), http2=False)
    task = asyncio.create_task(pool.fetch(request_to(server)))
    await server.gate("tls").await_reached()
    await cancel(task)
    server.gate("tls").open()
    await until(lambda: pool.stats().idle == 1)
    await assert_serves_at_once(pool, server)
    assert server.connections_accepted == 1


# In use.


async def test_cancelled_while_writing(each_loop, serve, engine_pool):
    """Scenario 20: the server has stopped reading the upload when the caller is cancelled."""
    server = serve(per_connection(stop_reading("read on"), json_reply()))
    pool = engine_pool(max_connections=1, write=30.0)
    exchange = await pool.open(request_to(server, None))

    async def send() -> None:
        try:
            while await exchange.host_loop.arun(exchange.write, PIECE):
                pass
        finally:
            exchange.close_threadsafe()

    task = asyncio.create_task(send())
    await server.await_requests()
    await until(lambda: not has_room(exchange))
    await cancel(task)
    await assert_serves_at_once(pool, server)
    server.gate("read on").open()
    await server.await_until(lambda s: s.disconnects)


async def test_cancelled_while_a_large_body_is_written(each_loop, serve, engine_pool):
    """Scenario 20: the same for a body that is given as a whole."""
    server = serve(per_connection(stop_reading("read on"), json_reply()))
    pool = engine_pool(max_connections=1)
    task = asyncio.create_task(pool.fetch(request_to(server, PIECE * 16)))
    await server.await_requests()
    await cancel(task)
    await assert_serves_at_once(pool, server)
    server.gate("read on").open()
    await server.await_until(lambda s: s.disconnects)


async def test_cancelled_before_the_head_has_come(each_loop, serve, engine_pool):
    """Scenario 21: the server, which has not responded yet, sees the connection close."""
    server = serve(per_connection(stall, json_reply()))
    pool = engine_pool(max_connections=1)
    task = asyncio.create_task(pool.fetch(request_to(server)))
    await server.await_requests()
    await cancel(task)
    await server.await_until(lambda s: s.disconnects)
    await assert_serves_at_once(pool, server)
    assert len(server.requests) == 2  # nothing was sent again


async def test_cancelled_in_the_middle_of_a_body(each_loop, serve, engine_pool):
    """Scenario 22: the caller has read one piece of the body and waits for the next."""
    server = serve(per_connection(unending, json_reply()))
    pool = engine_pool(max_connections=1)
    exchange = await pool.open(request_to(server))
    assert await exchange.host_loop.arun(exchange.read) == b"half"
    task = asyncio.create_task(exchange.host_loop.arun(exchange.read))
    await asyncio.sleep(0)
    await cancel(task)
    exchange.close_threadsafe()
    await server.await_until(lambda s: s.disconnects)
    await assert_serves_at_once(pool, server)


@pytest.mark.parametrize("waits_for", ["connection", "head", "rest of the body"])
async def test_cancelled_at_each_await_of_a_fetch_that_would_never_end(
    each_loop, serve, engine_pool, waits_for
):
    """Scenarios 14, 21, 22: the connection closes, or serves the next call if no request was sent on it."""
    server = serve(per_connection(unending, json_reply()))
    pool = engine_pool(max_connections=1)
    host_loop = portal.host_loop_of_caller()
    step = ["connection", "head", "rest of the body"].index(waits_for)

    async def work() -> None:
        await cancelled_at(step, CANCEL_MOMENTS[0], pool.fetch(request_to(server)))

    async with asyncio.timeout(AT_ONCE):
        with pytest.raises((asyncio.CancelledError, PoolClosed)):  # PoolClosed if ``work`` ran on the portal
            await asyncio.create_task(host_loop.arun(work))
    if waits_for == "connection":
        await assert_served_by(pool, server, connections=1)
    else:
        await server.await_until(lambda s: s.disconnects)
        await assert_serves_at_once(pool, server)


async def assert_served_by(pool: Pool, server: ScriptedServer, *, connections: int) -> None:
    """Assert that the next call is served, and that ``connections`` have been dialed in all."""
    exchange = await pool.open(request_to(server))
    assert server.connections_accepted == connections
    exchange.close_threadsafe()
    await until(lambda: pool.stats().in_use == 0)


async def test_a_read_that_was_cancelled_can_be_made_again(each_loop, serve, engine_pool):
    """Scenario 22: cancelling one read loses no byte of the response."""

    async def script(conn) -> None:
        await conn.read_request()
        await conn.send_head(200, {"Content-Length": "10"})
        for piece in (b"first", b"other"):
            await conn.wait_for("piece")
            await conn.send(piece)

    server = serve(script)
    pool = engine_pool(max_connections=1)
    exchange = await pool.open(request_to(server))
    for _ in range(5):
        task = asyncio.create_task(exchange.host_loop.arun(exchange.read))
        await asyncio.sleep(0)
        await cancel(task)
    server.gate("piece").open()
    body = b""
    while piece := await exchange.host_loop.arun(exchange.read):
        body += piece
    assert body == b"firstother"
    assert server.connections_open == 1


@pytest.mark.parametrize("moment", CANCEL_MOMENTS)
async def test_a_cancelled_close_closes_all_the_same(each_loop, serve, engine_pool, certificates, moment):
    """Scenario 23: the caller of ``aclose`` is cancelled before the connections have closed."""
    server = serve(gated(), tls=certificates.good)
    pool = engine_pool(tls=trusting(certificates), http2=False)
    in_use = await occupy(pool, server, server)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(cancelled_at(0, moment, pool.aclose()))
    results = await asyncio.gather(*in_use, return_exceptions=True)
    assert {type(result) for result in results} == {PoolClosed}
    await until(lambda: pool.stats().connections == 0)
    await server.await_until(lambda s: s.connections_open == 0)


@pytest.mark.parametrize("moment", CANCEL_MOMENTS)
async def test_a_cancelled_drain_goes_on_without_its_caller(each_loop, serve, engine_pool, moment):
    """Scenario 23: the waiting caller is cancelled; the drain itself goes on."""
    server = serve(gated())
    pool = engine_pool()
    in_use = await occupy(pool, server)
    task = asyncio.create_task(cancelled_at(0, moment, pool.adrain()))
    await asyncio.sleep(0)
    server.gate("go").open()
    await asyncio.gather(*in_use)
    with pytest.raises(asyncio.CancelledError):
        await task
    await server.await_until(lambda s: s.connections_open == 0)
    await until(lambda: not drains_of(pool))


# What cancels the call.


async def test_cancelled_by_a_timeout(each_loop, serve, engine_pool):
    """Scenario 24: ``asyncio.timeout`` raises TimeoutError, not an error of the pool."""
    server = serve(per_connection(stall, json_reply()))
    pool = engine_pool(max_connections=1)

    async def let_expire(timeout: asyncio.Timeout) -> None:
        await server.await_requests()
        timeout.reschedule(asyncio.get_running_loop().time())

    with pytest.raises(TimeoutError):  # noqa: PT012 - a timeout is a block
        async with asyncio.timeout(None) as timeout:
            expiry = asyncio.create_task(let_expire(timeout))
            await pool.fetch(request_to(server))
    await expiry
    await assert_serves_at_once(pool, server)


async def test_cancelled_by_a_task_group(each_loop, serve, engine_pool):
    """Scenario 24: one of five tasks fails, the other four are cancelled: in use, and queued."""
    server = serve(per_connection(stall, stall, json_reply()))
    pool = engine_pool(max_connections=2)

    async def fail_when_they_run() -> None:
        await server.await_requests(2)
        await until(lambda: pool.stats().waiting == 2)
        raise KeyError("mine")

    with pytest.raises(ExceptionGroup) as group:  # noqa: PT012 - a task group is a block
        async with asyncio.TaskGroup() as tasks:
            for _ in range(4):
                tasks.create_task(pool.fetch(request_to(server)))
            tasks.create_task(fail_when_they_run())
    assert [type(error) for error in group.value.exceptions] == [KeyError]
    await server.await_until(lambda s: len(s.disconnects) >= 2)
    await assert_serves_at_once(pool, server)


@pytest.mark.parametrize("on_server_loop", [True, False], ids=["server loop", "portal"])
def test_cancelled_by_the_end_of_the_loop(serve, engine_pool, on_server_loop):
    """Scenario 24: ``asyncio.run`` returns while calls are in use, dialing and queued."""
    server = serve(per_connection(stall, stall, json_reply()))
    pool = engine_pool(max_connections=2)

    async def main() -> None:
        if on_server_loop:
            portal.adopt_server_loop()
        for _ in range(5):
            asyncio.create_task(pool.fetch(request_to(server)))  # noqa: RUF006 - the loop's end cancels it
        await server.await_requests(2)
        await until(lambda: pool.stats().waiting == 3)

    asyncio.run(main())
    server.wait_until(lambda s: len(s.disconnects) >= 2)
    assert pool.fetch_sync(request_to(server, pool=AT_ONCE)).status == 200
    assert (pool.stats().in_use, pool.stats().waiting) == (0, 0)


def test_a_callers_loop_that_closes_without_cancelling_loses_nothing(serve, engine_pool):
    """Scenario 24: the loop is closed without cancelling its tasks; the response has no caller left."""

    async def held_back(conn) -> None:
        await conn.wait_for("go")
        await unending(conn)

    server = serve(per_connection(held_back, json_reply()))
    pool = engine_pool(max_connections=1)
    loop = asyncio.new_event_loop()
    task = loop.create_task(pool.open(request_to(server)))
    loop.run_until_complete(server.await_until(lambda s: s.connections_open == 1))
    loop.close()
    server.gate("go").open()
    assert pool.fetch_sync(request_to(server, pool=AT_ONCE)).status == 200
    task._log_destroy_pending = False


async def view(request):
    return event_stream(pools["default"].astream("hello"))


urlpatterns = [path("stream", view)]


async def test_cancelled_by_a_client_that_disconnects_from_django(serve):
    """Scenario 24: the browser disconnects in the middle of a stream; the provider's connection closes."""
    server = serve(chat_stream(["a"] * 10, pace="token"))
    settings = {"default": {"BASE_URL": f"{server.url}/v1", "API_KEY": "k", "MODEL": "m"}}
    with override_settings(LLM_POOL=settings, ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"]):
        scope = {"type": "http", "http_version": "1.1", "method": "GET", "path": "/stream", "headers": []}
        client = ApplicationCommunicator(get_asgi_application(), scope | {"query_string": b""})
        await client.send_input({"type": "http.request", "body": b"", "more_body": False})
        assert (await client.receive_output(WAIT_SECONDS))["status"] == 200
        server.gate("token").admit(2)
        while b'"a"' not in (await client.receive_output(WAIT_SECONDS))["body"]:
            pass
        await client.send_input({"type": "http.disconnect"})
        await client.wait(WAIT_SECONDS)
        await server.await_until(lambda s: s.disconnects)
        await until(lambda: pools["default"].stats().in_use == 0)
        portal.release_server_loop()


# Many cancellations.


@pytest.mark.parametrize("host_loop", ["server loop", "portal"])
async def test_thousands_of_random_cancels_leave_no_slot_in_use(serve, engine_pool, host_loop):
    """Scenario 25: 10,000 cancels over both loops, at random points; then the next checkout is immediate."""
    if host_loop == "server loop":
        portal.adopt_server_loop()
    dice = random.Random(25)
    server = serve(echo)
    pool = engine_pool(max_connections=8)
    cancelled = 0

    async def call() -> None:
        nonlocal cancelled
        task = asyncio.create_task(pool.fetch(request_to(server)))
        for _ in range(dice.randrange(12)):
            await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            cancelled += 1

    async def caller() -> None:
        while cancelled < 5000:
            await call()

    await asyncio.gather(*(caller() for _ in range(24)))
    await until(lambda: (pool.stats().in_use, pool.stats().waiting) == (0, 0))
    await asyncio.gather(*(asyncio.wait_for(pool.fetch(request_to(server)), AT_ONCE) for _ in range(8)))
    assert server.peak_open <= 8
    portal.release_server_loop()
