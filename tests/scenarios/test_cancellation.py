"""Whoever leaves, wherever and however, takes nothing along: no slot, no socket, no task."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import random
import signal
import threading
from dataclasses import dataclass

import pytest
from asgiref.testing import ApplicationCommunicator
from django.test import override_settings
from django.urls import path

from llm_pool import pools
from llm_pool.asgi import get_asgi_application
from llm_pool.engine.loops import portal
from llm_pool.engine.pool import Pool
from llm_pool.engine.request import Request
from llm_pool.exceptions import ConnectFailed, LLMPoolError, PoolClosed
from llm_pool.http import event_stream
from testbed import ScriptedServer
from testbed.behaviours import echo, json_reply, per_connection, stall, stop_reading
from testbed.board import WAIT_SECONDS
from testbed.chat import chat_stream
from testbed.ports import unanswering_port
from tests.fixtures.engine import request_to
from tests.fixtures.ticks import soon
from tests.scenarios.callers import AT_ONCE, bodies, gated, in_thread, occupy, queue_up, trusting, until
from tests.scenarios.steppers import MOMENTS, after_turns, cancelled_at, interrupted_at

PIECE = b"x" * 1024 * 1024


async def cancel(task: asyncio.Task) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def assert_whole(pool: Pool, server: ScriptedServer) -> None:
    """The pool of one connection is as good as new: the next call is served at once."""
    async with asyncio.timeout(AT_ONCE):
        assert (await pool.fetch(request_to(server))).status == 200
    await until(lambda: pool.stats().in_use == 0)
    assert pool.stats().waiting == 0
    assert server.peak_open <= pool.stats().max_connections


# The ways a call is made, for the tests that go through all its steps.


async def fetch(pool: Pool, server: ScriptedServer) -> None:
    await pool.fetch(request_to(server))


async def open_and_read(pool: Pool, server: ScriptedServer) -> None:
    exchange = await pool.open(request_to(server))
    try:
        while await exchange.host_loop.arun(exchange.read):
            pass
    finally:
        exchange.close_threadsafe()


async def upload(pool: Pool, server: ScriptedServer) -> None:
    exchange = await pool.open(request_to(server, None))
    arun = exchange.host_loop.arun
    try:
        for _ in range(4):
            await arun(exchange.write, PIECE)
        await arun(exchange.finish)
        await arun(exchange.head)
        while await arun(exchange.read):
            pass
    finally:
        exchange.close_threadsafe()


WAYS = [fetch, open_and_read, upload]


async def in_pieces(conn) -> None:
    """A response that takes several reads."""
    await conn.read_request()
    await conn.send_head(200, {"Transfer-Encoding": "chunked"})
    for _ in range(3):
        await asyncio.sleep(0.001)
        await conn.send_chunk(b"x" * 1000)
    await conn.end_chunks()


async def unending(conn) -> None:
    """The first half of a response, and never the other."""
    await conn.read_request()
    await conn.send_head(200, {"Content-Length": "8"})
    await conn.send(b"half")
    conn.server.mark("half")
    await conn.hold()


async def go_through(run, pool: Pool, server: ScriptedServer, *, enough: int) -> None:
    """``run(step)`` for each step until the call has no such step; the pool is whole after each."""
    step = 0
    got_there = True
    while got_there:
        with contextlib.suppress(asyncio.CancelledError):
            got_there, _ = await asyncio.create_task(run(step))
        await assert_whole(pool, server)
        step += 1
    assert step > enough


@pytest.mark.parametrize("fresh", [True, False], ids=["fresh connection", "idle connection"])
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("way", WAYS)
async def test_cancelled_at_every_await_on_the_server_loop(
    server_loop, serve, engine_pool, way, moment, fresh
):
    """Scenarios 14 to 22: at each await of each kind of call in turn; there is but one connection to lose."""
    server = serve(in_pieces)
    pool = engine_pool(max_connections=1, keepalive_expiry=0.0 if fresh else 30.0)
    await go_through(
        lambda step: cancelled_at(step, moment, way(pool, server)),
        pool,
        server,
        enough=2 if fresh else 1,
    )


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("way", WAYS)
async def test_cancelled_at_every_await_across_the_portal(serve, engine_pool, way, moment):
    """Scenarios 14 to 22: the caller's own awaits, each of which is an errand on the portal."""
    server = serve(in_pieces)
    pool = engine_pool(max_connections=1)
    await go_through(lambda step: cancelled_at(step, moment, way(pool, server)), pool, server, enough=1)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("way", WAYS)
async def test_cancelled_at_every_await_inside_the_portal(serve, engine_pool, way, moment):
    """Scenarios 14 to 22: the awaits of the errands themselves."""
    server = serve(in_pieces)
    pool = engine_pool(max_connections=1, keepalive_expiry=0.0)

    async def errand(step: int) -> tuple[bool, None]:
        return await cancelled_at(step, moment, way(pool, server))

    async def run(step: int) -> tuple[bool, None]:
        try:
            return await portal.portal().arun(errand, step)
        except PoolClosed:  # so an errand's end is told that the caller did not bring about
            return True, None

    await go_through(run, pool, server, enough=2)


@pytest.mark.parametrize("way", WAYS)
async def test_cancelled_after_any_number_of_turns_of_the_portals_loop(serve, engine_pool, way):
    """Scenarios 14 to 22: the cancel crosses to the portal at every point of the errand."""
    server = serve(in_pieces)
    pool = engine_pool(max_connections=1, keepalive_expiry=0.0)
    loop = asyncio.get_running_loop()
    cancelled = 0
    for turns in range(60):
        task = asyncio.create_task(way(pool, server))
        after_turns(portal.portal(), turns, lambda task=task: loop.call_soon_threadsafe(task.cancel))
        try:
            await task
        except asyncio.CancelledError:
            cancelled += 1
        await assert_whole(pool, server)
    assert cancelled > 10


async def test_cancelled_before_its_first_step(each_loop, serve, engine_pool):
    """Scenario 14: a task that never ran has asked for nothing."""
    server = serve(json_reply())
    pool = engine_pool(max_connections=1)
    await cancel(asyncio.create_task(pool.fetch(request_to(server))))
    assert pool.stats().requests == 0
    await assert_whole(pool, server)


# Waiting.


async def test_cancelled_while_queued(each_loop, serve, engine_pool):
    """Scenario 14: those who go leave the queue; those before and behind them keep their places."""
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


async def test_a_connection_delivered_to_one_who_has_just_left_goes_to_the_next(
    server_loop, serve, engine_pool
):
    """Scenario 15: of three who wait the first is cancelled in the very tick in which it is served."""
    server = serve(gated())
    pool = engine_pool(max_connections=1)
    in_use = await occupy(pool, server)
    first = asyncio.create_task(cancelled_at(0, MOMENTS[1], pool.fetch(request_to(server, b"first"))))
    await until(lambda: pool.stats().waiting == 1)
    waiting = await queue_up(pool, *(pool.fetch(request_to(server, body)) for body in (b"second", b"third")))
    server.gate("go").open()
    with pytest.raises(asyncio.CancelledError):
        await first
    await asyncio.gather(*in_use, *waiting)
    assert bodies(server) == [b"{}", b"second", b"third"]
    assert server.connections_accepted == 1


async def test_a_response_delivered_to_one_who_has_just_left_is_given_up(serve, engine_pool):
    """Scenario 15: the errand has ended, its result is on the way to another loop, and its caller goes."""
    server = serve(per_connection(unending, json_reply()))
    pool = engine_pool(max_connections=1)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(cancelled_at(0, MOMENTS[1], pool.open(request_to(server))))
    await assert_whole(pool, server)


async def test_cancelled_between_assignment_and_dial(server_loop, serve, engine_pool):
    """Scenario 16: the dial was ordered for one who left before it began: it feeds the pool."""
    server = serve(json_reply())
    pool = engine_pool(max_connections=1)
    task = asyncio.create_task(pool.fetch(request_to(server)))
    await asyncio.sleep(0)
    assert (pool.stats().dialing, server.connections_accepted) == (1, 0)
    await cancel(task)
    assert pool.stats().waiting == 0
    await assert_whole(pool, server)
    assert server.connections_accepted == 1


def test_a_dial_that_is_cancelled_before_its_first_step_frees_its_slot(serve, engine_pool):
    """Scenario 16: the loop is shut down in the tick in which the dial was ordered."""
    server = serve(json_reply())
    pool = engine_pool(max_connections=1)

    async def main() -> None:
        portal.adopt_server_loop()
        asyncio.create_task(pool.fetch(request_to(server)))  # noqa: RUF006 - to be cut off is its part
        await asyncio.sleep(0)
        assert pool.stats().dialing == 1

    asyncio.run(main())
    assert (pool.stats().dialing, pool.stats().waiting) == (0, 0)
    assert pool.fetch_sync(request_to(server, pool=AT_ONCE)).status == 200


# Dialing.


async def test_cancelled_in_dns(each_loop, serve, engine_pool, fake_dns):
    """Scenario 17: three ask for one name and two leave; the third has its answer from the same query."""
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
    """A listener that completes no handshake of TCP: its backlog is full."""

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
    """Scenario 18: the dial ends by its own timeout, and its slot is free."""
    server = serve(json_reply())
    pool = engine_pool(max_connections=1)
    task = asyncio.create_task(pool.fetch(request_to(deaf, connect=1.5)))  # not over before it is cancelled
    await until(lambda: pool.stats().dialing == 1)
    await cancel(task)
    await until(lambda: pool.stats().waiting == 0)
    await until(lambda: pool.stats().dialing == 0)
    assert "1.5 s" in pool.stats().dial_failure
    await assert_whole(pool, server)


async def test_cancelled_in_the_handshake(each_loop, serve, engine_pool, certificates):
    """Scenario 19: the connection is made all the same, and serves the next."""
    server: ScriptedServer
    server = serve(json_reply(), tls=certificates.good, before_handshake=lambda: server.gate("tls").passage())
    pool = engine_pool(max_connections=1, tls=trusting(certificates), http2=False)
    task = asyncio.create_task(pool.fetch(request_to(server)))
    await server.gate("tls").await_reached()
    await cancel(task)
    server.gate("tls").open()
    await until(lambda: pool.stats().idle == 1)
    await assert_whole(pool, server)
    assert server.connections_accepted == 1


# In use.


async def test_cancelled_while_writing(each_loop, serve, engine_pool):
    """Scenario 20: the server takes nothing more of the upload, and its sender goes."""
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
    await until(lambda: not exchange._carrier.has_room)
    await cancel(task)
    await assert_whole(pool, server)
    server.gate("read on").open()
    await server.await_until(lambda s: s.disconnects)


async def test_cancelled_while_a_large_body_is_written(each_loop, serve, engine_pool):
    """Scenario 20: the same where the body was given as a whole."""
    server = serve(per_connection(stop_reading("read on"), json_reply()))
    pool = engine_pool(max_connections=1)
    task = asyncio.create_task(pool.fetch(request_to(server, PIECE * 16)))
    await server.await_requests()
    await cancel(task)
    await assert_whole(pool, server)
    server.gate("read on").open()
    await server.await_until(lambda s: s.disconnects)


async def test_cancelled_before_the_head_has_come(each_loop, serve, engine_pool):
    """Scenario 21: the server works on an answer that nobody wants: it sees the connection go."""
    server = serve(per_connection(stall, json_reply()))
    pool = engine_pool(max_connections=1)
    task = asyncio.create_task(pool.fetch(request_to(server)))
    await server.await_requests()
    await cancel(task)
    await server.await_until(lambda s: s.disconnects)
    await assert_whole(pool, server)
    assert len(server.requests) == 2  # nothing was sent again


async def test_cancelled_in_the_middle_of_a_body(each_loop, serve, engine_pool):
    """Scenario 22: part of the body is there, the rest will never come; by a reader, piece by piece."""
    server = serve(per_connection(unending, json_reply()))
    pool = engine_pool(max_connections=1)
    exchange = await pool.open(request_to(server))
    assert await exchange.host_loop.arun(exchange.read) == b"half"
    task = asyncio.create_task(exchange.host_loop.arun(exchange.read))
    await asyncio.sleep(0)
    await cancel(task)
    exchange.close_threadsafe()
    await server.await_until(lambda s: s.disconnects)
    await assert_whole(pool, server)


@pytest.mark.parametrize("waits_for", ["connection", "head", "rest of the body"])
async def test_cancelled_at_each_await_of_a_fetch_that_would_never_end(
    each_loop, serve, engine_pool, waits_for
):
    """Scenarios 14, 21, 22: the server's end of the connection is what tells that the call was given up."""
    server = serve(per_connection(unending, json_reply()))
    pool = engine_pool(max_connections=1)
    host_loop = portal.host_loop_of_caller()
    step = ["connection", "head", "rest of the body"].index(waits_for)

    async def errand() -> None:
        await cancelled_at(step, MOMENTS[0], pool.fetch(request_to(server)))

    async with asyncio.timeout(AT_ONCE):
        with pytest.raises((asyncio.CancelledError, PoolClosed)):  # the latter tells of an errand's end
            await asyncio.create_task(host_loop.arun(errand))
    if waits_for == "connection":
        await assert_served_by(pool, server, connections=1)
    else:
        await server.await_until(lambda s: s.disconnects)
        await assert_whole(pool, server)


async def assert_served_by(pool: Pool, server: ScriptedServer, *, connections: int) -> None:
    """The dial that had begun was not for nothing: the next call is on that connection."""
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


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_cancelled_close_closes_all_the_same(each_loop, serve, engine_pool, certificates, moment):
    """Scenario 23: one closes the pool and does not wait for the end of it."""
    server = serve(gated(), tls=certificates.good)
    pool = engine_pool(tls=trusting(certificates), http2=False)
    in_use = await occupy(pool, server, server)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(cancelled_at(0, moment, pool.aclose()))
    results = await asyncio.gather(*in_use, return_exceptions=True)
    assert {type(result) for result in results} == {PoolClosed}
    await until(lambda: pool.stats().connections == 0)
    await server.await_until(lambda s: s.connections_open == 0)


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_cancelled_drain_waits_for_nobody(each_loop, serve, engine_pool, moment):
    """Scenario 23: who waited for the drain has left; the drain itself goes on."""
    server = serve(gated())
    pool = engine_pool()
    in_use = await occupy(pool, server)
    task = asyncio.create_task(cancelled_at(0, moment, pool.adrain()))
    await asyncio.sleep(0)
    server.gate("go").open()
    await asyncio.gather(*in_use)
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await server.await_until(lambda s: s.connections_open == 0)
    await until(lambda: not pool._coordinator._conditions)


# By whom.


async def test_cancelled_by_a_timeout(each_loop, serve, engine_pool):
    """Scenario 24: ``asyncio.timeout`` raises its TimeoutError, and no error of ours in its place."""
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
    await assert_whole(pool, server)


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
    await assert_whole(pool, server)


@pytest.mark.parametrize("translate_httpx_errors", [True, False], ids=["server loop", "portal"])
def test_cancelled_by_the_end_of_the_loop(serve, engine_pool, translate_httpx_errors):
    """Scenario 24: ``asyncio.run`` returns while calls are in use, dialing and queued."""
    server = serve(per_connection(stall, stall, json_reply()))
    pool = engine_pool(max_connections=2)

    async def main() -> None:
        if translate_httpx_errors:
            portal.adopt_server_loop()
        for _ in range(5):
            asyncio.create_task(pool.fetch(request_to(server)))  # noqa: RUF006 - to be cut off is its part
        await server.await_requests(2)
        await until(lambda: pool.stats().waiting == 3)

    asyncio.run(main())
    server.wait_until(lambda s: len(s.disconnects) >= 2)
    assert pool.fetch_sync(request_to(server, pool=AT_ONCE)).status == 200
    assert (pool.stats().in_use, pool.stats().waiting) == (0, 0)


def test_a_callers_loop_that_closes_without_a_word_loses_nothing(serve, engine_pool):
    """Scenario 24: no task is cancelled, the loop is just closed; the response has nobody to go to."""

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
    """Scenario 24: the browser goes away in the middle of a stream; the provider's connection goes too."""
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


# In great numbers.


@pytest.mark.parametrize("host_loop", ["server loop", "portal"])
async def test_after_thousands_of_random_cancels_the_books_balance(serve, engine_pool, host_loop):
    """Scenario 25: 10,000 over both homes, at random points; then the next checkout is immediate."""
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


# Threads.


def open_read_and_leave(pool: Pool, request: Request) -> None:
    exchange = pool.open_sync(request)
    try:
        while exchange.host_loop.run(exchange.read):
            pass
    finally:
        exchange.close_threadsafe()


def fetch_sync(pool: Pool, request: Request) -> None:
    pool.fetch_sync(request)


@pytest.fixture
def interrupts():
    """Python's own way with SIGINT; whoever starts the tests in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize("blocked_in", ["queue", "head", "body"])
def test_a_keyboard_interrupt_frees_the_connection(serve, engine_pool, blocked_in):
    """Scenario 26: SIGINT in the main thread while it blocks in the pool, as Ctrl-C gives it."""

    async def half(conn) -> None:
        await conn.read_request()
        await conn.send_head(200, {"Content-Length": "10"})
        await conn.hold()

    scripts = {"queue": gated(), "head": stall, "body": half}
    server = serve(per_connection(scripts[blocked_in], json_reply()))
    pool = engine_pool(max_connections=1)
    main = threading.main_thread()
    assert threading.current_thread() is main

    def interrupt() -> None:
        server.wait_requests()
        if blocked_in == "queue":
            assert soon(lambda: pool.stats().waiting == 1)
        signal.pthread_kill(main.ident, signal.SIGINT)

    holder = None
    if blocked_in == "queue":
        holder = threading.Thread(target=fetch_sync, args=(pool, request_to(server)))
        holder.start()
        server.wait_requests()
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            open_read_and_leave(pool, request_to(server))
        thread.join()
        assert soon(lambda: pool.stats().waiting == 0)
    finally:
        server.gate("go").open()
    if holder is not None:
        holder.join()
    else:
        server.wait_until(lambda s: s.disconnects)
    assert pool.fetch_sync(request_to(server, pool=AT_ONCE)).status == 200


@pytest.mark.parametrize("way", [fetch_sync, open_read_and_leave])
def test_interrupted_at_every_step_of_a_sync_call(serve, engine_pool, way):
    """Scenario 26: wherever CPython could have looked for a signal; there is but one connection to lose."""
    server = serve(json_reply())
    pool = engine_pool(max_connections=1)
    pool.fetch_sync(request_to(server))
    go_through_interrupts(lambda step: interrupted_at(step, way, pool, request_to(server)), pool, server)


def test_interrupted_at_every_step_of_opening_a_response_that_never_ends(serve, engine_pool):
    """Scenario 26: until the very moment in which the caller has it in hand, and can leave it."""

    async def script(conn) -> None:
        request = await conn.read_request()
        if request.target == "/unending":
            await conn.send_head(200, {"Content-Length": "8"})
            await conn.hold()
        await conn.respond(200)

    server = serve(script)
    pool = engine_pool(max_connections=1)

    def run(step: int) -> tuple[bool, None]:
        got_there, exchange = interrupted_at(step, pool.open_sync, request_to(server, target="/unending"))
        exchange.close_threadsafe()
        return got_there, None

    go_through_interrupts(run, pool, server)


def go_through_interrupts(run, pool: Pool, server: ScriptedServer) -> None:
    """``run(step)`` for each step until the call has no such step; the pool is whole after each."""
    step, got_there = 0, True
    while got_there:
        with contextlib.suppress(KeyboardInterrupt):
            got_there, _ = run(step)
        assert pool.fetch_sync(request_to(server, pool=AT_ONCE)).status == 200, step
        assert (pool.stats().in_use, pool.stats().waiting) == (0, 0), step
        step += 1
    assert step > 10


@pytest.mark.parametrize("blocked_in", ["queue", "head"])
def test_a_thread_that_is_killed_frees_its_connection(serve, engine_pool, blocked_in):
    """Scenario 26: an exception raised in the thread from outside, as timeouts of task queues do it.

    A thread that blocks sees it when the answer comes: that answer is the one to be given up.
    """
    server = serve(gated())
    pool = engine_pool(max_connections=1)
    holder = threading.Thread(target=pool.fetch_sync, args=(request_to(server),))
    if blocked_in == "queue":
        holder.start()
        server.wait_requests()
    victim = threading.Thread(target=swallow, args=(pool.open_sync, request_to(server)))
    victim.start()
    if blocked_in == "queue":
        assert soon(lambda: pool.stats().waiting == 1)
    else:
        server.wait_requests()
    raised = ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(victim.ident), ctypes.py_object(SystemExit)
    )
    assert raised == 1
    server.gate("go").open()
    victim.join()
    if blocked_in == "queue":
        holder.join()
    assert pool.fetch_sync(request_to(server, pool=AT_ONCE)).status == 200
    assert pool.stats().in_use == 0


def swallow(function, *args) -> None:
    with contextlib.suppress(LLMPoolError, ConnectFailed, SystemExit):
        function(*args)


async def test_threads_and_tasks_that_leave_do_not_disturb_each_other(serve, engine_pool):
    """Scenario 26: cancelled tasks and threads share the portal; every thread gets its answer."""
    server = serve(echo)
    pool = engine_pool(max_connections=3)
    stop = asyncio.Event()

    async def leave_again_and_again() -> None:
        while not stop.is_set():
            task = asyncio.create_task(pool.fetch(request_to(server)))
            await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.wait([task])

    def call_often() -> list[int]:
        return [pool.fetch_sync(request_to(server)).status for _ in range(20)]

    leavers = [asyncio.create_task(leave_again_and_again()) for _ in range(3)]
    statuses = await asyncio.gather(*(in_thread(call_often) for _ in range(4)))
    stop.set()
    await asyncio.gather(*leavers)
    assert statuses == [[200] * 20] * 4
    assert server.peak_open <= 3
