"""Streams of OpenAI's API: made, and read with the provider's reader."""

from __future__ import annotations

import json
from typing import Any

from llm_pool.providers.base import Head
from llm_pool.providers.openai import OpenAI
from llm_pool.providers.results import Chunk, Completion

__all__ = ["SSE", "delta", "openai", "read", "sse"]

openai = OpenAI()
SSE = Head(200, {"x-request-id": "req_1", "content-type": "text/event-stream"})


def delta(content: Any = None, *, reason: str | None = None, **more: Any) -> dict[str, Any]:
    fields = {"content": content, **more} if content is not None else more
    return {"id": "c1", "model": "m1", "choices": [{"index": 0, "delta": fields, "finish_reason": reason}]}


def sse(*events: Any, done: bool = True) -> bytes:
    lines = [event if isinstance(event, str) else json.dumps(event, ensure_ascii=False) for event in events]
    return "".join(f"data: {line}\n\n" for line in [*lines, *(["[DONE]"] if done else [])]).encode()


def read(body: bytes, head: Head = SSE, size: int | None = None) -> tuple[list[Chunk], Completion]:
    reader = openai.stream_reader(head)
    chunks = []
    for start in range(0, len(body), size or len(body) or 1):
        chunks += reader.feed(body[start : start + (size or len(body))])
    chunks += reader.end()
    return chunks, reader.completion()
