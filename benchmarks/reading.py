"""CPU and memory of the readers for large answers: ``python -m benchmarks.reading``.

Each answer is read in three sizes, each twice the one before. If the time is linear, the CPU for each byte or
event is the same in all of them. The network is left out: the bytes go straight to the reader. The chunks are
dropped, as a view does that sends them on; what the memory holds is what the whole answer needs.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, repeat
from typing import Any, NamedTuple

from llm_pool.providers import PROVIDERS
from llm_pool.providers.base import Head

MEGABYTE = 1_000_000
READ = 65_536  # bytes at a time, as from a socket


class Answer(NamedTuple):
    """A kind of answer.

    ``api``     the name of the provider
    ``size``    the largest size, in ``unit``
    ``unit``    what the size counts
    ``events``  makes the events of an answer of a size
    ``read``    how many bytes the reader gets at a time
    """

    api: str
    size: int
    unit: str
    events: Callable[[int], Iterator[Any]]
    read: int = READ


def main() -> None:
    """Measure each answer, and print a line for it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the sizes: 0.1 for a tenth")
    parser.add_argument("--answers", nargs="+", metavar="NAME", choices=list(ANSWERS), default=list(ANSWERS))
    options = parser.parse_args()
    print(f"{'':<44}{'CPU of each, at a quarter, half and all':>44}{'memory':>13}")
    for name in options.answers:
        answer = ANSWERS[name]
        sizes = [max(1, int(answer.size * options.share / part)) for part in (4, 2, 1)]
        costs = "".join(f"{seconds(answer, size) / size * 1e9:>11,.0f}" for size in sizes)
        memory = peak(answer, sizes[-1]) / MEGABYTE
        print(f"{name:<44}{costs} ns/{answer.unit:<8}{memory:>9,.1f} MB", flush=True)


def seconds(answer: Answer, size: int) -> float:
    """CPU seconds to read an answer of this size."""
    reads = list(_reads(answer.events(size), answer.read))
    gc.collect()
    began = time.process_time()
    _read(answer.api, reads)
    return time.process_time() - began


def peak(answer: Answer, size: int) -> int:
    """The most bytes of memory that reading takes, up to the whole answer, without the bytes of the body."""
    reads = list(_reads(answer.events(size), answer.read))
    gc.collect()
    tracemalloc.start()
    _read(answer.api, reads)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


def _read(api: str, reads: list[bytes]) -> None:
    reader = PROVIDERS[api]().stream_reader(Head(200, {}))
    for data in reads:
        reader.feed(data)
    assert reader.completion().raw


def _reads(events: Iterator[Any], size: int) -> Iterator[bytes]:
    """Yield the bytes of the stream, ``size`` at a time."""
    left = bytearray()
    for event in events:
        left += b"data: " + (event if isinstance(event, bytes) else json.dumps(event).encode()) + b"\n\n"
        if len(left) >= size:
            whole = len(left) - len(left) % size
            yield from (bytes(left[at : at + size]) for at in range(0, whole, size))
            del left[:whole]
    yield bytes(left)


# Chat completions.

_BEGIN, _REASON = {"role": "assistant", "content": ""}, {"finish_reason": "stop"}


def _chat(*deltas: Iterable[Any], name: str = "delta") -> Iterator[Any]:
    for delta in chain([_BEGIN], *deltas):
        yield {"id": "c", "choices": [{"index": 0, name: delta}]}
    yield {"id": "c", "choices": [{"index": 0, "delta": {}, **_REASON}]}
    yield b"[DONE]"


def _call(index: int, arguments: str, **more: str) -> dict[str, Any]:
    return {"tool_calls": [{"index": index, "function": {**more, "arguments": arguments}}]}


def _fragments(count: int) -> Iterator[str]:
    """Fragments of JSON, some of which look like the end of the arguments."""
    yield '{"rows": [{'
    for number in range(count // 4 - 1):
        yield from (f'"a": {number}', "}", ", ", "{")
    yield "}]}"


def _cited(count: int) -> Iterator[Any]:
    for number in range(count):
        event = {"id": "c", "choices": [{"index": 0, "delta": {"content": "x"}}]}
        yield {**event, "citations": [f"https://a.test/{number}"]}
    yield from _chat()


# Messages.


def _message(*blocks: tuple[dict[str, Any], Iterator[Any]]) -> Iterator[Any]:
    yield {"type": "message_start", "message": {"id": "m", "content": []}}
    for index, (block, deltas) in enumerate(blocks):
        yield {"type": "content_block_start", "index": index, "content_block": block}
        yield from ({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas)
        yield {"type": "content_block_stop", "index": index}
    yield {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
    yield {"type": "message_stop"}


def _text(pieces: Iterator[str]) -> Iterator[Any]:
    block = {"type": "text", "text": ""}
    return _message((block, ({"type": "text_delta", "text": piece} for piece in pieces)))


def _tool(fragments: Iterator[str]) -> tuple[dict[str, Any], Iterator[Any]]:
    block = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    return block, ({"type": "input_json_delta", "partial_json": fragment} for fragment in fragments)


# Responses.


def _response(*items: tuple[dict[str, Any], str, Iterable[str]]) -> Iterator[Any]:
    """Items, each with the events that bring its pieces, without the output that the last event repeats."""
    yield {"type": "response.created", "response": {"id": "r", "object": "response", "output": []}}
    for index, (item, kind, pieces) in enumerate(items):
        place = {"output_index": index, "item_id": item["id"], "content_index": 0}
        yield {"type": "response.output_item.added", "output_index": index, "item": item}
        yield from ({"type": f"response.{kind}.delta", **place, "delta": piece} for piece in pieces)
    yield {"type": "response.completed", "response": {"status": "completed", "output": []}}


def _output_text(pieces: Iterable[str]) -> Iterator[Any]:
    item = {"id": "m", "type": "message", "role": "assistant", "content": []}
    return _response((item, "output_text", pieces))


def _function(number: int, pieces: Iterable[str]) -> tuple[dict[str, Any], str, Iterable[str]]:
    names = {"id": f"fc_{number}", "call_id": f"c_{number}", "name": "f"}
    return {"type": "function_call", **names, "arguments": ""}, "function_call_arguments", pieces


def _whole(count: int) -> Iterator[Any]:
    """Messages that only the last event has."""
    content = [{"type": "output_text", "text": TEN}]
    output = [{"id": f"m_{number}", "type": "message", "content": content} for number in range(count)]
    yield {"type": "response.completed", "response": {"status": "completed", "output": output}}


def _cited_text(count: int) -> Iterator[Any]:
    *begin, end = _output_text([])
    yield from begin
    place = {"output_index": 0, "item_id": "m", "content_index": 0}
    for number in range(count):
        annotation = {"type": "url_citation", "url": f"https://a.test/{number}"}
        yield {"type": "response.output_text.annotation.added", **place, "annotation": annotation}
    yield end


TEN = "ten bytes."
ANSWERS = {
    "chat: text in one event": Answer(
        "openai", 10 * MEGABYTE, "byte", lambda size: _chat([{"content": "x" * size}])
    ),
    "chat: the same, read 10 bytes at a time": Answer(
        "openai", 10 * MEGABYTE, "byte", lambda size: _chat([{"content": "x" * size}]), 10
    ),
    "chat: text in pieces of 10 bytes": Answer(
        "openai", MEGABYTE, "event", lambda size: _chat(repeat({"content": TEN}, size))
    ),
    "chat: empty chunks": Answer(
        "openai", MEGABYTE, "event", lambda size: _chat(repeat({"content": ""}, size))
    ),
    "chat: fragments of a tool call": Answer(
        "openai", 10_000, "event",
        lambda size: _chat([_call(0, "", name="f", id="a")], (_call(0, part) for part in _fragments(size))),
    ),
    "chat: the same, each with the name": Answer(
        "openai", 10_000, "event", lambda size: _chat(_call(0, part, name="f") for part in _fragments(size))
    ),
    "chat: tool calls": Answer(
        "openai", 10_000, "event", lambda size: _chat(_call(index, "{}", name="f") for index in range(size))
    ),
    "chat: pieces in a message for a delta": Answer(
        "openai", 10_000, "event", lambda size: _chat(repeat({"content": TEN}, size), name="message")
    ),
    "chat: citations, one in each event": Answer("openai", 10_000, "event", _cited),
    "messages: text in one event": Answer(
        "anthropic", 10 * MEGABYTE, "byte", lambda size: _text(iter(["x" * size]))
    ),
    "messages: text in pieces of 10 bytes": Answer(
        "anthropic", MEGABYTE, "event", lambda size: _text(repeat(TEN, size))
    ),
    "messages: empty chunks": Answer("anthropic", MEGABYTE, "event", lambda size: _text(repeat("", size))),
    "messages: fragments of a tool's input": Answer(
        "anthropic", 10_000, "event", lambda size: _message(_tool(_fragments(size)))
    ),
    "messages: tool calls": Answer(
        "anthropic", 10_000, "event", lambda size: _message(*(_tool(iter(["{}"])) for _ in range(size)))
    ),
    "responses: text in one event": Answer(
        "openai-responses", 10 * MEGABYTE, "byte", lambda size: _output_text(["x" * size])
    ),
    "responses: text in pieces of 10 bytes": Answer(
        "openai-responses", MEGABYTE, "event", lambda size: _output_text(repeat(TEN, size))
    ),
    "responses: empty chunks": Answer(
        "openai-responses", MEGABYTE, "event", lambda size: _output_text(repeat("", size))
    ),
    "responses: fragments of a tool call": Answer(
        "openai-responses", 10_000, "event", lambda size: _response(_function(0, _fragments(size)))
    ),
    "responses: tool calls": Answer(
        "openai-responses", 10_000, "event",
        lambda size: _response(*(_function(number, ["{}"]) for number in range(size))),
    ),
    "responses: messages, all in one event": Answer("openai-responses", 10_000, "message", _whole),
    "responses: citations, one in each event": Answer("openai-responses", 10_000, "event", _cited_text),
}  # fmt: skip
"""The answers that are measured, by name."""


if __name__ == "__main__":
    main()
