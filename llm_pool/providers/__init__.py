"""Providers: how each API words a request and an answer. Dict in, dict out, no I/O."""

from __future__ import annotations

from importlib import import_module

from llm_pool.providers.anthropic import Anthropic
from llm_pool.providers.base import Provider
from llm_pool.providers.openai import OpenAI

__all__ = ["PROVIDERS", "Provider", "get_provider"]

PROVIDERS: dict[str, type[Provider]] = {"openai": OpenAI, "anthropic": Anthropic}


def get_provider(name: str) -> Provider:
    """The provider with this name, or the one whose class a dotted path names.

    Raises ``ValueError`` for a name that is none, ``ImportError`` for a path that leads nowhere, and
    ``TypeError`` where it leads to no ``Provider``; and whatever the module there raises when it is imported.
    """
    if name in PROVIDERS:
        return PROVIDERS[name]()
    module, dot, attribute = name.rpartition(".")
    if not dot or not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(f"no provider is called {name!r}")
    kind = getattr(import_module(module), attribute, None)
    if kind is None:
        raise ImportError(f"module {module!r} has no {attribute!r}")
    if not (isinstance(kind, type) and issubclass(kind, Provider)):
        raise TypeError(f"{name} is no subclass of llm_pool.providers.Provider")
    return kind()
