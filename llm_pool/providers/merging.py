"""Deltas put together by one rule for all their fields, the unknown ones too, in time linear in their size.

Strings and lists grow; objects are put together field by field, and so are the items of a list that have
an index. Any other value replaces the one before. null says nothing.
"""

from __future__ import annotations

from typing import Any

from llm_pool.providers.errors import mend

__all__ = ["Merged"]

_SINGLE = frozenset(
    {"format", "id", "model", "name", "object", "reason", "role", "signature", "status", "type"}
)
"""The names, or their last words, of strings that come whole: a server that repeats one adds nothing."""


class Merged(dict[str, Any]):
    """An object that is put together from its deltas. What it holds meanwhile is for ``whole`` to read."""

    __slots__ = ()

    def add(self, delta: dict[str, Any], *, growing: bool = True) -> None:
        """Add ``delta``, which is left as it is. Without ``growing`` a string replaces the one before.

        Raises ``AttributeError`` where ``delta`` is no dict.
        """
        for name, value in delta.items():
            known = self.get(name)
            if type(value) is str:
                if type(known) is _Text:
                    known.append(value)
                else:
                    self[name] = _with_text(name, known, value, growing)
            elif type(value) is dict:
                if type(known) is not Merged:
                    known = self[name] = Merged()
                known.add(value, growing=growing)
            elif type(value) is list:
                self[name] = known = _items_from(known)
                known.add(value, growing)
            elif value is not None or name not in self:
                self[name] = value

    def whole(self) -> dict[str, Any]:
        """What has come so far, as plain JSON."""
        return {name: _whole(value) for name, value in self.items()}


class _Text(list[str]):
    """A string that grows: copied for each of its pieces it would cost the square of their number."""

    __slots__ = ()


class _Items(list[Any]):
    """A list that grows. Items with an index are found by it."""

    __slots__ = ("_by_index",)

    def __init__(self) -> None:
        super().__init__()
        self._by_index: dict[int, Merged] = {}

    def add(self, parts: list[Any], growing: bool) -> None:
        for part in parts:
            index = part.get("index") if type(part) is dict else None
            if type(index) is not int:
                self.append(part)
                continue
            if index not in self._by_index:
                self._by_index[index] = Merged()
                self.append(self._by_index[index])
            self._by_index[index].add(part, growing=growing)


def _whole(value: Any) -> Any:
    if type(value) is _Text:
        return mend("".join(value))
    if type(value) is _Items:
        return [_whole(item) for item in value]
    return value.whole() if type(value) is Merged else value


def _with_text(name: str, known: Any, text: str, growing: bool) -> Any:
    if not growing or name.rpartition("_")[2] in _SINGLE:
        return text or known or ""
    if type(known) is not _Items:
        return _Text([text])
    if text:
        known.append(_part(text))
    return known


def _items_from(known: Any) -> _Items:
    if type(known) is _Items:
        return known
    items = _Items()
    if type(known) is _Text and any(known):
        items.append(_part("".join(known)))
    return items


def _part(text: str) -> dict[str, str]:
    """Content that comes now as a string and now as a list of parts is a list of parts."""
    return {"type": "text", "text": text}
