"""Validate the JSON bodies that the pages post."""

from __future__ import annotations

import json
from typing import Any

ROLES = ("system", "user", "assistant")
POOL_ALIASES = {"near": "default", "far": "far"}  # by distance
MAX_BYTES = 1_000_000


class BadInput(ValueError):
    """A body is not valid. The message is a sentence for the page."""


def read_messages(body: bytes) -> list[dict[str, Any]]:
    """Return the messages in ``{"messages": [{"role": ..., "content": ...}, ...]}``.

    Those of the user have no other keys. Those of the model are returned as they are: each is the
    ``Completion.message`` of an earlier answer, in its provider's form. Raises ``BadInput``.
    """
    messages = _read_object(body).get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadInput('"messages" must be a list with at least one message.')
    conversation = [_read_message(number, message) for number, message in enumerate(messages, start=1)]
    if conversation[-1]["role"] != "user":
        raise BadInput('The last message must have the role "user".')
    return conversation


def read_distance(body: bytes) -> str:
    """Return the pool's alias for ``{"distance": "near" | "far"}`` (default: near). Raises ``BadInput``."""
    distance = _read_object(body).get("distance", "near")
    if not isinstance(distance, str) or distance not in POOL_ALIASES:
        raise BadInput(f'"distance" must be one of {", ".join(POOL_ALIASES)}.')
    return POOL_ALIASES[distance]


def _read_message(number: int, message: Any) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise BadInput(f"Message {number} must be an object.")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise BadInput(f'Message {number}: "role" must be one of {", ".join(ROLES)}.')
    if role == "assistant":
        return message
    if not isinstance(content, str) or not content.strip():
        raise BadInput(f'Message {number}: "content" must be a non-empty string.')
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
