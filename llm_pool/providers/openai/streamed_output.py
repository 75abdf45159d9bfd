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
    Text("reasoning", "reasoning", "reasoning_text", "content", "content_index", "text"),
    Text("reasoning_summary_text", "reasoning", "summary_text", "summary", "summary_index", "text"),
    Text("function_call_arguments", "function_call", "arguments", "", "", "arguments"),
    Text("custom_tool_call_input", "custom_tool_call", "input", "", "", "input"),
    Text("mcp_call_arguments", "mcp_call", "arguments", "", "", "arguments"),
    Text("code_interpreter_call_code", "code_interpreter_call", "code", "", "", "code"),
)
_NAMES = ("call_id", "name")  # of an item that is a call


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
        if event.get("output_index") is not None:
            item = self._at(event["output_index"])
            if item is not None and item.is_done and event.get("delta"):
                item = None
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
            self._at(index),
        )
        return next((item for item in found if item is not None and item.may_be(raw)), None)

    def _at(self, index: Any) -> StreamedItem | None:
        return None if index is None else self._by_index.get(parse_index(index))

    def merged(self, output: Any) -> list[dict[str, Any]]:
        """Return the items as they are in an answer without a stream.

        ``output`` is the output in the last event. An item of it that has less than the stream has brought is
        filled. If it has fewer items than the stream, all are those of the stream.
        """
        if not isinstance(output, list) or len(output) < len(self.items):
            return [item.filled(item.raw) for item in self._in_order()]
        items = self._items_of(output)
        return [raw if item is None else item.filled(raw) for item, raw in zip(items, output, strict=True)]

    def complete(self, output: list[dict[str, Any]]) -> list[StreamedItem | None]:
        """Begin the items that only ``output``, the output in the last event, has.

        Return the item of the stream for each item of ``output``: None if the ids, types and positions do not
        say which one it is.
        """
        items = self._items_of(output)
        if sum(item is not None for item in items) == len(self.items):
            items = [
                item or self.begin(raw, {"output_index": position})
                for position, (item, raw) in enumerate(zip(items, output, strict=True))
            ]
            self.items = list(filter(None, items))
        return items

    def _items_of(self, output: list[dict[str, Any]]) -> list[StreamedItem | None]:
        items = self._in_order()
        if len(output) == len(items) and all(map(StreamedItem.may_be, items, output)):
            return list(items)
        found: list[StreamedItem | None] = []
        used: set[StreamedItem | None] = set()
        for position, raw in enumerate(output):
            item = self.find(raw, position)
            found.append(None if item in used else item)
            used.add(item)
        return found

    def _in_order(self) -> list[StreamedItem]:
        if len(self._by_index) != len(self.items):
            return self.items
        return [item for _, item in sorted(self._by_index.items())]


class StreamedItem:
    """One item of a streamed response.

    ``raw``            the item as its last event has it
    ``call``           the number of its tool call; None if it is not a call of a user's tool
    ``is_named``       whether a chunk has had the name of the tool
    ``is_done``        whether the item has ended
    ``has_citations``  whether a chunk has had citations of this item
    ``reasoning``      the kind of text that counts as its reasoning; None before the first
    """

    __slots__ = ("_last", "_parts", "call", "has_citations", "is_done", "is_named", "raw", "reasoning")

    def __init__(self, raw: dict[str, Any], call: int | None) -> None:
        self.raw = raw
        self.call = call
        self.is_named = False
        self.is_done = False
        self.has_citations = False
        self.reasoning: str | None = None
        self._parts: dict[tuple[int, str], StreamedPart] = {}
        self._last: dict[str, StreamedPart] = {}  # of each kind, that of the last event

    def may_be(self, raw: dict[str, Any]) -> bool:
        """Return whether ``raw`` can be this item as another event has it: some servers repeat ids."""
        mine, other = self.raw.get("call_id"), raw.get("call_id")
        return self.raw.get("type") == raw.get("type") and (mine == other or not (mine and other))

    def is_repeated_by(self, raw: dict[str, Any]) -> bool:
        """Return whether ``raw`` is all of this item again. Its id and its status can differ."""
        names = (self.raw.keys() | raw.keys()) - {"id", "status"}
        return all(self.raw.get(name) == raw.get(name) for name in names)

    def end(self, raw: dict[str, Any]) -> None:
        """End the item. ``raw`` is the item as its end has it: in some it has lost its names."""
        self.raw = {**raw, **self._names_missing_in(raw)}
        self.is_done = True

    def _names_missing_in(self, raw: dict[str, Any]) -> dict[str, Any]:
        return {name: self.raw[name] for name in _NAMES if self.raw.get(name) and not raw.get(name)}

    def begin_part(self, text: Text, index: Any, raw: dict[str, Any]) -> None:
        """Add a part with a text at this position, ``raw`` as its event has it."""
        key = _key(text.kind, index)
        part = self._parts[key] = self._last[text.kind] = self._parts.get(key) or StreamedPart(text)
        part.raw = raw

    def part(self, text: Text, index: Any, whole: Any = None) -> StreamedPart:
        """Return the part with a text at this position, which can be a new one; None is the first position.

        vLLM counts the events in "content_index". So at a position where no event has begun a part, the last
        one goes on if its text has not ended, or has ended with ``whole``, the text of an event that ends it.
        """
        key = _key(text.kind, index)
        part = self._parts.get(key)
        if part is None:
            last = self._last.get(text.kind) if text.position == "content_index" else None
            if last is not None and (last.end is None or last.end == whole):
                return last
            part = self._parts[key] = StreamedPart(text)
        self._last[text.kind] = part
        return part

    def add_annotation(self, text: Text, index: Any, annotation: Any) -> None:
        """Add an annotation to the part with a text at this position, or to the last part with one."""
        part = self._parts.get(_key(text.kind, index)) or self._last.get(text.kind) or self.part(text, index)
        part.annotations.append(annotation)
        self.has_citations = True

    def has(self, kind: str) -> bool:
        """Return whether a piece of a text of this kind has come."""
        return any(part.pieces for (_, each), part in self._parts.items() if each == kind)

    def filled(self, raw: dict[str, Any]) -> dict[str, Any]:
        """Return ``raw``, this item as an event has it, with what the other events have more."""
        item = {**raw, **self._names_missing_in(raw)}
        lists: dict[str, list[tuple[int, StreamedPart]]] = {}
        for (index, kind), part in sorted(self._parts.items(), key=lambda each: each[0]):
            if part.pieces and part.text.field:
                lists.setdefault(part.text.field, []).append((index, part))
            elif part.pieces and isinstance(raw.get(kind) or "", str):
                item = _filled(item, part.brought())
        for field, parts in lists.items():
            if isinstance(raw.get(field) or [], list):
                item[field] = _filled_list(raw.get(field) or [], parts)
        return item


def _key(kind: str, index: Any) -> tuple[int, str]:
    return (index if type(index) is int else parse_index(index or 0), kind)


def _filled_list(raw: list[Any], parts: list[tuple[int, StreamedPart]]) -> list[Any]:
    """Return ``raw``, the parts of an item as an event has them, with what other events have more.

    ``parts`` are those of the other events, with their positions. If ``raw`` does not have all these
    positions, they are not positions: vLLM counts the parts of the items before, too.
    """
    brought = [part.brought() for _, part in parts]
    names = {name for fields in brought for name in fields}
    less = {name for name in names if _size(raw, name) < _size(brought, name)}
    are_positions = all(0 <= index < len(raw) for index, _ in parts)
    filled = list(raw)
    for number, ((index, part), fields) in enumerate(zip(parts, brought, strict=True)):
        place = index if are_positions else number
        base = filled[place] if place < len(filled) else part.raw
        filled[place : place + 1] = [_filled(base, {name: fields[name] for name in less & fields.keys()})]
    return filled


def _filled(raw: dict[str, Any], brought: dict[str, Any]) -> dict[str, Any]:
    """Return ``raw`` with the fields of ``brought``, but for those that are not longer."""
    return {**raw, **{name: value for name, value in brought.items() if _size([raw], name) < len(value)}}


def _size(parts: Iterable[Any], name: str) -> int:
    """Return the length of all texts, or of all lists, with this name."""
    values = (part.get(name) for part in parts if isinstance(part, dict))
    return sum(len(value) for value in values if isinstance(value, (str, list)))


class StreamedPart:
    """A text of an item, with what belongs to it.

    ``text``         the kind of text
    ``raw``          the part as an event has it
    ``pieces``       the pieces of the text
    ``end``          the text in the event that has ended it; None before that
    ``annotations``  the annotations that came in events of their own
    ``logprobs``     the log probabilities that came with the pieces
    """

    __slots__ = ("annotations", "end", "logprobs", "pieces", "raw", "text")

    def __init__(self, text: Text) -> None:
        self.text = text
        self.raw: dict[str, Any] = {"type": text.kind}
        self.pieces: list[str] = []
        self.end: Any = None
        self.annotations: list[Any] = []
        self.logprobs: list[Any] = []

    def brought(self) -> dict[str, Any]:
        """Return what the events have brought, as fields of the part."""
        text = repair_surrogates("".join(self.pieces))
        return {self.text.name: text, "annotations": self.annotations, "logprobs": self.logprobs}
