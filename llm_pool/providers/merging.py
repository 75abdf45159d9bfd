"""Merges the deltas of a stream into one object, in time linear in their size.

All fields, known or not, are merged by the same rules:

- A string is added to the previous string. In the fields of ``_NEVER_SPLIT`` the new string replaces the
  previous one, unless the new string is empty.
- A list is added to the previous list. But an item with an "index" is merged into the earlier item with the
  same "index".
- An object is merged into the previous object, field by field.
- Any other value, or a value of another type than the previous one, replaces the previous value. But null
  replaces nothing: it is kept only in a new field.
- If a field gets both strings and lists, the strings become items of the list.
"""

from __future__ import annotations

from typing import Any

from llm_pool.providers.results import repair_surrogates

__all__ = ["MergedObject"]

_NEVER_SPLIT = frozenset(
    {"format", "id", "model", "name", "object", "reason", "role", "signature", "status", "type"}
)
"""Fields whose strings are never split: these names, and names with one of them as the last word ("call_id").

Some servers repeat such a string in each delta.
"""


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
                previous.add(value, concatenate)
            elif value is not None or name not in self:
                self[name] = value

    def to_dict(self) -> dict[str, Any]:
        """Return the merged object as plain JSON values."""
        return {name: _plain(value) for name, value in self.items()}


class _MergedText(list[str]):
    """The pieces of a string. They are joined once, at the end, because that takes linear time."""

    __slots__ = ()


class _MergedList(list[Any]):
    """A JSON list that is merged from its parts."""

    __slots__ = ("_by_index",)

    def __init__(self) -> None:
        super().__init__()
        self._by_index: dict[int, MergedObject] = {}

    def add(self, items: list[Any], concatenate: bool) -> None:
        """Merge each item with an "index" into the earlier item with the same index. Append the others.

        ``concatenate``: see ``MergedObject.add``.
        """
        for item in items:
            index = item.get("index") if type(item) is dict else None
            if type(index) is not int:
                self.append(item)
                continue
            if index not in self._by_index:
                self._by_index[index] = MergedObject()
                self.append(self._by_index[index])
            self._by_index[index].add(item, concatenate=concatenate)


def _plain(value: Any) -> Any:
    if type(value) is _MergedText:
        return repair_surrogates("".join(value))
    if type(value) is _MergedList:
        return [_plain(item) for item in value]
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
        previous.append(_text_part(text))
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
