"""What the pages may send. Each reader takes a request's body and says in words what is wrong with it."""

from __future__ import annotations

import json
from typing import Any

ROLES = ("system", "user", "assistant")
DISTANCES = {"near": "default", "far": "far"}
MAX_BYTES = 1_000_000


class BadInput(ValueError):
    """The body is not what the page is meant to send; the message says what is wrong, for people."""


def read_messages(body: bytes) -> list[dict[str, str]]:
    """Return the conversation in ``{"messages": [{"role": ..., "content": ...}, ...]}``."""
    messages = _read_object(body).get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadInput('"messages" must be a list with at least one message.')
    conversation = [_read_message(number, message) for number, message in enumerate(messages, start=1)]
    if conversation[-1]["role"] != "user":
        raise BadInput("The last message must be the user's.")
    return conversation


def read_distance(body: bytes) -> str:
    """Return the alias of the pool that ``{"distance": "near" | "far"}`` asks for."""
    distance = _read_object(body).get("distance", "near")
    if not isinstance(distance, str) or distance not in DISTANCES:
        raise BadInput(f'"distance" must be one of {", ".join(DISTANCES)}.')
    return DISTANCES[distance]


def _read_message(number: int, message: Any) -> dict[str, str]:
    if not isinstance(message, dict):
        raise BadInput(f"Message {number} must be an object.")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise BadInput(f'Message {number}: "role" must be one of {", ".join(ROLES)}.')
    if not isinstance(content, str) or not content.strip():
        raise BadInput(f'Message {number}: "content" must be a text that is not empty.')
    return {"role": role, "content": content}


def _read_object(body: bytes) -> dict[str, Any]:
    if len(body) > MAX_BYTES:
        raise BadInput(f"The body is longer than {MAX_BYTES:,} bytes.")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise BadInput("The body is not JSON.") from None
    if not isinstance(value, dict):
        raise BadInput("The body must be a JSON object.")
    return value
