"""The table of quirks: dialects of real providers and gateways, by name."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING

from testbed.provider.api import Event

if TYPE_CHECKING:
    from testbed.provider.api import APIRequest

__all__ = ["CHAT", "MESSAGES", "QUIRKS", "RESPONSES", "Quirk", "apply", "as_answered", "quirk", "quirks_of"]

CHAT, MESSAGES, RESPONSES = "chat completions", "messages", "responses"  # the names of APIs

Change = Callable[[list[Event], "APIRequest"], list[Event]]


@dataclass(frozen=True)
class Quirk:
    """One way in which a real provider or gateway differs from the API's documentation.

    ``name``           its name, such as "no-done"
    ``about``          what it does, and the server, report or standard that it comes from, if there is one
    ``change``         returns the response's events as the quirk has them; it may change those that it gets
    ``api``            the name of the API that has it; "" for every API
    ``stream``         whether only streams have it, or only JSON; None for both
    ``turns``          whether it sends JSON where a stream was asked for, and the reverse
    ``include_usage``  whether it gets the chunk of the usage even if the request does not ask for it
    """

    name: str
    about: str
    change: Change
    api: str = ""
    stream: bool | None = None
    turns: bool = False
    include_usage: bool = False


QUIRKS: dict[str, Quirk] = {}
"""Every quirk, by name."""


def quirk(api: str = "", **traits: bool) -> Callable[[Change], Change]:
    """Add the function to ``QUIRKS``, under its name with hyphens and with its docstring."""

    def add(change: Change) -> Change:
        name = change.__name__.replace("_", "-")
        QUIRKS[name] = Quirk(name, inspect.getdoc(change) or "", change, api, **traits)
        return change

    return add


def quirks_of(names: str | Iterable[str]) -> tuple[Quirk, ...]:
    """The quirks of a name, or of several in the order in which they apply. Raises ValueError if unknown."""
    return tuple(_quirk_of(name) for name in ([names] if isinstance(names, str) else names))


def as_answered(quirks: Iterable[Quirk], request: APIRequest) -> APIRequest:
    """The request as it is answered: a quirk can send a stream where JSON was asked, and the reverse.

    Raises ValueError if a quirk belongs to another API than the request, or to streams where JSON was asked.
    """
    for each in quirks:
        if each.api not in ("", request.api.name):
            kind = f"{each.api}, and the request was one of {request.api.name}"
            raise ValueError(f"The quirk {each.name!r} is one of {kind}.")
        if each.stream not in (None, request.stream):
            kind = "streams, and the answer is JSON" if each.stream else "JSON, and the answer is a stream"
            raise ValueError(f"The quirk {each.name!r} is one of {kind}.")
        if each.turns:
            request = replace(request, stream=not request.stream)
        if each.include_usage:
            options = {"stream_options": {"include_usage": True}}
            request = replace(request, body={**request.body, **options})
    return request


def apply(quirks: Iterable[Quirk], events: list[Event], request: APIRequest) -> list[Event]:
    """Return the events as the quirks have them.

    Raises ValueError if a quirk changes nothing, since a test with such a quirk would test something else.
    """
    for each in quirks:
        before, events = events, each.change(copy.deepcopy(events), request)
        if events == before and not each.turns:
            raise ValueError(f"The quirk {each.name!r} changes nothing in this answer: {each.about}")
    return events


def _quirk_of(name: str) -> Quirk:
    if name not in QUIRKS:
        near = get_close_matches(name, QUIRKS, 1)
        advice = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(sorted(QUIRKS))}."
        raise ValueError(f"Unknown quirk {name!r}: {advice}")
    return QUIRKS[name]
