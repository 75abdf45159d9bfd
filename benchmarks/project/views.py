"""The view: asks the model and hands its text on, in the form in which it came."""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING

from django.conf import settings
from django.http import HttpRequest, JsonResponse

from benchmarks.clients.base import KEY, MESSAGES, MODEL
from llm_pool import pools

if TYPE_CHECKING:
    import openai

_answered = 0


async def pooled(_request: HttpRequest) -> JsonResponse:
    """``llm_pool``."""
    completion = await pools["default"].acomplete(MESSAGES)
    return _answer(completion.text)


async def shared(_request: HttpRequest) -> JsonResponse:
    """The openai SDK, with a client that all requests share."""
    return _answer(await _text(_client()))


async def per_request(_request: HttpRequest) -> JsonResponse:
    """The openai SDK, with a client for each request."""
    async with _new_client() as client:
        return _answer(await _text(client))


async def meter(_request: HttpRequest) -> JsonResponse:
    """CPU seconds of this process so far, and how many requests it has answered."""
    return JsonResponse({"cpu": time.process_time(), "answered": _answered})


def _new_client() -> openai.AsyncOpenAI:
    import openai

    return openai.AsyncOpenAI(api_key=KEY, base_url=settings.UPSTREAM)


@cache
def _client() -> openai.AsyncOpenAI:
    return _new_client()


async def _text(client: openai.AsyncOpenAI) -> str:
    answer = await client.chat.completions.create(model=MODEL, messages=MESSAGES)
    return answer.choices[0].message.content or ""


def _answer(text: str) -> JsonResponse:
    global _answered  # noqa: PLW0603  one worker, one event loop
    _answered += 1
    return JsonResponse({"choices": [{"message": {"content": text}}]})
