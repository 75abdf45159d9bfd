"""The head of a request: validated once, encoded once, and sent any number of times."""

from __future__ import annotations

import re

from llm_pool.exceptions import InvalidRequest

from .config import DEFAULT_PORTS, Origin

__all__ = ["TEXT_TOKEN", "TOKEN", "UNSAFE", "Headers", "RequestHead", "asks_to_close"]

Headers = list[tuple[bytes, bytes]]

# Methods and header names are tokens (RFC 9110, section 5.6.2).
TEXT_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-zA-Z]+")
TOKEN = re.compile(TEXT_TOKEN.pattern.encode())
UNSAFE = re.compile(rb"[\r\n\0]")  # a header value must not contain these (RFC 9110, section 5.5)
TARGET = re.compile(rb"[!-~]+")
LENGTH = re.compile(rb"[0-9]{1,18}")


class RequestHead:
    """The head of a request to ``origin``.

    ``origin``      where to send it
    ``method``      such as b"POST"
    ``target``      path and query, percent-encoded
    ``headers``     the headers, with ``Host``. If none of them frames the body (RFC 9112, section 6), a
                    request with a whole body is sent with its ``Content-Length``
    ``length``      the Content-Length among the headers; None if there is none
    ``is_chunked``  whether a header says that the body is chunked
    ``is_framed``   whether a header frames the body
    ``closes``      whether the headers ask to close the connection after the response
    ``idempotent``  whether there is an ``Idempotency-Key``, so that the request can be sent twice
    ``fields``      the head as ``http2.head`` encodes it, which also sets it; None before that

    Raises InvalidRequest for a head that a server could read as another head, or as two: prevents injected
    line breaks and request smuggling (RFC 9112, section 11).
    """

    __slots__ = ("_lines", "closes", "fields", "headers", "idempotent", "is_chunked", "is_framed", "length",
                 "method", "origin", "target")  # fmt: skip

    def __init__(self, origin: Origin, method: bytes, target: bytes, headers: Headers) -> None:
        self.origin = origin
        self.method = method
        self.target = target
        self.headers = headers
        self.fields: Headers | None = None
        self._lines: bytes | None = None
        _validate(method, target, headers)
        self.length, self.is_chunked = _framing_in(headers)
        self.closes = asks_to_close(headers)
        self.is_framed = self.is_chunked or self.length is not None
        self.idempotent = any(name.lower() == b"idempotency-key" for name, _ in headers)

    def check_body(self, body: bytes | None) -> None:
        """Raise InvalidRequest if the headers do not frame ``body`` correctly (RFC 9112, section 6).

        ``body`` is the whole body, or None if it follows piece by piece: only then it can be chunked.
        """
        if body is None:
            return
        if self.is_chunked:
            raise InvalidRequest("a whole body needs a Content-Length instead of a Transfer-Encoding")
        if self.length is not None and self.length != len(body):
            raise InvalidRequest(
                f"the body is {len(body)} bytes long, and its Content-Length says {self.length}"
            )

    def framed(self, body: bytes | None) -> Headers:
        """Return the headers of a request with ``body``."""
        if body and self.length is None:
            return [*self.headers, (b"Content-Length", b"%d" % len(body))]
        return self.headers

    def encode(self, body: bytes | None) -> bytes:
        """Return the head of a request with ``body``, in the form of HTTP/1.1 (RFC 9112)."""
        if self._lines is None:
            self._lines = _lines(self.method, self.target, self.headers)
        if body and self.length is None:
            return b"%bContent-Length: %d\r\n\r\n" % (self._lines, len(body))
        return self._lines + b"\r\n"

    def encode_for_proxy(self, body: bytes | None, headers: Headers) -> bytes:
        """Return the head for a proxy that forwards the request; ``headers`` are the proxy's own.

        The target is in absolute form (RFC 9112, section 3.2.2).
        """
        scheme, host, port, _ = self.origin
        host = f"[{host}]" if ":" in host else host
        authority = host if port == DEFAULT_PORTS[scheme] else f"{host}:{port}"
        target = f"{scheme}://{authority}".encode("ascii") + self.target
        return _lines(self.method, target, [*self.framed(body), *headers]) + b"\r\n"


def asks_to_close(headers: Headers) -> bool:
    """Return whether ``headers`` ask to close the connection after the response (RFC 9112, section 9.6)."""
    for name, value in headers:
        if len(name) == 10 and name.lower() == b"connection" and b"close" in value.lower():
            return True
    return False


def _validate(method: bytes, target: bytes, headers: Headers) -> None:
    if not TOKEN.fullmatch(method):
        raise InvalidRequest(f"{method!r} is not an HTTP method")
    if not TARGET.fullmatch(target):
        raise InvalidRequest(f"the path {target!r} has bytes that must be percent-encoded")
    for name, value in headers:
        if not TOKEN.fullmatch(name):
            raise InvalidRequest(f"{name!r} is not a header name")
        if UNSAFE.search(value):
            raise InvalidRequest(f"the value of the header {name.decode()!r} has a line break or NUL in it")


def _framing_in(headers: Headers) -> tuple[int | None, bool]:
    """Return the Content-Length in ``headers``, and whether they say that the body is chunked.

    Raises InvalidRequest if they frame the body more than once, or in another way.
    """
    lengths = [value for name, value in headers if name.lower() == b"content-length"]
    codings = [value for name, value in headers if name.lower() == b"transfer-encoding"]
    if len(lengths) + len(codings) > 1:
        raise InvalidRequest("a body needs either one Content-Length or one Transfer-Encoding")
    if codings and codings[0].lower() != b"chunked":
        raise InvalidRequest(
            "a body that follows piece by piece can have no other Transfer-Encoding than chunked"
        )
    if lengths and not LENGTH.fullmatch(lengths[0]):
        raise InvalidRequest(f"the Content-Length {lengths[0]!r} is not a number")
    return (int(lengths[0]) if lengths else None), bool(codings)


def _lines(method: bytes, target: bytes, headers: Headers) -> bytes:
    """Return the request line and the lines of the headers, each with its end."""
    return b"".join([b"%b %b HTTP/1.1\r\n" % (method, target), *[b"%b: %b\r\n" % pair for pair in headers]])
