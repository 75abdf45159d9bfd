"""Providers: they make each API's requests, and read its answers, streams and errors. They do no I/O."""

from __future__ import annotations

from llm_pool.providers.anthropic import Anthropic
from llm_pool.providers.azure import Azure
from llm_pool.providers.base import Provider
from llm_pool.providers.openai import OpenAI

__all__ = ["PROVIDERS", "Provider"]

PROVIDERS: dict[str, type[Provider]] = {"openai": OpenAI, "anthropic": Anthropic, "azure": Azure}
