"""Calls that a connection of another library refuses, because its server speaks HTTP/1.1."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from llm_pool.backends.connection import BackendConnection
from llm_pool.engine.config import Origin
from llm_pool.engine.head import RequestHead
from llm_pool.engine.loops.host_loop import HostLoop
from llm_pool.engine.request import Request

if TYPE_CHECKING:
    from llm_pool.backends.transfer import Transfer

REQUEST = Request(RequestHead(Origin("https", "llm.test", 443), b"GET", b"/", [(b"Host", b"llm.test")]))


class Client:
    """A library's client. It reports HTTP/1.1 at once, and answers when ``answers`` is set."""

    def __init__(self) -> None:
        self.sent: list[Transfer] = []
        self.answers = asyncio.Event()

    async def send(self, transfer: Transfer) -> None:
        self.sent.append(transfer)
        transfer.on_send_start(http2=False)
        await self.answers.wait()
        transfer.on_head(200, b"OK", b"HTTP/1.1", [])

    async def aclose(self) -> None:
        pass


async def test_calls_started_before_http1_was_known_are_refused() -> None:
    """All but the first: otherwise they would wait inside the library, outside the pool's queue."""
    client = Client()
    owner: Any = None  # the connection belongs to no pool
    connection = BackendConnection(HostLoop(asyncio.get_running_loop()), owner, client, max_streams=32)
    first, second, third = (connection.start(REQUEST) for _ in range(3))
    for _ in range(10):
        await asyncio.sleep(0)
    assert second.refused and third.refused
    assert [transfer.exchange for transfer in client.sent] == [first]
    client.answers.set()
    assert (await first.read_all()).status == 200
    last = connection.start(REQUEST)
    assert (await last.read_all()).status == 200
