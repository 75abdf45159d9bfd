"""A model behind gates: what it answers, and when, is told by the prompt."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.servers.behaviours import EVENTS, JSON
from tests.servers.chat import chat_event, usage

if TYPE_CHECKING:
    from tests.servers import ServerConnection

__all__ = ["model"]

FLOOD = "x" * 16384


async def model(conn: ServerConnection) -> None:
    """Answers one request; its id is the number of the connection.

    A stream waits at the gate "head" before its head and at the gate "token" before each of its tokens
    "one", "two", "three". For the prompt "flood" its tokens are large, and without end. Gates are open
    unless the test has named them before: see ``shut``.
    """
    request = await conn.read_request()
    asked = request.json()
    prompt = asked["messages"][-1]["content"]
    ident = {"X-Request-Id": str(conn.number)}
    if not asked.get("stream"):
        await conn.respond(200, {**JSON, **ident}, _completion(f"You said {prompt}."))
        return
    await conn.wait_for("head")
    await conn.send_head(200, {**EVENTS, **ident, "Transfer-Encoding": "chunked"})
    while prompt == "flood":
        await conn.send_chunk(chat_event({"content": FLOOD}))
    for token in ("one", "two", "three"):
        await conn.wait_for("token")
        await conn.send_chunk(chat_event({"content": token}))
    await conn.send_chunk(chat_event({}, finish_reason="stop") + b"data: [DONE]\n\n")
    await conn.end_chunks()


def _completion(text: str) -> bytes:
    message = {"role": "assistant", "content": text}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    value = {"id": "chatcmpl-1", "model": "test-model", "choices": choices, "usage": usage(1)}
    return json.dumps(value).encode()
