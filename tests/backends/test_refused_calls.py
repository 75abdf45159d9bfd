"""What a connection that is another library's client does with calls, whatever that library is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from llm_pool.backends.connection import BackendConnection
from llm_pool.engine.config import Origin, Timeouts
from llm_pool.engine.loops.host_loop import HostLoop
from llm_pool.engine.request import Request

if TYPE_CHECKING:
    from llm_pool.backends.transfer import Call

REQUEST = Request(Origin("https", "llm.test", 443), b"GET", b"/", [(b"Host", b"llm.test")], b"", Timeouts())


class AtOnce:
    """A library that finds out at once that the server speaks HTTP/1.1, and answers when it is told to."""

    def __init__(self) -> None:
        self.sent: list[Call] = []
        self.answers = asyncio.Event()

    async def send(self, call: Call) -> None:
        self.sent.append(call)
        call.is_sent(http2=False)
        await self.answers.wait()
        call.on_head(200, b"OK", b"HTTP/1.1", [])

    async def aclose(self) -> None:
        pass


async def test_a_call_that_came_before_http1_was_known_and_begins_after_it_is_turned_away() -> None:
    """Or it would wait inside the library, where the queue knows nothing of it."""
    client = AtOnce()
    nobody: Any = None  # it is in no pool
    connection = BackendConnection(HostLoop(asyncio.get_running_loop()), nobody, client, most_streams=32)
    first, second, third = (connection.start(REQUEST) for _ in range(3))
    for _ in range(10):
        await asyncio.sleep(0)
    assert second.refused and third.refused
    assert [call.exchange for call in client.sent] == [first]
    client.answers.set()
    assert (await first.read_all()).status == 200
    last = connection.start(REQUEST)
    assert (await last.read_all()).status == 200
