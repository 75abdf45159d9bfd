"""Providers: they make each API's requests, and read its answers, streams and errors. They do no I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_pool.providers.base import Provider

__all__ = ["PROVIDERS"]

_CLASSES = {
    "openai": ("openai", "OpenAI"),
    "openai-responses": ("openai", "OpenAIResponses"),
    "anthropic": ("anthropic", "Anthropic"),
    "azure": ("azure", "Azure"),
}


class _Providers(Mapping[str, Any]):
    """The class of each provider, by its name in the settings.

    A class is imported when it is looked up: a process imports only the providers of its pools.
    """

    def __getitem__(self, name: str) -> type[Provider]:
        module, class_name = _CLASSES[name]
        provider: type[Provider] = getattr(import_module(f"{__name__}.{module}"), class_name)
        return provider

    def __iter__(self) -> Iterator[str]:
        return iter(_CLASSES)

    def __len__(self) -> int:
        return len(_CLASSES)


PROVIDERS: Mapping[str, type[Provider]] = _Providers()
