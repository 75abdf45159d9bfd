"""Tool calls of chat completions, whole and in the parts of a stream.

The API numbers the calls of a stream with an "index", and sends the "id" and the name of a call in its first
part: https://platform.openai.com/docs/guides/function-calling#streaming. Compatible servers leave out the
index or the id, or repeat them; ``ToolCallMerger`` has the rules that find the call of each part.
"""

from __future__ import annotations

import json
import re
from typing import Any

from llm_pool.providers.event_stream import parse_index
from llm_pool.providers.merging import MergedObject
from llm_pool.providers.results import ToolCall, ToolCallPart
from llm_pool.providers.texts import repair_surrogates, text_or_empty

__all__ = ["ToolCallMerger", "as_list", "as_text", "tool_calls_of"]

_ARGUMENTS = ("arguments", "input")  # the names of the field: of a function, and of a "custom" tool
_OF_FUNCTION = ("name", *_ARGUMENTS)
_MARKS = re.compile(r'\\.?|["{}]', re.DOTALL)  # what ``_Braces`` reads: an escaped character is one mark
_NOT_KEPT = frozenset({"custom", "function", "id", "index"})


def tool_calls_of(message: dict[str, Any]) -> tuple[ToolCall, ...]:
    """Return the tool calls of a whole message, each once, or the one in the older field "function_call"."""
    if raw_calls := message.get("tool_calls"):
        raw_calls = as_list(raw_calls)
    elif function := message.get("function_call"):
        raw_calls = [{"function": function}]
    else:
        return ()
    calls: list[ToolCall] = []
    for raw in raw_calls:
        call = _tool_call_of(raw)
        if not (call.id and call in calls):
            calls.append(call)
    return tuple(calls)


def as_list(value: Any) -> list[Any]:
    """Return a list of objects from a field in which some servers send one object, or null."""
    if type(value) is list:
        return value
    return [value] if isinstance(value, dict) and value else list(value or ())


def _tool_call_of(raw: dict[str, Any]) -> ToolCall:
    part = (
        raw.get("function") or raw.get("custom") or {name: raw[name] for name in _OF_FUNCTION if name in raw}
    )
    if not (part or raw.get("id")):
        raise KeyError("function")
    arguments = _arguments_of(part)
    text = as_text(arguments) or ("" if raw.get("custom") else "{}")
    return ToolCall(_id_of(raw), text_or_empty(part.get("name")), repair_surrogates(text), raw)


def _arguments_of(part: dict[str, Any]) -> Any:
    return part.get("arguments", part.get("input"))


def as_text(arguments: Any) -> str:
    """Return arguments as text. The API defines them as a string of JSON; some servers send an object."""
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _id_of(raw: dict[str, Any]) -> str:
    identifier = raw.get("id")
    if isinstance(identifier, int):
        return str(identifier)
    return text_or_empty(identifier)


class ToolCallMerger:
    """The tool calls of one streamed message.

    - A part with an id that has come before belongs to that call, unless it has another name. A part with a
      new id begins a call, whatever its index says. But an id that arrives after the beginning of a call
      without one is its id; and a new id without a name, in the middle of a call's arguments, is that of a
      server that makes an id for each part.
    - A part without an id belongs to the call with its index, or without an index to the last call. But it
      begins a call if it has another name.
    - A part with a name begins a call, too, if the arguments of its call are complete and it has others.
    - A part that repeats a whole call adds nothing. Arguments "{}" are dropped if others follow.
    """

    __slots__ = ("_by_id", "_by_index", "_calls")

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._by_id: dict[str, _Call] = {}
        self._by_index: dict[int, _Call] = {}

    def add(self, raw: dict[str, Any]) -> ToolCallPart:
        """Add a part of a tool call. Return what it adds.

        Raises one of ``SHAPE_ERRORS`` if the part does not have the API's format.
        """
        kind = "custom" if raw.get("custom") else "function"
        part = raw.get(kind)
        if part is None:  # some servers leave out this level
            part = {name: raw[name] for name in _OF_FUNCTION if name in raw}
        identifier, name, index = _id_of(raw), text_or_empty(part.get("name")), raw.get("index")
        if index is not None:
            index = parse_index(index)
        call = self._find(identifier, index, name, _arguments_of(part))
        if call is None:
            if not (identifier or part or index is not None):
                raise KeyError(kind)
            call = _Call(len(self._calls), index)
            self._calls.append(call)
        if identifier:
            self._by_id[identifier] = call
        if index is not None:
            self._by_index[index] = call
        new_id, new_name = "" if call.id else identifier, "" if call.name else name
        if new_id:
            call.id, call.raw_id = new_id, raw["id"]
        call.name = call.name or name
        is_addressed = bool(identifier) or index is not None
        return ToolCallPart(call.number, new_id, new_name, call.add(raw, kind, part, is_addressed))

    def to_list(self) -> list[dict[str, Any]]:
        """Return the tool calls as they are in an answer without a stream."""
        indexes = [call.index for call in self._calls]
        calls = self._calls
        if None not in indexes and len(set(indexes)) == len(indexes):
            calls = sorted(calls, key=lambda call: call.index or 0)
        return [call.to_dict() for call in calls]

    def _find(self, identifier: str, index: int | None, name: str, arguments: Any) -> _Call | None:
        """Return the call of a part; None if the part begins a call. See the rules of this class."""
        if call := self._by_id.get(identifier):
            is_another = (call.name and name != call.name) or call.is_followed_by(arguments)
            return None if name and is_another else call
        last = self._calls[-1] if self._calls else None
        call = last if index is None else self._by_index.get(index)
        if identifier:
            return call if call is not None and call.is_continued_with_new_id(name) else None
        if call is None:  # the index is new: that of a new call, or the number of the part
            return None if name else last
        if not (name and call.name):
            return call
        is_another = name != call.name or call.is_followed_by(arguments)
        return None if is_another or (index is None and arguments and call.is_complete) else call


class _Call:
    """One tool call of a stream.

    ``number``  its position, in the order in which the calls begin
    ``index``   its first "index"; None if it has none
    ``id``      its id; "" until it arrives
    ``raw_id``  its id as it was sent, perhaps a number
    ``name``    the name of the tool; "" until it arrives
    """

    __slots__ = ("_argument", "_braces", "_fields", "_kind", "_pieces", "_size", "_whole",
                 "id", "index", "name", "number", "raw_id")  # fmt: skip

    def __init__(self, number: int, index: int | None) -> None:
        self.number = number
        self.index = index
        self.id = ""
        self.raw_id: Any = None
        self.name = ""
        self._kind = "function"
        self._argument = "arguments"  # the name of the field with the arguments
        self._fields = MergedObject()
        self._pieces: list[str] = []
        self._size = 0  # of all pieces, in characters
        self._braces = _Braces()
        self._whole: Any = None  # arguments that are not a string

    @property
    def is_complete(self) -> bool:
        """Whether the arguments so far are a whole JSON object."""
        if self._whole is not None:
            return True
        if not self._pieces or self._pieces[-1].rstrip()[-1:] != "}":
            return False
        return self._braces.are_balanced(self._pieces) and _is_object("".join(self._pieces))

    def has(self, arguments: Any) -> bool:
        """Return whether ``arguments`` are those of this call."""
        if not isinstance(arguments, str):
            return bool(self._whole == arguments)
        return len(arguments) == self._size and "".join(self._pieces) == arguments

    def is_continued_with_new_id(self, name: str) -> bool:
        """Return whether a part with an id that is new, and with ``name``, belongs to this call."""
        if not self.id:
            return not (name and self.name)
        return not (name or self.is_complete)

    def is_followed_by(self, arguments: Any) -> bool:
        """Return whether ``arguments``, of a part with a name, are those of another call."""
        if not arguments or self._pieces == ["{}"]:
            return False
        return self.is_complete and not self.has(arguments)

    def add(self, raw: dict[str, Any], kind: str, part: dict[str, Any], is_addressed: bool) -> str:
        """Add a part. Return the text that it adds to the arguments.

        ``kind``          the field of ``raw`` that ``part`` is: "function" or "custom"
        ``is_addressed``  whether the part has an id or an index
        """
        self._kind = kind
        rest = {name: value for name, value in part.items() if name not in _ARGUMENTS}
        fields = {name: value for name, value in raw.items() if name not in _NOT_KEPT}
        self._fields.add({**fields, kind: rest}, concatenate=False)
        for name in _ARGUMENTS:
            if (arguments := part.get(name)) is not None:
                self._argument = name
                return self._add_arguments(arguments, is_addressed)
        return ""

    def _add_arguments(self, arguments: Any, is_addressed: bool) -> str:
        if not isinstance(arguments, str):
            is_first = self._whole is None and not self._pieces
            self._whole = arguments
            return as_text(arguments) if is_first else ""
        if not arguments:
            self._pieces = self._pieces or [""]
            return ""
        begins = arguments[0] == "{"
        is_told_again = begins and is_addressed and self.is_complete and self._pieces != ["{}"]
        if is_told_again or (begins and self._pieces == ["{}"]):
            self._pieces.clear()
            self._size = 0
            self._braces = _Braces()
        self._pieces.append(arguments)
        self._size += len(arguments)
        return "" if is_told_again or self._pieces == ["{}"] else arguments

    def to_dict(self) -> dict[str, Any]:
        """Return the call as it is in an answer without a stream."""
        raw = {"type": self._kind, **self._fields.to_dict()}
        if self._whole is not None:
            raw[self._kind][self._argument] = self._whole
        elif self._pieces:
            raw[self._kind][self._argument] = repair_surrogates("".join(self._pieces))
        return {"id": self.raw_id, **raw} if self.id else raw


class _Braces:
    """Counts the braces of a JSON text that arrives in pieces, outside of its strings.

    Each piece is read once: to parse all pieces at each of them would take quadratic time.
    """

    __slots__ = ("_count", "_in_string", "_open", "_rest")

    def __init__(self) -> None:
        self._count = 0  # of the pieces that have been read
        self._open = 0
        self._in_string = False
        self._rest = ""  # a backslash at the end of the last piece

    def are_balanced(self, pieces: list[str]) -> bool:
        """Return whether each brace in ``pieces``, those of the last call and more, has its other half."""
        for piece in pieces[self._count :]:
            marks = _MARKS.findall(self._rest + piece)
            self._rest = marks.pop() if marks and marks[-1] == "\\" else ""
            for mark in marks:
                if mark == '"':
                    self._in_string = not self._in_string
                elif mark in "{}" and not self._in_string:
                    self._open += 1 if mark == "{" else -1
        self._count = len(pieces)
        return self._open == 0


def _is_object(text: str) -> bool:
    text = text.strip()
    if text[:1] != "{" or text[-1] != "}":
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
