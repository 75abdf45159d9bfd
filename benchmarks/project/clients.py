"""The clients of the openai SDK that the views use."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from django.conf import settings

from benchmarks.clients.base import KEY

if TYPE_CHECKING:
    import openai

__all__ = ["new_client", "on_aiohttp", "shared_client"]


def new_client(**options: Any) -> openai.AsyncOpenAI:
    """Make a client."""
    import openai

    return openai.AsyncOpenAI(api_key=KEY, base_url=settings.UPSTREAM, **options)


@cache
def shared_client() -> openai.AsyncOpenAI:
    """Return the process's client."""
    return new_client()


@cache
def on_aiohttp() -> openai.AsyncOpenAI:
    """Return the process's client on ``openai.DefaultAioHttpClient``."""
    import openai

    return new_client(http_client=openai.DefaultAioHttpClient())
