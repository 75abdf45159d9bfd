"""Which redirects are followed, with which headers. A prompt goes only where the settings or its caller say.

307 and 308 keep the method and the body (RFC 9110, sections 15.4.8 and 15.4.9). They are followed within the
origin of the request, at most ``MAX_REDIRECTS`` times. Other redirects turn a POST into a GET, or lead to a
server that the settings do not name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import httpx
from httpx._multipart import MultipartStream

from llm_pool.engine.exchange import Exchange
from llm_pool.engine.request import Request, WholeResponse

__all__ = ["FOLLOWED", "AsyncRedirects", "Redirects", "afollow", "follow", "origin_of_url"]

FOLLOWED = frozenset({307, 308})
MAX_REDIRECTS = 20  # as in httpx

# The headers that a request keeps when it is redirected to another origin. All others may hold a secret.
_HARMLESS = {
    *("accept", "accept-encoding", "accept-language", "content-length", "content-type"),
    *("host", "range", "transfer-encoding", "user-agent"),
}

A = TypeVar("A", WholeResponse, Exchange)


def follow(send: Callable[[Request], A], request: Request, answer: A) -> A:
    """Follow redirects from ``answer``, the answer to ``request``, by ``send``. Return the last answer.

    The last answer is itself a redirect if that is not to be followed. Each request has the timeouts of
    ``request``. Raises what ``send`` raises.
    """
    for _ in range(MAX_REDIRECTS):
        redirected = _redirected(request, answer)
        if redirected is None:
            break
        request, answer = redirected, send(redirected)
    return answer


async def afollow(send: Callable[[Request], Awaitable[A]], request: Request, answer: A) -> A:
    """``follow`` for async code."""
    for _ in range(MAX_REDIRECTS):
        redirected = _redirected(request, answer)
        if redirected is None:
            break
        request, answer = redirected, await send(redirected)
    return answer


def _redirected(request: Request, answer: WholeResponse | Exchange) -> Request | None:
    """Return the request that follows the redirect ``answer``, and release its connection.

    Returns None if ``answer`` is not a redirect to follow.
    """
    location = next((value for name, value in answer.headers if name.lower() == b"location"), None)
    if answer.status not in FOLLOWED or location is None:
        return None
    base = httpx.URL(str(request.origin))
    try:
        url = base.copy_with(raw_path=request.head.target).join(location.decode("latin-1"))
    except httpx.InvalidURL:
        return None
    if origin_of_url(url) != origin_of_url(base):
        return None
    if isinstance(answer, Exchange):
        answer.is_complete_enough = True
        answer.close_threadsafe()
    return request.to(url.raw_path)


class _RedirectHeaders:
    """A mixin for httpx clients: the headers of a redirected request.

    Within the origin they are those of the request, with its cookies. Another origin gets the headers of
    ``_HARMLESS`` alone, and none of them if the pool added it; httpx removes only ``Authorization`` and
    ``Cookie``.
    """

    def _redirect_headers(self, request: httpx.Request, url: httpx.URL, method: str) -> httpx.Headers:
        headers: httpx.Headers = super()._redirect_headers(request, url, method)  # type: ignore[misc]
        if origin_of_url(url) == origin_of_url(request.url):
            if "cookie" in request.headers:
                headers["cookie"] = request.headers["cookie"]
            return headers
        removed = (headers.keys() - _HARMLESS).union(request.extensions.get("llm_pool_added", ()))
        for name in removed:
            headers.pop(name, None)
        return headers


class Redirects(_RedirectHeaders):
    """A mixin for ``httpx.Client``. Its ``follow_redirects`` can be None, besides True and False.

    None follows 307 and 308 within the origin of the request, with all headers, if the body can be sent
    again. The response of any other redirect is returned.
    """

    def _send_handling_redirects(
        self, request: httpx.Request, follow_redirects: bool | None, history: list[httpx.Response]
    ) -> httpx.Response:
        while True:
            response: httpx.Response = super()._send_handling_redirects(  # type: ignore[misc]
                request, follow_redirects, history
            )
            redirected = _followed(request, response) if follow_redirects is None else None
            if redirected is None:
                return response
            response.close()
            request, history = redirected, [*history, response]


class AsyncRedirects(_RedirectHeaders):
    """``Redirects`` for ``httpx.AsyncClient``."""

    async def _send_handling_redirects(
        self, request: httpx.Request, follow_redirects: bool | None, history: list[httpx.Response]
    ) -> httpx.Response:
        while True:
            response: httpx.Response = await super()._send_handling_redirects(  # type: ignore[misc]
                request, follow_redirects, history
            )
            redirected = _followed(request, response) if follow_redirects is None else None
            if redirected is None:
                return response
            await response.aclose()
            request, history = redirected, [*history, response]


def _followed(request: httpx.Request, response: httpx.Response) -> httpx.Request | None:
    """Return the request that follows ``response``, the response to ``request``; None to return it.

    Marks the response as complete in the first case: its body is not needed.
    """
    redirected = response.next_request
    if (
        redirected is None
        or response.status_code not in FOLLOWED
        or origin_of_url(redirected.url) != origin_of_url(request.url)
        or not isinstance(request.stream, (httpx.ByteStream, MultipartStream))
    ):
        return None
    if (body := response.extensions.get("llm_pool_body")) is not None:  # None if a mock has answered
        body.mark_complete()
    return redirected


def origin_of_url(url: httpx.URL) -> tuple[bytes, bytes, int | None]:
    """Return scheme, host and port of ``url``; None for the default port."""
    return url.raw_scheme, url.raw_host, url.port
