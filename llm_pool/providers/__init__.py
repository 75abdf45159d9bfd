"""Providers: they make each API's requests, and read its answers, streams and errors. They do no I/O."""

from __future__ import annotations

from llm_pool.providers.anthropic import Anthropic
from llm_pool.providers.azure import Azure
from llm_pool.providers.base import Provider
from llm_pool.providers.openai import OpenAI, OpenAIResponses

__all__ = ["PROVIDERS", "Provider"]

PROVIDERS: dict[str, type[Provider]] = {
    "openai": OpenAI,
    "openai-responses": OpenAIResponses,
    "anthropic": Anthropic,
    "azure": Azure,
}
