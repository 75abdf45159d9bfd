"""The streams of the Messages API: https://docs.anthropic.com/en/docs/build-with-claude/streaming"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llm_pool.providers.anthropic.blocks import citation_of
from llm_pool.providers.event_stream import EventStreamReader, parse_index
from llm_pool.providers.merging import MergedObject
from llm_pool.providers.results import Chunk, ToolCallPart
from llm_pool.providers.texts import repair_surrogates, text_or_empty, text_or_none

if TYPE_CHECKING:
    from llm_pool.providers.head import Head
    from llm_pool.providers.json_provider import JSONProvider

__all__ = ["AnthropicStreamReader"]

_PARTS = {"content_block_start": "content_block", "content_block_delta": "delta"}  # fields by event type


class AnthropicStreamReader(EventStreamReader):
    """Reads events up to ``message_stop``. An event of an unknown type becomes a chunk without text.

    The type of an event is the "type" in its data; without one, it is that of the event stream. A body that
    ends without ``message_stop`` is complete too if an event has reported a ``stop_reason``.
    """

    def __init__(self, provider: JSONProvider, head: Head) -> None:
        super().__init__(provider, head)
        self._message: dict[str, Any] = {}  # without its content
        self._blocks: list[_Block] = []
        self._by_index: dict[int, _Block] = {}
        self._tool_calls = 0

    def _merged_answer(self) -> dict[str, Any]:
        blocks = self._blocks
        if len(self._by_index) == len(blocks):
            blocks = [block for _, block in sorted(self._by_index.items())]
        return {**self._message, "content": [block.to_dict() for block in blocks]}

    def _read_done(self) -> None:
        """Some gateways add OpenAI's "[DONE]", which says nothing here."""
        self.finished = self.is_complete

    def _chunk_from(self, raw: dict[str, Any], kind: str, data: str) -> Chunk | None:
        stated = raw.get("type")
        if stated is None and kind != "message":  # the event stream's own default
            stated = kind
        read = _READERS.get(stated)
        if read is not None:
            return read(self, raw, data)
        return None if self._is_ignored(raw, kind) else Chunk("", raw)

    def is_content(self, chunk: Chunk) -> bool:
        """See ``StreamReader.is_content``. Counts every field of a content block but its type."""
        part = chunk.raw.get(_PARTS.get(chunk.raw.get("type", ""), ""), {})
        return super().is_content(chunk) or any(value for name, value in part.items() if name != "type")

    def _begin_message(self, raw: dict[str, Any], _data: str) -> Chunk:
        if self._blocks:
            # Some gateways ask again when a provider fails.
            what = "a second answer in the middle of the first"
            raise self._provider.invalid_response(self._head, what, json.dumps(raw), self.partial)
        self._merge(raw["message"])
        return self._with_usage(Chunk("", raw))

    def _add_to_message(self, raw: dict[str, Any], _data: str) -> Chunk:
        delta = raw["delta"]
        fields = {**raw, **delta}  # the usage is a field of the event, not of its delta
        del fields["type"], fields["delta"]
        self._merge(fields)
        reason = text_or_none(delta.get("stop_reason"))
        self.is_complete = self.is_complete or reason is not None
        return self._with_usage(Chunk("", raw, reason))

    def _merge(self, fields: dict[str, Any]) -> None:
        """Add fields to the message. The values of the usage are those so far, not what an event adds."""
        for name, value in fields.items():
            previous = self._message.get(name)
            if name == "content":
                continue
            if isinstance(value, dict) and isinstance(previous, dict):
                kept = {key: new for key, new in value.items() if new is not None or key not in previous}
                self._message[name] = {**previous, **kept}
            elif value is not None or name not in self._message:
                self._message[name] = value

    def _with_usage(self, chunk: Chunk) -> Chunk:
        chunk.usage = self._provider.usage_from(self._message.get("usage"))
        return chunk

    def _end_message(self, _raw: dict[str, Any], data: str) -> None:
        if not self._message:
            raise self._provider.invalid_response(self._head, "a stream without a message", data)
        self.is_complete = self.finished = True

    def _read_whole_message(self, raw: dict[str, Any], data: str) -> Chunk:
        """Read an answer without a stream, which a server sends although a stream was asked for."""
        chunks = [
            self._begin_block({"index": index, "content_block": block}, data)
            for index, block in enumerate(raw["content"])
        ]
        self._merge(raw)
        self._end_message(raw, data)
        calls = [part for block in self._blocks if (part := block.whole_call()) is not None]
        text, reasoning = (
            "".join(chunk.text for chunk in chunks),
            "".join(chunk.reasoning for chunk in chunks),
        )
        reason = text_or_none(raw.get("stop_reason"))
        return self._with_usage(Chunk(text, raw, reason, calls, reasoning=reasoning))

    def _begin_block(self, raw: dict[str, Any], data: str) -> Chunk:
        start = raw["content_block"]
        kind = start["type"]
        number = self._tool_calls
        block = _Block(start, number if kind == "tool_use" else None)
        self._blocks.append(block)
        self._by_index[parse_index(raw["index"])] = block
        text = (start.get("text") or "") if kind == "text" else ""
        chunk = Chunk(self._add_text(text, data), raw)
        if kind == "tool_use":
            self._tool_calls += 1
            identifier, name = text_or_empty(start.get("id")), text_or_empty(start.get("name"))
            chunk.tool_calls = [ToolCallPart(number, identifier, name)]
        elif kind == "thinking" and isinstance(start.get("thinking"), str):
            chunk.reasoning = start["thinking"]
        return chunk

    def _add_to_block(self, raw: dict[str, Any], data: str) -> Chunk:
        block, delta = self._by_index[parse_index(raw["index"])], raw["delta"]
        kind = delta["type"]
        if kind == "text_delta":
            text = delta.get("text") or ""
            chunk = Chunk(self._add_text(text, data), raw)
            block.texts.append(text)
            return chunk
        chunk = Chunk("", raw)
        if kind == "input_json_delta":
            piece = delta.get("partial_json") or ""
            block.add_input(piece)
            if block.call is not None:
                chunk.tool_calls = [ToolCallPart(block.call, arguments=piece)]
        elif kind == "citations_delta":
            block.citations.append(delta["citation"])
            chunk.citations = (citation_of(delta["citation"]),)
        else:
            block.others.add({name: value for name, value in delta.items() if name != "type"})
            if kind == "thinking_delta" and isinstance(delta.get("thinking"), str):
                chunk.reasoning = delta["thinking"]
        return chunk

    def _end_block(self, raw: dict[str, Any], _data: str) -> Chunk:
        part = self._by_index[parse_index(raw["index"])].whole_call()
        return Chunk("", raw, tool_calls=[part] if part is not None else None)


_READERS: dict[str | None, Callable[[AnthropicStreamReader, dict[str, Any], str], Chunk | None]] = {
    "content_block_delta": AnthropicStreamReader._add_to_block,
    "content_block_start": AnthropicStreamReader._begin_block,
    "content_block_stop": AnthropicStreamReader._end_block,
    "message": AnthropicStreamReader._read_whole_message,
    "message_delta": AnthropicStreamReader._add_to_message,
    "message_start": AnthropicStreamReader._begin_message,
    "message_stop": AnthropicStreamReader._end_message,
}


class _Block:
    """A content block of a stream. What its start brings is kept as it is, or with what the deltas add.

    ``call``       the number of its tool call, in a block of the type "tool_use"; None in others
    ``texts``      the pieces of its text
    ``citations``  the citations that the deltas bring
    ``others``     the fields of all other deltas, merged
    """

    __slots__ = ("_inputs", "_start", "call", "citations", "others", "texts")

    def __init__(self, start: dict[str, Any], call: int | None) -> None:
        self._start = start
        self.call = call
        self.texts: list[str] = []
        self.citations: list[Any] = []
        self.others = MergedObject()
        self._inputs: list[str] = []

    def add_input(self, piece: str) -> None:
        """Add a piece of the JSON of a tool's input."""
        if type(piece) is not str:
            raise TypeError("the piece of JSON is not a str")
        if piece:
            self._inputs.append(piece)

    def whole_call(self) -> ToolCallPart | None:
        """Return the input of a tool call that came whole in the block's start; None if it came in pieces."""
        whole = self._start.get("input")
        if self.call is None or self._inputs or not whole:
            return None
        return ToolCallPart(self.call, arguments=json.dumps(whole, ensure_ascii=False))

    def to_dict(self) -> dict[str, Any]:
        """Return the block as it is in an answer without a stream.

        The input is a str if its JSON is invalid, or was cut by ``max_tokens``.
        """
        block = {**self._start}
        if self.texts:
            block["text"] = repair_surrogates((block.get("text") or "") + "".join(self.texts))
        if self.citations:
            block["citations"] = [*(block.get("citations") or ()), *self.citations]
        for name, value in self.others.to_dict().items():
            before = block.get(name)
            is_text = name != "signature" and isinstance(before, str) and isinstance(value, str)
            block[name] = before + value if is_text else value
        if self._inputs:
            text = repair_surrogates("".join(self._inputs))
            try:
                block["input"] = json.loads(text)
            except (ValueError, RecursionError):
                block["input"] = text
        return block
