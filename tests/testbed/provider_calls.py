"""Calls to a scripted provider with httpx, without this package."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from testbed.provider import ScriptedProvider

__all__ = ["CHAT", "EMBEDDINGS", "MESSAGES", "RESPONSES", "call", "events_in", "read_some"]

CHAT, MESSAGES, EMBEDDINGS = "/v1/chat/completions", "/v1/messages", "/v1/embeddings"
RESPONSES = "/v1/responses"


def call(provider: ScriptedProvider, path: str, *, timeout: float = 5, **body: Any) -> httpx.Response:
    """POST to the provider; ``body`` is added to the JSON of a call."""
    asked = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **body}
    with httpx.Client(trust_env=False, verify=False, timeout=timeout) as client:
        return client.post(provider.url + path, json=asked)


def events_in(response: httpx.Response) -> list[Any]:
    """The data of the events of a stream: JSON parsed, anything else as text."""
    assert response.headers["content-type"] == "text/event-stream"
    data = [line[6:] for line in response.text.split("\n") if line.startswith("data: ")]
    return [json.loads(each) if each.startswith(("{", "[{")) else each for each in data]


def read_some(provider: ScriptedProvider, path: str, until: str | None = None, **body: Any) -> str:
    """Read an answer until its end, or until it contains ``until``; an end that is too early is one too."""
    asked = {"model": "m", "messages": [], **body}
    text = b""
    with (
        httpx.Client(trust_env=False, verify=False, timeout=5) as client,
        client.stream("POST", provider.url + path, json=asked) as response,
        contextlib.suppress(httpx.RemoteProtocolError),
    ):
        for piece in response.iter_bytes():
            text += piece
            if until is not None and until.encode() in text:
                break
    return text.decode("utf-8", "replace")
