"""A parser of event streams (WHATWG HTML, section 9.2.6) that takes bytes as they arrive. No I/O.

The parser splits bytes into lines before it decodes them. In UTF-8 the bytes CR and LF are never part of
another character. ``str.splitlines`` would also split at U+2028, which ends no line of an event stream.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from llm_pool.exceptions import EventTooLarge

__all__ = ["MAX_EVENT_SIZE", "UNFRAMED", "Event", "EventParser", "looks_like_events"]

MAX_EVENT_SIZE = 32 * 1024 * 1024  # bytes
UNFRAMED = "\n"
"""The type, which no server can send, of an event whose data is JSON that was not framed as "data:"."""
_BOM = b"\xef\xbb\xbf"
_CR, _LF = 0x0D, 0x0A  # as numbers: to look for bytes in bytes costs several times as much
_BEGINNINGS = (b":", b"data:", b"event:", b"id:", b"retry:", b"error:")


def looks_like_events(body: bytes) -> bool:
    """Return whether ``body``, or its beginning, is an event stream."""
    return body.removeprefix(_BOM).lstrip().startswith(_BEGINNINGS)


class Event(NamedTuple):
    """One event of a stream.

    ``data``   the event's data, its lines joined by LF
    ``event``  the event's type
    ``id``     the last event id that the stream has set; "" if it has set no id
    ``retry``  the last reconnection time that the stream has set, in milliseconds; None if it has set no time
    """

    data: str
    event: str = "message"
    id: str = ""
    retry: int | None = None


_new_event = partial(tuple.__new__, Event)  # in half the time of ``Event(...)``


class EventParser:
    """Parses the bytes of one stream into events, in time linear in the number of bytes.

    Two things that the standard ignores become events, because servers report errors so: a field "error"
    becomes an event of that type, and lines from one that begins with "{" or "[" to the next blank line or
    "data:" become an event of the type ``UNFRAMED``.

    ``max_event_size`` is the largest size of an event, in bytes.
    """

    __slots__ = (
        "_between_events",
        "_bom_checked",
        "_data",
        "_event",
        "_id",
        "_limit",
        "_line",
        "_retry",
        "_size",
        "_skip_lf",
    )

    def __init__(self, max_event_size: int = MAX_EVENT_SIZE) -> None:
        self._limit = max_event_size
        self._line = bytearray()  # the beginning of the line that has not ended
        self._size = 0  # bytes in _line and _data
        self._data: list[bytes] = []
        self._event = ""
        self._id = ""
        self._retry: int | None = None
        self._skip_lf = False  # the last byte was CR: if an LF follows, the two are one line end
        self._bom_checked = False
        self._between_events = False  # an event has ended, and no part of the next has arrived

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that ``data`` completes.

        Raises ``EventTooLarge`` if an event exceeds ``max_event_size``.
        """
        if self._between_events and data[-2:] == b"\n\n" and _CR not in data and len(data) <= self._limit:
            return self._parse_complete_events(data)
        if not self._bom_checked:
            data = self._without_bom(data)
        if self._skip_lf and data:
            self._skip_lf = False
            if data[0] == 0x0A:
                data = data[1:]
        if not data:
            return []
        return self._parse_lines(data)

    def end(self, *, lenient: bool = False) -> list[Event]:
        """End the stream. Return [], and drop an event that no blank line follows, as the standard requires.

        With ``lenient``, return a list with that event instead: some servers leave out the last blank line.
        Raises ``EventTooLarge`` as ``feed`` does.
        """
        events: list[Event] = []
        if lenient:
            self._parse_line(bytes(self._line), events)
            self._parse_line(b"", events)
        self._line, self._data, self._event, self._size = bytearray(), [], "", 0
        return events

    def _parse_complete_events(self, data: bytes) -> list[Event]:
        """Parse ``data`` that contains complete events only, with LF as line end. This is the common case."""
        events: list[Event] = []
        for block in data[:-2].split(b"\n\n"):
            name, line = b"", block
            if block[:7] == b"event: ":
                name, _, line = block[7:].partition(b"\n")
            if line[:6] == b"data: " and _LF not in line:
                kind = name.decode("utf-8", "replace") if name else "message"
                events.append(_new_event((line[6:].decode("utf-8", "replace"), kind, self._id, self._retry)))
            else:
                for line in block.split(b"\n"):
                    self._parse_line(line, events)
                self._parse_line(b"", events)
        return events

    def _without_bom(self, data: bytes) -> bytes:
        """Return the start of the stream, ``data`` included, without the byte order mark.

        Returns b"" as long as the start of the stream can be an incomplete mark.
        """
        data = bytes(self._line) + data
        self._line.clear()
        if len(data) < 3 and _BOM.startswith(data):
            self._line += data
            return b""
        self._bom_checked = True
        return data.removeprefix(_BOM)

    def _parse_lines(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        lines = data.splitlines()  # ``bytes.splitlines`` splits at LF, CR and CRLF only
        rest = b"" if data[-1] in b"\r\n" else lines.pop()
        self._skip_lf = data[-1] == 0x0D
        if lines and self._line:
            self._size -= len(self._line)
            lines[0] = bytes(self._line) + lines[0]
            self._line.clear()
        for line in lines:
            self._parse_line(line, events)
        if rest:
            self._line += rest
            self._size += len(rest)
            self._check_size()
        self._between_events = not (self._line or self._data or self._event or self._skip_lf)
        return events

    def _parse_line(self, line: bytes, events: list[Event]) -> None:
        if not line:
            self._dispatch(events)
            return
        if line[0] in b"{[" or (self._event == UNFRAMED and line[:5] != b"data:"):
            self._add_unframed(line)
            return
        name, _, value = line.partition(b":")
        self._add_field(name, value[1:] if value[:1] == b" " else value, events)

    def _add_field(self, name: bytes, value: bytes, events: list[Event]) -> None:
        if name == b"data":
            if self._event == UNFRAMED:
                self._dispatch(events)
            self._add_data(value)
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"error":
            self._event = "error"
            self._add_data(value)
        elif name == b"id":
            if b"\0" not in value:
                self._id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit():
            # int() of a long string of digits is slow, and of more than 4300 digits it raises ValueError.
            self._retry = int(value[:18])

    def _add_data(self, value: bytes) -> None:
        self._data.append(value)
        self._size += len(value) + 1  # 1, because an empty line takes memory too
        self._check_size()

    def _add_unframed(self, line: bytes) -> None:
        if not self._data:  # otherwise the line is a mistake inside an event
            self._event = UNFRAMED
        if self._event == UNFRAMED:
            self._add_data(line)

    def _dispatch(self, events: list[Event]) -> None:
        if self._data:
            data = b"\n".join(self._data).decode("utf-8", "replace")
            events.append(Event(data, self._event or "message", self._id, self._retry))
            self._data = []
            self._size = 0
        self._event = ""

    def _check_size(self) -> None:
        if self._size > self._limit:
            self._line, self._data, self._size = bytearray(), [], 0
            raise EventTooLarge(
                f"An event of the stream is larger than {self._limit} bytes; the rest was not read."
            )
