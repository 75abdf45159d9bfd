"""The demo's views: a chat that streams, an agent that makes many calls, and the pool's statistics."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_GET, require_POST
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from demo_project import agent as agent_calls
from demo_project.validation import BadInput, read_distance, read_messages
from llm_pool import pools
from llm_pool.http import event_stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MAX_TOKENS = 512


@require_GET
@ensure_csrf_cookie
def chat(request: HttpRequest) -> HttpResponse:
    """Show the chat page, which posts to ``answer``."""
    return render(request, "demo_project/chat.html")


@require_POST
async def answer(request: HttpRequest) -> HttpResponseBase:
    """Stream the model's answer to ``{"messages": [...]}`` as server-sent events."""
    try:
        messages = read_messages(request.body)
    except BadInput as error:
        return JsonResponse({"error": "bad_request", "message": str(error)}, status=400)
    stream = pools["default"].astream(messages, max_tokens=MAX_TOKENS)
    # The page keeps the conversation: it sends the model's message back with the next question.
    return event_stream(stream, include=("reasoning", "message"))


@require_GET
@ensure_csrf_cookie
def agent(request: HttpRequest) -> HttpResponse:
    """Show the agent page, which posts to ``agent_run``."""
    return render(request, "demo_project/agent.html", {"calls": agent_calls.CALLS})


@require_POST
async def agent_run(request: HttpRequest) -> HttpResponseBase:
    """Make the agent's calls to the pool that ``{"distance": ...}`` names; stream the time of each."""
    try:
        alias = read_distance(request.body)
    except BadInput as error:
        return JsonResponse({"error": "bad_request", "message": str(error)}, status=400)
    events: AsyncIterator[bytes] = agent_calls.run(alias)
    response = StreamingHttpResponse(events, content_type="text/event-stream")
    response["Cache-Control"] = "no-store"
    response["X-Accel-Buffering"] = "no"
    return response


@require_GET
def metrics(_request: HttpRequest) -> HttpResponse:
    """Return the metrics for Prometheus. A project with django-prometheus has this view already."""
    return HttpResponse(generate_latest(), content_type=CONTENT_TYPE_LATEST)


@require_GET
def counts(_request: HttpRequest) -> HttpResponse:
    """Redirect to the upstream's own counts, to compare them with the pool's statistics."""
    if not settings.DEMO_COUNTS_URL:
        return HttpResponse(
            "Only the demo's own upstream counts requests.\n", status=404, content_type="text/plain"
        )
    return redirect(settings.DEMO_COUNTS_URL)


@require_GET
def stats(_request: HttpRequest) -> JsonResponse:
    """Return the statistics of the pool "default" as JSON."""
    return JsonResponse(dataclasses.asdict(pools["default"].stats()))


def upstream(_request: HttpRequest) -> dict[str, Any]:
    """Context processor: the name of the model and its server, for every template."""
    pool = settings.LLM_POOL["default"]
    provider = f"{pool['MODEL']} at {urlsplit(pool['BASE_URL']).hostname}"
    return {
        "upstream": settings.DEMO_UPSTREAM or provider,
        "simulated": settings.DEMO_UPSTREAM.startswith("simulated"),
        "round_trip_ms": round(settings.DEMO_ROUND_TRIP * 1000),
    }
