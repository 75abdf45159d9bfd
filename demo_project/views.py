"""The demo's views: a chat that streams, an agent that makes many calls, and what the pool looks like."""

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

from demo_project import agent as agents
from demo_project.validation import BadInput, read_distance, read_messages
from llm_pool import pools
from llm_pool.http import event_stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MAX_TOKENS = 512


def upstream(_request: HttpRequest) -> dict[str, Any]:
    """Template context: who answers."""
    provider = settings.LLM_POOL["default"]
    elsewhere = f"{provider['MODEL']} at {urlsplit(provider['BASE_URL']).hostname}"
    return {
        "upstream": settings.DEMO_UPSTREAM or elsewhere,
        "simulated": settings.DEMO_UPSTREAM.startswith("simulated"),
        "round_trip_ms": round(settings.DEMO_ROUND_TRIP * 1000),
    }


@require_GET
@ensure_csrf_cookie
def chat(request: HttpRequest) -> HttpResponse:
    return render(request, "demo_project/chat.html")


@require_POST
async def answer(request: HttpRequest) -> HttpResponseBase:
    """Stream the model's answer to ``{"messages": [...]}`` as server-sent events."""
    try:
        messages = read_messages(request.body)
    except BadInput as error:
        return JsonResponse({"error": str(error)}, status=400)
    return event_stream(pools["default"].astream(messages, max_tokens=MAX_TOKENS))


@require_GET
@ensure_csrf_cookie
def agent(request: HttpRequest) -> HttpResponse:
    return render(request, "demo_project/agent.html", {"calls": agents.CALLS})


@require_POST
async def agent_run(request: HttpRequest) -> HttpResponseBase:
    """Make the agent's calls in both ways and stream each one's time as it ends."""
    try:
        alias = read_distance(request.body)
    except BadInput as error:
        return JsonResponse({"error": str(error)}, status=400)
    events: AsyncIterator[bytes] = agents.events(alias)
    response = StreamingHttpResponse(events, content_type="text/event-stream")
    response["Cache-Control"] = "no-store"
    response["X-Accel-Buffering"] = "no"
    return response


@require_GET
def metrics(_request: HttpRequest) -> HttpResponse:
    """For Prometheus. A project that has django-prometheus has this view already."""
    return HttpResponse(generate_latest(), content_type=CONTENT_TYPE_LATEST)


@require_GET
def counts(_request: HttpRequest) -> HttpResponse:
    """To where the upstream tells what has reached it, to be held against what the pools show."""
    if not settings.DEMO_COUNTS_URL:
        return HttpResponse("Only the demo's own upstream tells.\n", status=404, content_type="text/plain")
    return redirect(settings.DEMO_COUNTS_URL)


@require_GET
def stats(_request: HttpRequest) -> JsonResponse:
    return JsonResponse(dataclasses.asdict(pools["default"].stats()))
