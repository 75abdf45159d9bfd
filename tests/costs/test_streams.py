"""The cost of each further event of a stream, each of which arrives alone. A budget may be lowered."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Coroutine, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from llm_pool.providers import PROVIDERS
from llm_pool.providers.head import Head
from testbed.chat import chat_event, chat_stream
from tests.fixtures.costs import FunctionCalls
from tests.fixtures.loops import server_loop

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_pool.calling.pool import LLMPool
    from testbed import ScriptedServer

__all__ = ["server_loop"]

EVENTS = 10
ROOMS = {
    "calling": ("llm_pool/calling/",),
    "providers": ("llm_pool/providers/",),
    "engine": ("llm_pool/engine/",),
}
READER_BYTES = 1900  # that the first events of a stream add to its reader
BUDGETS = {"calling": 6, "providers": 35, "engine": 27}


class Suspensions:
    """Awaits a coroutine. ``count`` is how often the coroutine has suspended."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine
        self.count = 0

    def __await__(self) -> Iterator[Any]:
        try:
            while True:
                yield self._coroutine.send(None)
                self.count += 1
        except StopIteration:
            return


@pytest.mark.usefixtures("server_loop")
async def test_an_event_keeps_to_its_budget_of_functions_and_suspends_once(
    serve: Callable[..., ScriptedServer], configure: Callable[..., LLMPool]
) -> None:
    server = serve(chat_stream(["word "] * (EVENTS + 4), pace="token"))
    gate = server.gate("token")
    stream = configure(server).astream("hello")
    for _ in range(3):  # what is made once
        gate.admit()
        await anext(stream)
    counts, suspensions = dict.fromkeys(ROOMS, 0), 0
    for _ in range(EVENTS):
        step = Suspensions(stream.astep())
        with FunctionCalls() as calls:
            gate.admit()
            await step
        suspensions += step.count
        for name, rooms in ROOMS.items():
            counts[name] += calls.total(*rooms)
    gate.open()
    async for _ in stream:
        pass
    assert suspensions == EVENTS
    assert {name: count for name, count in counts.items() if count > EVENTS * BUDGETS[name]} == {}, counts


def framed(kind: str, **event: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **event})}\n\n".encode()


STARTS = (
    framed("message_start", message={"content": []}),
    framed("content_block_start", index=0, content_block={"type": "text"}),
)
TEXT = {"type": "text_delta", "text": "word "}
PIECE = {"item_id": "m", "output_index": 0, "content_index": 0, "delta": "word "}
EVENTS_OF = {
    "openai": (35, b"", chat_event({"content": "word "})),
    "anthropic": (25, b"".join(STARTS), framed("content_block_delta", index=0, delta=TEXT)),
    "openai-responses": (32, b"", framed("response.output_text.delta", **PIECE)),
}
"""For each provider the budget of one event, the events before the first of these, and the event."""


@pytest.mark.parametrize("name", EVENTS_OF)
def test_an_event_is_read_within_its_budget_of_functions(name: str) -> None:
    budget, before, event = EVENTS_OF[name]
    reader = PROVIDERS[name]().stream_reader(Head(200, {}))
    reader.feed(before + event)
    reader.feed(event)
    with FunctionCalls() as calls:
        (chunk,) = reader.feed(event)
    assert chunk.text == "word "
    assert calls.total("llm_pool/providers/") <= budget


def test_the_readers_of_open_streams_keep_to_their_budget_of_memory() -> None:
    event = chat_event({"content": "word "})
    readers = [PROVIDERS["openai"]().stream_reader(Head(200, {})) for _ in range(101)]
    readers[0].feed(event)  # what is made once
    tracemalloc.start()
    for reader in readers[1:]:
        for _ in range(3):
            reader.feed(event)
    allocated, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert allocated / 100 <= READER_BYTES
