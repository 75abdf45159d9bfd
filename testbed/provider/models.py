"""The lists of models: https://platform.openai.com/docs/api-reference/models, and for Anthropic
https://docs.anthropic.com/en/api/models-list
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from testbed.provider.chat_completions import CREATED, ChatCompletions
from testbed.provider.messages import Messages

if TYPE_CHECKING:
    from testbed.provider.api import APIRequest

__all__ = ["AnthropicModels", "OpenAIModels"]


class OpenAIModels(ChatCompletions):
    """``GET */models`` without Anthropic's header."""

    name = "models"
    generates = False

    def whole(self, answer: Any, request: APIRequest) -> dict[str, Any]:
        made = {"object": "model", "created": CREATED, "owned_by": "test"}
        return {"object": "list", "data": [{"id": name, **made} for name in answer]}


class AnthropicModels(Messages):
    """``GET */models`` with the header ``anthropic-version``."""

    name = "models"
    generates = False

    def whole(self, answer: Any, request: APIRequest) -> dict[str, Any]:
        made = {"type": "model", "created_at": "2024-01-01T00:00:00Z"}
        data = [{"id": name, "display_name": name, **made} for name in answer]
        first, last = (answer[0], answer[-1]) if answer else (None, None)
        return {"data": data, "has_more": False, "first_id": first, "last_id": last}
