"""OpenAI's APIs, which many other servers offer too."""

from __future__ import annotations

from llm_pool.providers.openai.chat import OpenAI
from llm_pool.providers.openai.responses import OpenAIResponses
from llm_pool.providers.openai.stream import OpenAIStreamReader

__all__ = ["OpenAI", "OpenAIResponses", "OpenAIStreamReader"]
