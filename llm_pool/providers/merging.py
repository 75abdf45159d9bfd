"""Merges the deltas of a stream into one object, in time linear in their size.

The result is what the same answer would have been without a stream. The fields of a delta have no description
that says how they are merged, so these rules decide, for fields known or not:

- A string is added to the previous string. In the fields of ``_NEVER_SPLIT`` the new string replaces the
  previous one, unless the new string is empty. So does a string of another field that all deltas repeat.
- An object is merged into the previous object, field by field.
- A list is added to the previous list. But an item with an "index" is merged into the item with the same
  "index" of an earlier delta; and in the fields of ``_IN_PIECES`` the first item of a list continues the last
  item of the previous list if both have the same "type", one of ``_CONTINUED``.
- In the fields of ``_TOLD_WHOLE``, an item with an "index" replaces the earlier item, and a list that begins
  with the previous list replaces it.
- Any other value, or a value of another type than the previous one, replaces the previous value. But null
  replaces nothing: it is kept only in a new field.
- If a field gets both strings and lists, the strings become items of the list.
"""

from __future__ import annotations

import re
from typing import Any

from llm_pool.providers.texts import repair_surrogates

__all__ = ["MergedObject"]

_NEVER_SPLIT = frozenset(
    {
        "channel",
        "format",
        "id",
        "model",
        "name",
        "object",
        "reason",
        "role",
        "signature",
        "status",
        "type",
    }
)
"""Fields whose strings are never split: these names, and names with one of them as the last word ("call_id").

Some servers repeat such a string in each delta.
"""
_SPLIT = frozenset(
    {
        "arguments",
        "content",
        "data",
        "input",
        "partial_json",
        "reasoning",
        "reasoning_content",
        "reasoning_text",
        "refusal",
        "summary",
        "text",
        "thinking",
        "transcript",
    }
)
"""Fields whose strings are always pieces of a text, even if all pieces are equal."""
_LABEL = re.compile(r"(?=.*[A-Za-z])[\w.:/+=-]{3,}")

_IN_PIECES = frozenset(
    {"content", "reasoning", "reasoning_details", "summary", "thinking", "thinking_blocks"}
)
_CONTINUED = frozenset(
    {"output_text", "reasoning", "reasoning.summary", "reasoning.text", "summary_text", "text", "thinking"}
)
_TOLD_WHOLE = frozenset({"annotations", "citations", "executed_tools", "images", "search_results"})


class MergedObject(dict[str, Any]):
    """A JSON object that is merged from its deltas. Read it with ``to_dict``: its own values are not JSON."""

    __slots__ = ()

    def add(self, delta: dict[str, Any], *, concatenate: bool = True) -> None:
        """Merge ``delta`` into this object, by the rules at the top of this module. ``delta`` is not changed.

        With ``concatenate=False`` a string is never added to the previous string: the new string replaces the
        previous one, unless the new string is empty. Raises ``AttributeError`` if ``delta`` is not a dict.
        """
        for name, value in delta.items():
            previous = self.get(name)
            if type(value) is str:
                if type(previous) is _MergedText:
                    previous.append(value)
                else:
                    self[name] = _with_text(name, previous, value, concatenate)
            elif type(value) is dict:
                if type(previous) is not MergedObject:
                    previous = self[name] = MergedObject()
                previous.add(value, concatenate=concatenate)
            elif type(value) is list:
                self[name] = previous = _as_list(previous)
                previous.add(name, value, concatenate)
            elif value is not None or name not in self:
                self[name] = value

    def repeated(self, name: str, text: str) -> int:
        """Return how many characters at the beginning of ``text`` are the text so far of the field ``name``.

        Returns 0 if ``text`` does not begin with that text.
        """
        pieces, size = self.get(name), 0
        for piece in pieces if type(pieces) is _MergedText else ():
            if not text.startswith(piece, size):
                return 0
            size += len(piece)
        return size

    def to_dict(self) -> dict[str, Any]:
        """Return the merged object as plain JSON values."""
        return {name: _plain(name, value) for name, value in self.items()}


class _MergedText(list[str]):
    """The pieces of a string. They are joined once, at the end, because that takes linear time."""

    __slots__ = ()

    def join(self, name: str) -> str:
        """Return the text, or the string that each delta has repeated. ``name`` is the field's."""
        first = self[0]
        if (
            len(self) > 1
            and name not in _SPLIT
            and self.count(first) == len(self)
            and _LABEL.fullmatch(first)
        ):
            return first
        return repair_surrogates("".join(self))


class _MergedList(list[Any]):
    """A JSON list that is merged from its parts."""

    __slots__ = ("_by_index",)

    def __init__(self) -> None:
        super().__init__()
        self._by_index: dict[int, MergedObject] = {}

    def add(self, name: str, items: list[Any], concatenate: bool) -> None:
        """Merge ``items`` into this list, by the rules at the top of this module.

        ``name`` is the field's. ``concatenate``: see ``MergedObject.add``.
        """
        told_whole = name in _TOLD_WHOLE
        if told_whole and self and items[: len(self)] == [_plain(name, item) for item in self]:
            self.clear()
            self._by_index.clear()
        continues = name in _IN_PIECES
        indexes: set[int] = set()
        for position, item in enumerate(items):
            if type(item) is not dict:
                self.append(item)
            elif type(index := item.get("index")) is int:
                merged = None if index in indexes else self._by_index.get(index)
                indexes.add(index)
                self._add_at(index, item, merged, concatenate, replace=told_whole)
            elif continues and not position and self._continues(item):
                self._last().add(item, concatenate=concatenate)
            else:
                self.append(item)

    def _add_at(
        self,
        index: int,
        item: dict[str, Any],
        merged: MergedObject | None,
        concatenate: bool,
        *,
        replace: bool,
    ) -> None:
        if merged is None:
            merged = self._by_index[index] = MergedObject()
            self.append(merged)
        elif replace:
            merged.clear()
        merged.add(item, concatenate=concatenate)

    def _continues(self, item: dict[str, Any]) -> bool:
        """Return whether ``item``, which has no index, continues the last item of this list."""
        last, kind = self[-1] if self else None, item.get("type")
        return (
            isinstance(last, dict) and "index" not in last and kind in _CONTINUED and last.get("type") == kind
        )

    def _last(self) -> MergedObject:
        last = self[-1]
        if type(last) is not MergedObject:
            merged = self[-1] = MergedObject()
            merged.add(last)
            return merged
        return last


def _plain(name: str, value: Any) -> Any:
    if type(value) is _MergedText:
        return value.join(name)
    if type(value) is _MergedList:
        return [_plain(name, item) for item in value]
    return value.to_dict() if type(value) is MergedObject else value


def _with_text(name: str, previous: Any, text: str, concatenate: bool) -> Any:
    """Return the value of the field ``name`` after ``text`` is merged into its value ``previous``.

    ``previous`` is not a ``_MergedText``. If it is a ``_MergedList``, ``text`` can be appended to that list.
    """
    if not concatenate or name.rpartition("_")[2] in _NEVER_SPLIT:
        return text or previous or ""
    if type(previous) is not _MergedList:
        return _MergedText([text])
    if text:
        previous.add(name, [_text_part(text)], concatenate)
    return previous


def _as_list(previous: Any) -> _MergedList:
    if type(previous) is _MergedList:
        return previous
    items = _MergedList()
    if type(previous) is _MergedText and any(previous):
        items.append(_text_part("".join(previous)))
    return items


def _text_part(text: str) -> dict[str, str]:
    """Return ``text`` as a part of a message's content, for a stream that sends both strings and parts."""
    return {"type": "text", "text": text}
