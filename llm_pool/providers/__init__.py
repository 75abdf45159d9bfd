"""Providers: each API's requests, answers, streams and errors. No I/O."""

from __future__ import annotations

from llm_pool.providers.anthropic import Anthropic
from llm_pool.providers.base import Provider
from llm_pool.providers.openai import OpenAI

__all__ = ["PROVIDERS", "Provider"]

PROVIDERS: dict[str, type[Provider]] = {"openai": OpenAI, "anthropic": Anthropic}
