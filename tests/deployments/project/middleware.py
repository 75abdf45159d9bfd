"""Middlewares that wrap a response's stream, as those of many packages do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.utils.decorators import sync_and_async_middleware, sync_only_middleware

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from django.http import HttpRequest


@sync_only_middleware
def wrapping(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Wrap the stream in a generator of the same kind, as in Django's documentation."""

    def middleware(request: HttpRequest) -> Any:
        response = get_response(request)
        if response.streaming:
            wrap = _awrapped if response.is_async else _wrapped
            response.streaming_content = wrap(response.streaming_content)
            response["X-Wrapped"] = "yes"
        return response

    return middleware


@sync_and_async_middleware
def pass_through(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Do nothing, on the event loop of an async view."""
    from asgiref.sync import iscoroutinefunction  # noqa: PLC0415

    if iscoroutinefunction(get_response):

        async def amiddleware(request: HttpRequest) -> Any:
            return await get_response(request)

        return amiddleware
    return get_response


def _wrapped(content: Iterator[bytes]) -> Iterator[bytes]:
    yield from content


async def _awrapped(content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for piece in content:
        yield piece
