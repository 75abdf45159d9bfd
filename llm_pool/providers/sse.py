"""The event-stream format (WHATWG HTML, section 9.2.6), fed with bytes as they come. No I/O.

Lines are split in bytes: CR and LF are never part of a longer UTF-8 sequence, and U+2028 ends no line here.
"""

from __future__ import annotations

from typing import NamedTuple

from llm_pool.exceptions import EventTooLarge

__all__ = ["MAX_EVENT_SIZE", "Event", "EventParser"]

MAX_EVENT_SIZE = 32 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event. ``id`` is the stream's last event id, ``retry`` its last reconnection time in ms."""

    data: str
    event: str = "message"
    id: str = ""
    retry: int | None = None


class EventParser:
    """Turns the bytes of one stream into events, in time linear in their number.

    ``max_event_size`` bounds, in bytes, what is kept of an event that has not ended.
    """

    __slots__ = (
        "_begun",
        "_data",
        "_event",
        "_id",
        "_limit",
        "_parts",
        "_resting",
        "_retry",
        "_size",
        "_skip_lf",
    )

    def __init__(self, max_event_size: int = MAX_EVENT_SIZE) -> None:
        self._limit = max_event_size
        self._parts: list[bytes] = []  # the line that has not ended yet
        self._size = 0  # bytes kept in _parts and _data
        self._data: list[bytes] = []
        self._event = ""
        self._id = ""
        self._retry: int | None = None
        self._skip_lf = False  # the last byte was CR: an LF that follows belongs to it
        self._begun = False  # the byte order mark, or its absence, has been seen
        self._resting = False  # between two events, with nothing kept

    @property
    def pending(self) -> bool:
        """Whether an event has begun that no blank line has ended."""
        return bool(self._parts or self._data)

    def feed(self, data: bytes) -> list[Event]:
        """The events that ``data`` completes. Raises ``EventTooLarge``."""
        if self._resting and data[-2:] == b"\n\n" and b"\r" not in data and len(data) <= self._limit:
            return self._whole_events(data)
        if not self._begun:
            data = self._without_bom(data)
        if self._skip_lf and data:
            self._skip_lf = False
            if data[0] == 0x0A:
                data = data[1:]
        if not data:
            return []
        return self._lines(data)

    def end(self, *, lenient: bool = False) -> list[Event]:
        """The stream is over. What has not ended is dropped, as the standard says.

        ``lenient`` takes it for a last event instead: there are servers that leave out the last blank line.
        """
        events: list[Event] = []
        if lenient:
            self._line(b"".join(self._parts), events)
            self._line(b"", events)
        self._parts, self._data, self._event, self._size = [], [], "", 0
        return events

    def _whole_events(self, data: bytes) -> list[Event]:
        """The common case: every event in ``data`` begins and ends in it, with LF for line ends."""
        events: list[Event] = []
        for block in data[:-2].split(b"\n\n"):
            if block[:6] == b"data: " and b"\n" not in block:
                events.append(Event(block[6:].decode("utf-8", "replace"), "message", self._id, self._retry))
            else:
                for line in block.split(b"\n"):
                    self._line(line, events)
                self._line(b"", events)
        return events

    def _without_bom(self, data: bytes) -> bytes:
        """The stream's beginning and ``data``, less the byte order mark; b"" until that is known."""
        data = b"".join([*self._parts, data])
        self._parts.clear()
        if len(data) < 3 and _BOM.startswith(data):
            self._parts.append(data)
            return b""
        self._begun = True
        return data.removeprefix(_BOM)

    def _lines(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        lines = data.splitlines()  # for bytes: at LF, CR and CRLF, and nowhere else
        rest = b"" if data[-1] in b"\r\n" else lines.pop()
        self._skip_lf = data[-1] == 0x0D
        if lines and self._parts:
            self._parts.append(lines[0])
            self._size += len(lines[0])
            lines[0] = b"".join(self._parts)
            self._size -= len(lines[0])
            self._parts.clear()
        for line in lines:
            self._line(line, events)
        if rest:
            self._parts.append(rest)
            self._size += len(rest)
            self._check_size()
        self._resting = not (self._parts or self._data or self._event or self._skip_lf)
        return events

    def _line(self, line: bytes, events: list[Event]) -> None:
        if not line:
            self._dispatch(events)
            return
        name, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if name == b"data":
            self._data.append(value)
            self._size += len(value) + 1  # what a line costs at least, however little it says
            self._check_size()
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"id":
            if b"\0" not in value:
                self._id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit():
            # Longer than any sane number: int() of a long string of digits is slow, and then refused.
            self._retry = int(value[:18])

    def _dispatch(self, events: list[Event]) -> None:
        if self._data:
            data = b"\n".join(self._data).decode("utf-8", "replace")
            events.append(Event(data, self._event or "message", self._id, self._retry))
            self._data = []
            self._size = 0
        self._event = ""

    def _check_size(self) -> None:
        if self._size > self._limit:
            self._parts, self._data, self._size = [], [], 0
            raise EventTooLarge(
                f"An event of the stream is larger than {self._limit} bytes; the rest was not read."
            )
