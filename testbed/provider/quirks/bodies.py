"""Quirks of whole bodies: JSON and streams mistaken for each other, and what surrounds the JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from testbed.provider.quirks.registry import MESSAGES, quirk
from testbed.provider.quirks.shapes import DONE

if TYPE_CHECKING:
    from testbed.provider.api import APIRequest, Event


@quirk(stream=True, turns=True)
def json_for_stream(events: list[Event], request: APIRequest) -> list[Event]:
    """One JSON answer where a stream was asked for (lidge-jun/opencodex#3770)."""
    return events


@quirk(stream=False, turns=True)
def stream_for_json(events: list[Event], request: APIRequest) -> list[Event]:
    """A stream where JSON was asked for (unslothai/unsloth#6570)."""
    return events


@quirk(stream=False, turns=True)
def error_as_events(events: list[Event], request: APIRequest) -> list[Event]:
    """The error of a 4xx or 5xx is framed as an event stream (amd/gaia#3501)."""
    return events if request.api.name == MESSAGES else [*events, DONE]


@quirk(stream=False)
def blank_lines_first(events: list[Event], request: APIRequest) -> list[Event]:
    """Blank lines before the JSON, while the model is busy (DeepSeek's page on rate limits)."""
    return [b"\n", b"\n\n", b"\r\n  \n", *events]


@quirk(stream=False)
def json_then_done(events: list[Event], request: APIRequest) -> list[Event]:
    """``data: [DONE]`` after whole JSON (decolua/9router#3492)."""
    return [*events, b"\n\n" + DONE]
