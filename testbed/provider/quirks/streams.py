"""Quirks of event streams as such: their frames, their heartbeats, their end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from testbed.behaviours import close, hold
from testbed.provider.quirks.registry import CHAT, MESSAGES, quirk
from testbed.provider.quirks.shapes import (
    DONE,
    between,
    encoded,
    end_marker,
    without_end_marker,
)
from testbed.provider.sending import beats

if TYPE_CHECKING:
    from testbed.provider.api import APIRequest, Event

HEARTBEAT_SECONDS = 0.05

# The end.


@quirk(stream=True)
def no_done(events: list[Event], request: APIRequest) -> list[Event]:
    """No ``[DONE]``, or no ``message_stop``, at the end (ikawrakow/ik_llama.cpp#467)."""
    return without_end_marker(events)


@quirk(stream=True)
def heartbeats_after_end(events: list[Event], request: APIRequest) -> list[Event]:
    """No end marker, and heartbeats on an open connection for ever (maximhq/bifrost#6784)."""
    return [*without_end_marker(events), beats(request.api.heartbeat, HEARTBEAT_SECONDS)]


@quirk(stream=True)
def silence_after_end(events: list[Event], request: APIRequest) -> list[Event]:
    """No end marker, and nothing more on an open connection (musistudio/claude-code-router#1271)."""
    return [*without_end_marker(events), hold]


@quirk(stream=True)
def heartbeats_after_done(events: list[Event], request: APIRequest) -> list[Event]:
    """Heartbeats for ever after the end marker (earendil-works/pi#1983)."""
    return [*events, beats(request.api.heartbeat, HEARTBEAT_SECONDS)]


@quirk(stream=True)
def dropped_after_end(events: list[Event], request: APIRequest) -> list[Event]:
    """No end marker, and the connection closes without HTTP's last chunk (openai/openai-python#2356)."""
    return [*without_end_marker(events), close]


@quirk(CHAT, stream=True)
def done_after_two_spaces(events: list[Event], request: APIRequest) -> list[Event]:
    """``data:  [DONE]`` (Nano-Collective/nanocoder#614)."""
    return [b"data:  [DONE]\n\n" if event == DONE else event for event in events]


@quirk(CHAT, stream=True)
def done_before_a_space(events: list[Event], request: APIRequest) -> list[Event]:
    """``data: [DONE]`` and a space (mistralai/mistral-vibe#793)."""
    return [b"data: [DONE] \n\n" if event == DONE else event for event in events]


@quirk(MESSAGES, stream=True)
def done_after_message_stop(events: list[Event], request: APIRequest) -> list[Event]:
    """``data: [DONE]`` after ``message_stop``, as OpenAI's streams have it (earendil-works/pi#1984)."""
    return [*events, DONE]


@quirk(MESSAGES, stream=True)
def done_for_message_stop(events: list[Event], request: APIRequest) -> list[Event]:
    """``data: [DONE]`` in place of ``message_stop``."""
    return [DONE if end_marker(event) else event for event in events]


@quirk(stream=True)
def no_last_blank_line(events: list[Event], request: APIRequest) -> list[Event]:
    """The last event lacks the blank line after it."""
    *rest, last = encoded(events, request)
    return [*rest, last.rstrip(b"\n") if isinstance(last, bytes) else last]


# Between the events.


@quirk(stream=True)
def comments(events: list[Event], request: APIRequest) -> list[Event]:
    """Comments before and between the events (OpenRouter's ``: OPENROUTER PROCESSING``, DeepSeek's)."""
    return [b": PROCESSING\n\n", *between(events, b": keep-alive\n\n")]


@quirk(stream=True)
def empty_data_frames(events: list[Event], request: APIRequest) -> list[Event]:
    """``data:`` with nothing or a space after it, to keep the stream alive (omnigent-ai/omnigent#1474)."""
    return between(events, b"data:\n\n", b"data: \n\n")


@quirk(stream=True)
def events_without_data(events: list[Event], request: APIRequest) -> list[Event]:
    """Blocks of only ``retry:``, ``id:`` or ``event:`` (openai/openai-python#2722 and #3833)."""
    return between(events, b"retry: 3000\n\n", b"id: 7\n\n", b"event: ping\n\n")


@quirk(stream=True)
def json_keepalives(events: list[Event], request: APIRequest) -> list[Event]:
    """Heartbeats that are JSON of a type of their own (Prism-Shadow/agenthub#174)."""
    return between(events, b'data: {"type": "keepalive", "sequence_number": 1}\n\n')


@quirk(MESSAGES, stream=True)
def empty_pings(events: list[Event], request: APIRequest) -> list[Event]:
    """Pings whose data are ``{}`` or nothing."""
    return between(events, b"event: ping\ndata: {}\n\n", b"event: ping\ndata: \n\n")


@quirk(MESSAGES, stream=True)
def keepalive_events(events: list[Event], request: APIRequest) -> list[Event]:
    """``event: keepalive``, with and without data (diegosouzapw/OmniRoute#1146)."""
    return between(events, b"event: keepalive\ndata: {}\n\n", b"event: keepalive\n\n")


# The frames themselves.


@quirk(MESSAGES, stream=True)
def no_event_lines(events: list[Event], request: APIRequest) -> list[Event]:
    """A relay leaves out the ``event:`` lines (earendil-works/pi#1983)."""
    return [
        frame[frame.index(b"data:") :] if isinstance(frame, bytes) and b"data:" in frame else frame
        for frame in encoded(events, request)
    ]


@quirk(MESSAGES, stream=True)
def comments_inside_events(events: list[Event], request: APIRequest) -> list[Event]:
    """A comment and a blank line between ``event:`` and ``data:`` (router-for-me/CLIProxyAPI#4047)."""
    return _replaced(events, request, b"\ndata:", b"\n: keep-alive\n\ndata:")


@quirk(stream=True)
def data_twice(events: list[Event], request: APIRequest) -> list[Event]:
    """``data: data: {...}``: framed once more by a server in between (sysid/sse-starlette#106)."""
    return _replaced(events, request, b"data: ", b"data: data: ")


@quirk(stream=True)
def no_space_after_data(events: list[Event], request: APIRequest) -> list[Event]:
    """``data:{...}``: the space is optional in HTML's standard of event streams."""
    return _replaced(events, request, b"data: ", b"data:")


@quirk(stream=True)
def carriage_returns(events: list[Event], request: APIRequest) -> list[Event]:
    """Lines end with CR LF, which HTML's standard of event streams allows."""
    return _replaced(events, request, b"\n", b"\r\n", count=-1)


@quirk(stream=True)
def byte_order_mark(events: list[Event], request: APIRequest) -> list[Event]:
    """The stream begins with U+FEFF, which HTML's standard of event streams allows."""
    return ["\ufeff".encode(), *events]


@quirk(stream=True)
def split_at_every_byte(events: list[Event], request: APIRequest) -> list[Event]:
    """Each byte comes in a chunk of its own, so that characters are cut (paiml/aprender#2015)."""
    return [
        each
        for event in encoded(events, request)
        for each in ([bytes([byte]) for byte in event] if isinstance(event, bytes) else [event])
    ]


@quirk(stream=True)
def broken_utf_8(events: list[Event], request: APIRequest) -> list[Event]:
    """The text of the first piece is followed by the first half of a character."""
    for number, event in enumerate(events):
        if isinstance(event, dict) and (texts := _texts(event)):
            for holder, name in texts:
                holder[name] += "\ufffe"
            events[number] = request.encode(event).replace("\ufffe".encode(), b"\xf0\x9f")
            break
    return events


def _replaced(
    events: list[Event], request: APIRequest, old: bytes, new: bytes, count: int = 1
) -> list[Event]:
    return [
        event.replace(old, new, count) if isinstance(event, bytes) else event
        for event in encoded(events, request)
    ]


def _texts(event: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """Where the texts of a piece are: (holder, key)."""
    if event.get("type") == "response.output_text.delta":
        return [(event, "delta")]
    deltas = [choice.get("delta") or {} for choice in event.get("choices") or ()] or [event.get("delta", {})]
    return [
        (delta, name)
        for delta in deltas
        for name in ("content", "text")
        if isinstance(delta, dict) and delta.get(name)
    ]
