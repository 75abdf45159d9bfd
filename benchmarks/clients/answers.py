"""Read the text of an answer from its JSON, or from a line of its event stream."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["text_of", "text_of_line"]


def text_of(answer: Any) -> str:
    """The text of a chat completion."""
    text: str = answer["choices"][0]["message"]["content"]
    return text


def text_of_line(line: str | bytes) -> str | None:
    """The text of a line of an event stream; None if the line has no event, or the last ("[DONE]")."""
    data = line[6:]
    if not data or data in ("[DONE]", b"[DONE]"):
        return None
    text: str | None = json.loads(data)["choices"][0]["delta"].get("content")
    return text
