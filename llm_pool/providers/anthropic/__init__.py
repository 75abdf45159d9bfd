"""Anthropic's Messages API: https://docs.anthropic.com/en/api/messages"""

from __future__ import annotations

from llm_pool.providers.anthropic.messages import Anthropic
from llm_pool.providers.anthropic.stream import AnthropicStreamReader

__all__ = ["Anthropic", "AnthropicStreamReader"]
