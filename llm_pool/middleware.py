"""Records the calls of each Django request: on ``request.llm_pool``, in a header and in a log line."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponse, HttpResponseBase
from django.template import TemplateDoesNotExist
from django.template.loader import render_to_string
from django.utils.functional import LazyObject, empty

from llm_pool.calling.record import RequestCalls, current_request
from llm_pool.conf.observability import answers_busy, shows_timing_to_all
from llm_pool.exceptions import Overloaded, PoolFull, PoolTimeout, RateLimited, visitor_message
from llm_pool.redaction import printable

__all__ = ["PoolMiddleware"]

logger = logging.getLogger("llm_pool.requests")

RETRY_AFTER = 5  # seconds, if the provider states none
CODES = {
    PoolFull: "pool_full",
    PoolTimeout: "pool_timeout",
    RateLimited: "rate_limited",
    Overloaded: "overloaded",
}  # a subclass comes before its base class
TEMPLATE = "llm_pool/busy.html"  # a project can override this template
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Busy</title></head><body><h1>Busy</h1><p>%s</p></body></html>
"""


class PoolMiddleware:
    """Records the calls of each Django request, on ``request.llm_pool`` and in the log.

    Adds the header ``Server-Timing`` for staff, and for all visitors if ``DEBUG`` or
    ``LLM_POOL_SERVER_TIMING`` is set. Answers PoolTimeout, PoolFull, RateLimited and Overloaded with a 503.
    Works in sync and async views; needs no thread, no lock and no query.

    Put the class near the top of ``MIDDLEWARE``: calls that an earlier middleware makes are not recorded.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self._is_async:
            return self._acall(request)
        calls = request.llm_pool = RequestCalls()  # type: ignore[attr-defined]
        token = current_request.set(calls)
        try:
            return _finish(request, self._get_response(request), calls)
        finally:
            current_request.reset(token)

    async def _acall(self, request: HttpRequest) -> HttpResponseBase:
        calls = request.llm_pool = RequestCalls()  # type: ignore[attr-defined]
        token = current_request.set(calls)
        try:
            return _finish(request, await self._get_response(request), calls)
        finally:
            current_request.reset(token)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Return a 503 with ``Retry-After`` for the exceptions in ``CODES``; None for other exceptions.

        ``Retry-After`` is the provider's, in whole seconds, or ``RETRY_AFTER``. The response is HTML or JSON,
        by the ``Accept`` header of the request. Returns None if ``LLM_POOL_BUSY_RESPONSES`` is False.
        """
        code = next((code for kind, code in CODES.items() if isinstance(exception, kind)), None)
        if code is None or not answers_busy():
            return None
        wait = getattr(exception, "retry_after", None)
        retry_after = RETRY_AFTER if wait is None else max(1, math.ceil(wait))
        message = visitor_message(exception)
        response: HttpResponse
        if request.get_preferred_type(["application/json", "text/html"]) == "text/html":
            response = HttpResponse(_page(request, message, retry_after), status=503)
        else:
            response = JsonResponse({"error": code, "message": message}, status=503)
        response["Retry-After"] = str(retry_after)
        response["Cache-Control"] = "no-store"
        path = printable(request.path)
        logger.warning("%s %s is answered with 503: %s", request.method, path, exception)
        return response


def _page(request: HttpRequest, message: str, retry_after: int) -> str:
    """Return the page of a 503, from ``TEMPLATE``. Return ``PAGE`` if the template cannot be rendered."""
    try:
        return render_to_string(TEMPLATE, {"message": message, "retry_after": retry_after}, request)
    except Exception as error:
        if not isinstance(error, TemplateDoesNotExist) or error.args != (TEMPLATE,):
            logger.exception("%s cannot be rendered: a plain page is sent instead", TEMPLATE)
        return PAGE % message


def _finish(request: HttpRequest, response: HttpResponseBase, calls: RequestCalls) -> HttpResponseBase:
    if calls.records and (shows_timing_to_all() or _is_staff(request)):
        _add_timing(response, calls)
    if response.streaming:
        closers: list[Callable[[], object]] = vars(response)["_resource_closers"]  # missing in the type stubs
        closers.append(lambda: _log(request, response, calls))  # a stream can make calls until it is closed
    else:
        _log(request, response, calls)
    return response


def _add_timing(response: HttpResponseBase, calls: RequestCalls) -> None:
    """Add the times of the calls, in milliseconds, to the header ``Server-Timing``.

    See https://www.w3.org/TR/server-timing/
    """
    timing = (
        f'llm_wait;dur={calls.waited * 1e3:.1f};desc="wait for a connection", '
        f'llm;dur={calls.provider_seconds * 1e3:.1f};desc="LLM calls: {calls.calls}"'
    )
    present = response.get("Server-Timing")
    response["Server-Timing"] = f"{present}, {timing}" if present else timing


def _is_staff(request: HttpRequest) -> bool:
    """Return whether the user is staff. Makes no query: returns False if the user is not loaded yet."""
    for name in ("_acached_user", "_cached_user", "user"):
        user = request.__dict__.get(name)
        if user is not None and not (isinstance(user, LazyObject) and user._wrapped is empty):
            return bool(getattr(user, "is_staff", False))
    return False


def _log(request: HttpRequest, response: HttpResponseBase, calls: RequestCalls) -> None:
    if not calls.records or not logger.isEnabledFor(logging.INFO):
        return
    facts = {
        "method": request.method,
        "path": printable(request.path),
        "status_code": response.status_code,
        "llm_calls": calls.calls,
        "llm_errors": calls.errors,
        "llm_waited": round(calls.waited, 6),
        "llm_provider_seconds": round(calls.provider_seconds, 6),
        "llm_input_tokens": calls.input_tokens,
        "llm_output_tokens": calls.output_tokens,
    }
    logger.info(
        "%(method)s %(path)s %(status_code)s: LLM calls %(llm_calls)d, failed %(llm_errors)d, "
        "waited %(llm_waited).3f s, provider %(llm_provider_seconds).3f s, "
        "tokens %(llm_input_tokens)d in, %(llm_output_tokens)d out",
        facts,
        extra=facts,
    )
