"""The view: makes a call to the model, and returns its text in the form of a chat completion."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from django.http import HttpRequest, JsonResponse

from benchmarks.clients.base import MESSAGES, MODEL
from benchmarks.project.clients import new_client, shared_client
from llm_pool import pools

if TYPE_CHECKING:
    import openai

_answered = 0


async def pooled(_request: HttpRequest) -> JsonResponse:
    """The view on ``llm_pool``."""
    completion = await pools["default"].acomplete(MESSAGES)
    return _answer(completion.text)


async def shared(_request: HttpRequest) -> JsonResponse:
    """The view on the openai SDK, with one client for all requests."""
    return _answer(await _text(shared_client()))


async def per_request(_request: HttpRequest) -> JsonResponse:
    """The view on the openai SDK, with a new client for each request."""
    async with new_client() as client:
        return _answer(await _text(client))


async def meter(_request: HttpRequest) -> JsonResponse:
    """This process's CPU seconds and its answered requests, so far."""
    return JsonResponse({"cpu": time.process_time(), "answered": _answered})


async def _text(client: openai.AsyncOpenAI) -> str:
    answer = await client.chat.completions.create(model=MODEL, messages=MESSAGES)
    return answer.choices[0].message.content or ""


def _answer(text: str) -> JsonResponse:
    global _answered  # noqa: PLW0603  one worker, one event loop
    _answered += 1
    return JsonResponse({"choices": [{"message": {"content": text}}]})
