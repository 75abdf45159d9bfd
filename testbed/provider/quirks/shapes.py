"""Where things are in the events and the JSON of the APIs, for quirks that change them in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testbed.provider.api import APIRequest, Event

__all__ = [
    "between",
    "choices_in",
    "each_tool_call",
    "encoded",
    "end_marker",
    "objects",
    "parts",
    "replace_type",
    "without_end_marker",
]

DONE = b"data: [DONE]\n\n"


def objects(events: list[Event]) -> list[dict[str, Any]]:
    """The events that are JSON objects."""
    return [event for event in events if isinstance(event, dict)]


def choices_in(events: list[Event]) -> Iterator[dict[str, Any]]:
    """Each choice of each chunk, or of a whole answer."""
    for event in objects(events):
        yield from event.get("choices") or ()


def parts(events: list[Event]) -> Iterator[dict[str, Any]]:
    """Each delta or message of the choices."""
    for choice in choices_in(events):
        part = choice.get("delta", choice.get("message"))
        if part is not None:
            yield part


def each_tool_call(events: list[Event]) -> Iterator[dict[str, Any]]:
    """Each tool call of a whole answer, and each part of one in a stream."""
    for part in parts(events):
        yield from part.get("tool_calls") or ()


def replace_type(events: list[Event], kind: str, *others: Event) -> list[Event]:
    """Replace each of Anthropic's events of this type by the others."""
    return [
        other
        for event in events
        for other in (others if isinstance(event, dict) and event.get("type") == kind else (event,))
    ]


def end_marker(event: Event) -> bool:
    """Whether the event is the end marker of a stream."""
    return event == DONE or (isinstance(event, dict) and event.get("type") == "message_stop")


def without_end_marker(events: list[Event]) -> list[Event]:
    """The events of a stream without its end marker."""
    return [event for event in events if not end_marker(event)]


def between(events: list[Event], *others: Event) -> list[Event]:
    """Put the others, in turn, between the events."""
    spread = [each for number, event in enumerate(events) for each in (event, others[number % len(others)])]
    return spread[:-1]


def encoded(events: list[Event], request: APIRequest) -> list[Event]:
    """Each event as the bytes that are sent for it; scripts stay as they are."""
    return [event if callable(event) else request.encode(event) for event in events]
