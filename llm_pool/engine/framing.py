"""Encodes the body of a request for HTTP/1.1 (RFC 9112, sections 6 and 7), if it follows piece by piece."""

from __future__ import annotations

from llm_pool.exceptions import InvalidRequest

from .head import RequestHead

__all__ = ["Framing"]


class Framing:
    """Encodes a body piece by piece, and checks its length.

    ``head``      the head of the request: it has the Content-Length, or says that the body is chunked
    ``chunked``   whether the body is chunked (RFC 9112, section 7.1)
    ``complete``  whether the whole body has been encoded
    """

    __slots__ = ("_remaining", "chunked", "complete")

    def __init__(self, head: RequestHead) -> None:
        self.chunked = head.is_chunked
        self.complete = False
        self._remaining = head.length or 0

    def frame(self, data: bytes) -> bytes:
        """Return a piece of the body in encoded form.

        Raises InvalidRequest if the body exceeds its Content-Length.
        """
        if self.chunked:
            return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
        self._remaining -= len(data)
        if self._remaining < 0:
            raise InvalidRequest("the body is longer than its Content-Length says")
        return data

    def end(self) -> bytes:
        """Return the bytes that end the body.

        Raises InvalidRequest if the body is shorter than its Content-Length.
        """
        if self._remaining:
            raise InvalidRequest(f"the body is {self._remaining} bytes shorter than its Content-Length says")
        self.complete = True
        return b"0\r\n\r\n" if self.chunked else b""
