"""Random answers of each API, from the shapes that their documentation has: whole, and as a stream."""

from __future__ import annotations

from tests.providers.random_answers.answer import RandomAnswer
from tests.providers.random_answers.chat import random_chat_completion
from tests.providers.random_answers.messages import random_message
from tests.providers.random_answers.responses import random_response

__all__ = ["RANDOM_ANSWERS", "RandomAnswer"]

RANDOM_ANSWERS = {
    "openai": random_chat_completion,
    "openai-responses": random_response,
    "anthropic": random_message,
}
"""By the name of the provider: a function from a source of randomness to an answer."""
