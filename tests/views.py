"""Views that use the pool in each way that a view can."""

from __future__ import annotations

import json
import os
import struct
from dataclasses import asdict
from typing import TYPE_CHECKING

from django.db import connection
from django.http import HttpResponse, JsonResponse
from django.utils.html import format_html
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from llm_pool import pool
from llm_pool.http import event_stream

if TYPE_CHECKING:
    from django.http import HttpRequest

    from llm_pool.http import EventStreamResponse
    from llm_pool.providers.results import Chunk, Completion


def complete(request: HttpRequest) -> JsonResponse:
    return _answer(pool.complete(_prompt(request)))


def complete_and_query(request: HttpRequest) -> JsonResponse:
    """A call, and then a query: Django refuses it if an event loop runs in the thread."""
    text = pool.complete(_prompt(request)).text
    with connection.cursor() as cursor:
        cursor.execute("select 1")
        return JsonResponse({"text": text, "rows": cursor.fetchall()})


async def acomplete(request: HttpRequest) -> JsonResponse:
    return _answer(await pool.acomplete(_prompt(request)))


async def complete_on_the_loop(request: HttpRequest) -> JsonResponse:
    """A call that blocks the event loop: not recommended, but it works."""
    return _answer(pool.complete(_prompt(request)))


def stream(request: HttpRequest) -> EventStreamResponse:
    return event_stream(pool.stream(_prompt(request)))


async def astream(request: HttpRequest) -> EventStreamResponse:
    return event_stream(pool.astream(_prompt(request)))


def stream_on_done(request: HttpRequest) -> EventStreamResponse:
    return event_stream(pool.stream(_prompt(request)), on_done=_save)


async def astream_on_done(request: HttpRequest) -> EventStreamResponse:
    return event_stream(pool.astream(_prompt(request)), on_done=_asave)


async def html_stream(request: HttpRequest) -> EventStreamResponse:
    def render(chunk: Chunk) -> str:
        return format_html("<b>{}</b>\n", chunk.text)

    return event_stream(pool.astream(_prompt(request)), render=render)


async def ui_messages(request: HttpRequest) -> EventStreamResponse:
    text = json.loads(request.body)["messages"][-1]["parts"][0]["text"]
    return event_stream(pool.astream(text), format="ai-sdk")


def _save(result: Completion | Exception) -> None:
    """Make a query, and then another call, so that the upstream knows of it."""
    with connection.cursor() as cursor:
        cursor.execute("select 1")
    list(pool.stream(f"saved {getattr(result, 'partial', result)}"))


async def _asave(result: Completion | Exception) -> None:
    async for _ in pool.astream(f"saved {getattr(result, 'partial', result)}"):
        pass


def stats(request: HttpRequest) -> JsonResponse:
    return JsonResponse(asdict(pool.stats()))


def metrics(request: HttpRequest) -> HttpResponse:
    """As in prometheus_client's documentation, for several processes and for one.

    Responds with 503 while another process creates a file: prometheus_client cannot read an empty file.
    """
    registry: CollectorRegistry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
    try:
        return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
    except struct.error:
        return HttpResponse(status=503)


def _prompt(request: HttpRequest) -> str:
    return request.GET.get("prompt", "hello")


def _answer(completion: Completion) -> JsonResponse:
    """The upstream of these tests sends the number of its connection as the request's id."""
    return JsonResponse(
        {"text": completion.text, "connection": completion.request_id, "process": os.getpid()}
    )
