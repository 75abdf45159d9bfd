"""Make the format that the arguments of ``event_stream`` describe."""

from __future__ import annotations

from collections.abc import Callable, Collection

from django.template.loader import get_template

from llm_pool.exceptions import with_article
from llm_pool.http.ai_sdk import UIMessageEvents
from llm_pool.http.events import Format, HTMLEvents, JSONEvents
from llm_pool.providers.results import Chunk

__all__ = ["Render", "make_format"]

Render = Callable[[Chunk], str] | str
"""A function that returns HTML for a chunk, or the name of a template."""

INCLUDE = {
    "events": ("reasoning", "tool_calls", "message"),
    "HTML": ("reasoning", "tool_calls"),
    "ai-sdk": ("reasoning", "tool_calls"),
}
"""What can be included in each kind of events."""


def make_format(name: str, include: Collection[str] | None, render: Render | None) -> Format:
    """Return a new object of the format. ``event_stream`` describes the arguments, and what is raised."""
    if name not in ("events", "ai-sdk"):
        raise ValueError(f'format must be "events" or "ai-sdk", not {name!r}')
    if name == "ai-sdk":
        if render is not None:
            raise ValueError('render makes HTML, which format="ai-sdk" cannot send: leave out one of them')
        return UIMessageEvents(_checked(INCLUDE[name] if include is None else include, name))
    if render is None:
        return JSONEvents(_checked(include or (), name))
    return HTMLEvents(_renderer(render), _checked(include or (), "HTML"))


def _checked(include: Collection[str], kind: str) -> Collection[str]:
    allowed = ", ".join(f'"{each}"' for each in INCLUDE[kind])
    if isinstance(include, str):
        raise TypeError(f"include must be a tuple or list with some of {allowed}, not a str")
    if unknown := [each for each in include if each not in INCLUDE[kind]]:
        where = "" if kind == "events" else " with render" if kind == "HTML" else f' with format="{kind}"'
        raise ValueError(f"include can have {allowed}{where}, not {unknown[0]!r}")
    return include


def _renderer(render: Render) -> Callable[[Chunk], str]:
    if isinstance(render, str):
        template = get_template(render)
        return lambda chunk: template.render({"chunk": chunk})
    if not callable(render):
        raise TypeError(
            f"render must be a function of a chunk, or a template's name, not {with_article(render)}"
        )
    return render
