"""The status page, its data, and the health checks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import wraps
from typing import TypeVar
from weakref import WeakSet

from asgiref.sync import sync_to_async
from django.contrib.auth.decorators import login_not_required
from django.core.handlers.asgi import ASGIRequest
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.shortcuts import render
from django.template import TemplateDoesNotExist
from django.views.decorators.http import require_GET, require_safe

from llm_pool.engine.clock import monotonic
from llm_pool.http.response import HEADERS
from llm_pool.status.access import login_url, may_see_page
from llm_pool.status.health import readiness
from llm_pool.status.overview import SETTLING, overview
from llm_pool.status.snapshot import TICK_SECONDS

__all__ = ["data", "events", "live", "page", "ready"]

View = TypeVar("View", bound=Callable[..., HttpResponseBase | Awaitable[HttpResponseBase]])

TEXT = "text/plain; charset=utf-8"
REFUSAL = "This page is for staff. Log in as a user whose is_staff is set.\n"
MAX_STREAMS = 20  # in each process; each reads the cache every two seconds
STREAM_SECONDS = 30.0  # then the browser reconnects, so that access is checked again, and a server can stop


class _OpenStream:
    """One open stream of ``events``. Only the frame of its generator refers to it."""


_open_streams: WeakSet[_OpenStream] = WeakSet()  # weak: a server may drop a response without closing it


def _without_project_rules(view: View) -> View:
    """Exempt ``view`` from LoginRequiredMiddleware, and from ATOMIC_REQUESTS in each database.

    A load balancer does not log in, and takes a redirect to the login page for a healthy answer. The status
    page has its own rule (``may_see_page``). Django refuses to run async views in a transaction. A health
    check must not need a database.
    """
    for alias in connections:
        view = transaction.non_atomic_requests(using=alias)(view)
    return login_not_required(view)


def _staff_only(view: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    @wraps(view)
    def guarded(request: HttpRequest) -> HttpResponse:
        response = view(request) if may_see_page(request) else _refuse(request)
        response["Cache-Control"] = "no-store"
        return response

    return guarded


def _refuse(request: HttpRequest) -> HttpResponse:
    """Return a response with status 403.

    For a browser the response has a link to the login page, if the project has a login page and Django's
    templates.
    """
    prefers_html = request.get_preferred_type(["text/plain", "text/html"]) == "text/html"
    if prefers_html and (login := login_url(request)):
        with suppress(TemplateDoesNotExist):
            return render(request, "llm_pool/refused.html", {"login": login}, status=403)
    return _refusal()


def _refusal() -> HttpResponse:
    return HttpResponse(REFUSAL, status=403, content_type=TEXT)


@_without_project_rules
@require_GET
@_staff_only
def page(request: HttpRequest) -> HttpResponse:
    """Return the status page; 403 if ``may_see_page`` returns False.

    Under ASGI the page reads the stream of ``events``. Under WSGI the page polls ``data``, because a stream
    would occupy a thread of the worker.
    """
    feed = "events" if isinstance(request, ASGIRequest) else "data"
    return render(request, "llm_pool/status.html", {"feed": feed, "overview": overview()})


@_without_project_rules
@require_GET
@_staff_only
def data(_request: HttpRequest) -> HttpResponse:
    """Return the content of the status page as JSON; 403 if ``may_see_page`` returns False."""
    return JsonResponse(overview())


@_without_project_rules
@require_GET
async def events(request: HttpRequest) -> HttpResponseBase:
    """Send the content of the status page every two seconds, as server-sent events.

    The stream ends after ``STREAM_SECONDS``; the browser then reconnects. Returns 403 if
    ``may_see_page`` returns False, 501 under WSGI, and 503 if ``MAX_STREAMS`` are open: the page then polls
    ``data``.
    """
    if not await sync_to_async(may_see_page)(request):
        return _refusal()
    if not isinstance(request, ASGIRequest):
        return HttpResponse("Events need ASGI.\n", status=501, content_type=TEXT)
    if len(_open_streams) >= MAX_STREAMS:
        reason = f"This process sends {MAX_STREAMS} status pages already. Close some, or try again later.\n"
        headers = {"Retry-After": str(int(STREAM_SECONDS))}
        return HttpResponse(reason, status=503, content_type=TEXT, headers=headers)
    stream = _OpenStream()
    _open_streams.add(stream)
    return StreamingHttpResponse(_events(stream), content_type="text/event-stream", headers=HEADERS)


async def _events(_stream: _OpenStream) -> AsyncIterator[bytes]:
    yield b"retry: 1000\n\n"
    ends_at = monotonic() + STREAM_SECONDS
    while (now := monotonic()) < ends_at:
        # Not on the thread that all sync views share: the cache may be slow.
        content = await sync_to_async(overview, thread_sensitive=False)()
        yield f"data: {json.dumps(content)}\n\n".encode()
        await asyncio.sleep(TICK_SECONDS - (now - 2 * SETTLING) % TICK_SECONDS)
    yield b"event: done\ndata: {}\n\n"  # without this event the page reports a lost connection


@_without_project_rules
@require_safe
async def live(_request: HttpRequest) -> HttpResponse:
    """Return 200: a process that answers is alive."""
    return _health(200, {"status": "alive"})


@_without_project_rules
@require_safe
async def ready(_request: HttpRequest) -> HttpResponse:
    """Return 200 if the process is ready for requests, otherwise 503."""
    return _health(*readiness())


def _health(status: int, body: dict[str, object]) -> HttpResponse:
    return JsonResponse(body, status=status, headers={"Cache-Control": "no-store"})
