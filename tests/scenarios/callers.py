"""Callers, and the servers that keep them waiting."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from llm_pool.engine.config import TLS
from tests.fixtures.engine import request_to

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from llm_pool.engine.pool import Pool
    from testbed import Script, ScriptedServer, ServerConnection
    from testbed.tls import Certificates

__all__ = ["AT_ONCE", "bodies", "gated", "in_thread", "occupy", "queue_up", "read_out", "trusting", "until"]

T = TypeVar("T")

AT_ONCE = 2.0
"""Seconds, where a test's timeouts are far longer: nobody waited."""


async def until(condition: Callable[[], object], patience: float = 5.0) -> None:
    """Lets the loop run until the condition on a pool, which tells nobody, is fulfilled."""
    async with asyncio.timeout(patience):
        while not condition():  # noqa: ASYNC110 - a pool has no event for it
            await asyncio.sleep(0.001)


async def in_thread(function: Callable[..., T], *args: Any) -> T:
    """As ``asyncio.to_thread``, without the bound on how many at once; the thread has ended on return."""
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(function(*args))
        except BaseException as error:  # noqa: BLE001 - it is the caller's
            done.set_exception(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        return await asyncio.shield(asyncio.wrap_future(done))
    finally:
        thread.join()


def gated(name: str = "go") -> Script:
    """Answers each request when the server's gate of that name lets it pass."""

    async def script(conn: ServerConnection) -> None:
        await conn.read_request()
        await conn.wait_for(name)
        await conn.respond(200, body=b"ok")

    return script


async def occupy(pool: Pool, *servers: ScriptedServer) -> list[asyncio.Task[Any]]:
    """Calls that hold a connection each, to servers that are ``gated``."""
    tasks = []
    for server in servers:
        came = len(server.requests)
        tasks.append(asyncio.create_task(pool.fetch(request_to(server))))
        await server.await_requests(came + 1)
    return tasks


async def queue_up(pool: Pool, *calls: Coroutine[Any, Any, Any]) -> list[asyncio.Task[Any]]:
    """Starts calls one after the other, each when the one before it waits in the queue."""
    tasks = []
    for call in calls:
        waiting = pool.stats().waiting
        tasks.append(asyncio.create_task(call))
        await until(lambda waiting=waiting: pool.stats().waiting > waiting)
    return tasks


def bodies(server: ScriptedServer) -> list[bytes]:
    """What the requests brought, in the order they came."""
    return [request.body for request in server.requests]


def trusting(certificates: Certificates) -> TLS:
    """For a pool whose servers have certificates of the tests' authority."""
    return TLS(ca_file=certificates.ca_file)


async def read_out(stream: Any) -> str:
    """The text of the rest of a stream, read by a task or in a thread."""
    if hasattr(stream, "__aiter__"):
        return "".join([chunk.text async for chunk in stream])
    return await asyncio.to_thread(lambda: "".join(chunk.text for chunk in stream))
