"""Scripts that respond like an OpenAI-compatible server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from testbed.behaviours import EVENTS, json_reply

if TYPE_CHECKING:
    from collections.abc import Iterable

    from testbed.board import Gate
    from testbed.connection import Headers, ServerConnection
    from testbed.scripted import Script


def chat_completion(
    text: str = "Hello!", *, model: str = "test-model", headers: Headers = (), **more: Any
) -> Script:
    """Read a request and send a chat completion; ``more`` is added to its JSON."""
    message = {"role": "assistant", "content": text}
    value = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": usage(len(text.split())),
        **more,
    }
    return json_reply(value, headers=headers)


def chat_stream(
    tokens: Iterable[str] = ("Hel", "lo", "!"),
    *,
    pace: Gate | str | None = None,
    model: str = "test-model",
    headers: Headers = (),
    then: Script | None = None,
) -> Script:
    """Read a request and send a stream: an event for each token, the finish reason, usage, [DONE].

    With ``pace`` each token waits at that gate (``gate.admit()`` lets one through). With ``then`` that script
    is played after the last token, instead of the stream's end: ``chat_stream(["a", "b"], then=reset)``.
    """
    tokens = list(tokens)
    ending = [
        chat_event({}, model=model, finish_reason="stop"),
        chat_event(None, model=model, usage=usage(len(tokens))),
        b"data: [DONE]\n\n",
    ]

    async def script(conn: ServerConnection) -> None:
        await conn.read_request()
        await conn.send_head(200, {**EVENTS, "Transfer-Encoding": "chunked", **dict(headers)})
        for token in tokens:
            if pace is not None:
                await conn.wait_for(pace)
            await conn.send_chunk(chat_event({"content": token}, model=model))
        if then is not None:
            await then(conn)
        else:
            await conn.send_last_chunk(b"".join(ending))

    return script


def chat_event(
    delta: dict[str, Any] | None,
    *,
    model: str = "test-model",
    finish_reason: str | None = None,
    usage: dict[str, int] | None = None,
) -> bytes:
    """One event of a stream; it has no choices if ``delta`` is None."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    value = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": model,
        "choices": [] if delta is None else [choice],
        "usage": usage,
    }
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def usage(completion_tokens: int, prompt_tokens: int = 3) -> dict[str, int]:
    """The usage object of a chat completion."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
