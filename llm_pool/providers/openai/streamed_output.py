"""The output of a streamed response, merged from the events: items, their parts, and the texts in these."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from llm_pool.providers.event_stream import parse_index
from llm_pool.providers.openai.responses_items import ARGUMENTS_OF
from llm_pool.providers.texts import repair_surrogates

__all__ = ["TEXTS", "StreamedItem", "StreamedOutput", "StreamedPart", "Text"]


class Text(NamedTuple):
    """A kind of text that arrives in deltas.

    ``event``     the name of its events, between "response." and ".delta" or ".done"
    ``item``      the type of its item
    ``kind``      the type of the part of the item that has it; without parts, the field of the item
    ``field``     the field of the item with the list of these parts; "" without parts
    ``position``  the field of the events with the position in this list; "" without parts
    ``name``      the field with the text, in the part and in the ".done" event
    """

    event: str
    item: str
    kind: str
    field: str
    position: str
    name: str


TEXTS = (
    Text("output_text", "message", "output_text", "content", "content_index", "text"),
    Text("refusal", "message", "refusal", "content", "content_index", "refusal"),
    Text("reasoning_text", "reasoning", "reasoning_text", "content", "content_index", "text"),
    Text("reasoning_summary_text", "reasoning", "summary_text", "summary", "summary_index", "text"),
    Text("function_call_arguments", "function_call", "arguments", "", "", "arguments"),
    Text("custom_tool_call_input", "custom_tool_call", "input", "", "", "input"),
    Text("mcp_call_arguments", "mcp_call", "arguments", "", "", "arguments"),
    Text("code_interpreter_call_code", "code_interpreter_call", "code", "", "", "code"),
)
_BY_KIND = {text.kind: text for text in TEXTS}


class StreamedOutput:
    """The items of a streamed response.

    An event belongs to the item with its "item_id"; if no item has this id, to that with its "output_index",
    since some servers make an id for each event; without both, to the last item. If there is no such item of
    the event's type, it begins one: some servers leave out the event that does.
    """

    __slots__ = ("_by_id", "_by_index", "calls", "items")

    def __init__(self) -> None:
        self.items: list[StreamedItem] = []
        self.calls = 0  # how many items are calls of the user's tools
        self._by_id: dict[Any, StreamedItem] = {}
        self._by_index: dict[Any, StreamedItem] = {}

    def begin(self, start: dict[str, Any], event: dict[str, Any]) -> StreamedItem:
        """Return the item that ``event`` begins. ``start`` is the item as the event has it."""
        identifier = start.get("id")
        item = self._by_id.get(identifier) if identifier else None
        if item is not None and item.may_be(start) and not item.is_done:
            item.raw = start
            return item
        is_call = start.get("type") in ARGUMENTS_OF
        item = StreamedItem(start, self.calls if is_call else None)
        self.calls += is_call
        self.items.append(item)
        for name in (identifier, event.get("item_id"), start.get("call_id") if is_call else None):
            if name:
                self._by_id[name] = item
        if (index := event.get("output_index")) is not None:
            self._by_index[parse_index(index)] = item
        return item

    def item_of(self, event: dict[str, Any], kind: str) -> StreamedItem:
        """Return the item to which ``event`` adds. If it begins one, ``kind`` is the type of that."""
        item = self._by_id.get(event.get("item_id"))
        if item is not None:
            return item
        if (index := event.get("output_index")) is not None:
            item = self._by_index.get(index)
        elif self.items and event.get("item_id") is None:
            item = self.items[-1]
        if item is not None and item.raw.get("type") == kind:
            return item
        return self.begin({"type": kind}, event)

    def find(self, raw: dict[str, Any], index: Any) -> StreamedItem | None:
        """Return the item that ``raw`` is, as a later event has it; None if there is none.

        ``index`` is its position in the output.
        """
        found = (
            self._by_id.get(raw.get("id")),
            self._by_id.get(raw.get("call_id")),
            self._by_index.get(index),
        )
        return next((item for item in found if item is not None and item.may_be(raw)), None)

    def merged(self, output: Any) -> list[dict[str, Any]]:
        """Return the items as they are in an answer without a stream.

        ``output`` is the output in the last event. An item of it that has less than the stream has brought is
        filled. If it has fewer items than the stream, all are those of the stream.
        """
        items = self.items
        if len(self._by_index) == len(items):
            items = [item for _, item in sorted(self._by_index.items())]
        if not isinstance(output, list) or len(output) < len(items):
            return [item.filled(item.raw) for item in items]
        found: Iterable[StreamedItem | None] = items
        if len(output) > len(items) or not all(map(StreamedItem.may_be, items, output)):
            found = [self.find(raw, position) for position, raw in enumerate(output)]
        return [raw if item is None else item.filled(raw) for item, raw in zip(found, output, strict=True)]


class StreamedItem:
    """One item of a streamed response.

    ``raw``            the item as its last event has it
    ``call``           the number of its tool call; None if it is not a call of a user's tool
    ``is_named``       whether a chunk has had the name of the tool
    ``is_done``        whether the item has ended
    ``has_citations``  whether a chunk has had citations of this item
    ``reasoning``      the kind of text that counts as its reasoning; None before the first
    """

    __slots__ = ("_parts", "call", "has_citations", "is_done", "is_named", "raw", "reasoning")

    def __init__(self, raw: dict[str, Any], call: int | None) -> None:
        self.raw = raw
        self.call = call
        self.is_named = False
        self.is_done = False
        self.has_citations = False
        self.reasoning: str | None = None
        self._parts: dict[tuple[int, str], StreamedPart] = {}

    def may_be(self, raw: dict[str, Any]) -> bool:
        """Return whether ``raw`` can be this item as another event has it: some servers repeat ids."""
        mine, other = self.raw.get("call_id"), raw.get("call_id")
        return self.raw.get("type") == raw.get("type") and (mine == other or not (mine and other))

    def part(self, kind: str, index: Any) -> StreamedPart:
        """Return the text of this kind at this position; None is the first position."""
        key = (index if type(index) is int else parse_index(index or 0), kind)
        part = self._parts.get(key)
        if part is None:
            part = self._parts[key] = StreamedPart(kind)
        return part

    def has(self, kind: str) -> bool:
        """Return whether a piece of a text of this kind has come."""
        return any(part.pieces for (_, each), part in self._parts.items() if each == kind)

    def filled(self, raw: dict[str, Any]) -> dict[str, Any]:
        """Return ``raw``, this item as an event has it, with what the other events have more."""
        item = dict(raw)
        lists: dict[str, list[Any]] = {}
        for (index, kind), part in sorted(self._parts.items(), key=lambda each: each[0]):
            text = _BY_KIND[kind]
            whole = raw.get(text.field or kind)
            if not part.pieces or (whole and not isinstance(whole, list if text.field else str)):
                continue
            if not text.field:
                item = part.filled(item, text.name)
                continue
            if text.field not in lists:
                lists[text.field] = item[text.field] = list(whole or ())
            parts = lists[text.field]
            base = parts[index] if index < len(parts) else part.raw
            parts[index : index + 1] = [part.filled(base, text.name)]
        return item


class StreamedPart:
    """A text of an item, with what belongs to it.

    ``raw``          the part as an event has it
    ``pieces``       the pieces of the text
    ``annotations``  the annotations that came in events of their own
    ``logprobs``     the log probabilities that came with the pieces
    """

    __slots__ = ("annotations", "logprobs", "pieces", "raw")

    def __init__(self, kind: str) -> None:
        self.raw: dict[str, Any] = {"type": kind}
        self.pieces: list[str] = []
        self.annotations: list[Any] = []
        self.logprobs: list[Any] = []

    def filled(self, raw: dict[str, Any], name: str) -> dict[str, Any]:
        """Return ``raw``, this part as an event has it, with what the other events have more.

        ``name`` is the field with the text.
        """
        text = repair_surrogates("".join(self.pieces))
        more = {"annotations": self.annotations, "logprobs": self.logprobs}
        part = {**raw, **{field: values for field, values in more.items() if values and not raw.get(field)}}
        return {**part, name: text} if len(part.get(name) or "") < len(text) else part
