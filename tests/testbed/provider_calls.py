"""Calls to a scripted provider with httpx, without this package."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from testbed.provider import ScriptedProvider

__all__ = ["CHAT", "MESSAGES", "RESPONSES", "call", "events_in"]

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"


def call(provider: ScriptedProvider, path: str, *, timeout: float = 5, **body: Any) -> httpx.Response:
    """POST to the provider; ``body`` is added to the JSON of a call."""
    asked = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **body}
    with httpx.Client(trust_env=False, timeout=timeout) as client:
        return client.post(provider.url + path, json=asked)


def events_in(response: httpx.Response) -> list[Any]:
    """The data of the events of a stream: JSON parsed, anything else as text."""
    assert response.headers["content-type"] == "text/event-stream"
    data = [line[6:] for line in response.text.split("\n") if line.startswith("data: ")]
    return [json.loads(each) if each.startswith(("{", "[{")) else each for each in data]
