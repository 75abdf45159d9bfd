"""Limits the size of a response that httpx collects for its caller."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import httpx

from llm_pool.engine.request import answer_too_large

__all__ = ["limit_collected", "mark"]

SLICE = 4096  # bytes that are decompressed at a time: gzip and deflate make up to 1032 bytes of one


class ContentDecoder(Protocol):
    """The interface of httpx's decoders of a ``Content-Encoding``."""

    def decode(self, data: bytes) -> bytes: ...
    def flush(self) -> bytes: ...


def mark(request: httpx.Request, *, collected: bool) -> None:
    """Mark a request whose response httpx collects (``collected``), or whose caller reads it piece by piece.

    The requests that follow a redirect, or that an ``httpx.Auth`` repeats, have the same mark.
    """
    request.extensions = {**request.extensions, "llm_pool_collected": collected}


def limit_collected(response: httpx.Response, request: httpx.Request, limit: int) -> httpx.Response:
    """Return ``response``. If httpx collects its body, reading more than ``limit`` bytes of it fails.

    httpx collects the responses to requests with the ``mark``, and those that redirect. The bytes are
    counted after decompression. Reading then raises AnswerTooLarge.
    """
    if request.extensions.get("llm_pool_collected") or response.has_redirect_location:
        response._decoder = _LimitedDecoder(response, request, limit)  # type: ignore[assignment]
    return response


class _LimitedDecoder:
    """Decodes the body of ``response`` by httpx's decoders, slice by slice, up to ``limit`` bytes.

    httpx itself would decompress each piece of the body at once, possibly to more than a thousand times its
    size.
    """

    def __init__(self, response: httpx.Response, request: httpx.Request, limit: int) -> None:
        self._decoder: ContentDecoder = response._get_content_decoder()
        self._stages: Sequence[ContentDecoder] = ()
        if "content-encoding" in response.headers:
            self._stages = getattr(self._decoder, "children", (self._decoder,))
        self._url = request.url
        self._limit = limit
        self._size = 0

    def decode(self, data: bytes) -> bytes:
        return b"".join([self._counted(piece) for piece in _decode(data, self._stages)])

    def flush(self) -> bytes:
        return self._counted(self._decoder.flush())

    def _counted(self, data: bytes) -> bytes:
        self._size += len(data)
        if self._size > self._limit:
            raise answer_too_large(self._limit, f"{self._url.scheme}://{self._url.netloc.decode('ascii')}")
        return data


def _decode(data: bytes, stages: Sequence[ContentDecoder]) -> Iterator[bytes]:
    """Yield ``data`` decoded by each of ``stages`` in turn. At most a ``SLICE`` is decoded at once."""
    if not stages:
        yield data
        return
    for start in range(0, len(data), SLICE):
        yield from _decode(stages[0].decode(data[start : start + SLICE]), stages[1:])
