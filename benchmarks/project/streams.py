"""The streaming view: sends the model's tokens to the browser as server-sent events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from django.http import HttpRequest, StreamingHttpResponse

from benchmarks.clients.base import MESSAGES, MODEL
from benchmarks.project.clients import on_aiohttp, shared_client
from llm_pool import pools
from llm_pool.http import event_stream

if TYPE_CHECKING:
    import openai

__all__ = ["aiohttp", "pooled", "shared"]


async def pooled(_request: HttpRequest) -> StreamingHttpResponse:
    """The view on ``llm_pool``."""
    return event_stream(pools["default"].astream(MESSAGES))


async def shared(_request: HttpRequest) -> StreamingHttpResponse:
    """The view on the openai SDK, with one client for all requests."""
    return _response(shared_client())


async def aiohttp(_request: HttpRequest) -> StreamingHttpResponse:
    """The view on the openai SDK on aiohttp, with one client for all requests."""
    return _response(on_aiohttp())


def _response(client: openai.AsyncOpenAI) -> StreamingHttpResponse:
    return StreamingHttpResponse(_events(client), content_type="text/event-stream")


async def _events(client: openai.AsyncOpenAI) -> AsyncIterator[str]:
    chunks = await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
    async for chunk in chunks:
        if text := chunk.choices[0].delta.content:
            yield f"data: {json.dumps({'text': text})}\n\n"
