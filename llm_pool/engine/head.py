"""Validates a request, and encodes its head and body for HTTP/1.1 (RFC 9112)."""

from __future__ import annotations

import re

from llm_pool.exceptions import InvalidRequest

from .config import DEFAULT_PORTS
from .request import Headers, Request

__all__ = [
    "TEXT_TOKEN",
    "TOKEN",
    "UNSAFE",
    "Framing",
    "asks_to_close",
    "encode_head",
    "framing_of",
    "validate",
]

# Methods and header names are tokens (RFC 9110, section 5.6.2).
TEXT_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-zA-Z]+")
TOKEN = re.compile(TEXT_TOKEN.pattern.encode())
UNSAFE = re.compile(rb"[\r\n\0]")  # a header value must not contain these (RFC 9110, section 5.5)
TARGET = re.compile(rb"[!-~]+")
LENGTH = re.compile(rb"[0-9]{1,18}")
FRAMING_HEADERS = {b"content-length", b"transfer-encoding"}


class Framing:
    """Encodes the body of a request for HTTP/1.1, piece by piece.

    ``length``    the Content-Length; None for a chunked body (RFC 9112, section 7.1)
    ``chunked``   whether the body is chunked
    ``complete``  whether the whole body has been encoded
    """

    __slots__ = ("_remaining", "chunked", "complete")

    def __init__(self, length: int | None, *, complete: bool = True) -> None:
        self.chunked = length is None
        self.complete = complete
        self._remaining = length or 0

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


def validate(request: Request) -> None:
    """Raise InvalidRequest for a request that a server could read as another request, or as two.

    Checks the method, the target, the headers and the length of the body. Prevents injected line breaks and
    request smuggling (RFC 9112, section 11).
    """
    if not TOKEN.fullmatch(request.method):
        raise InvalidRequest(f"{request.method!r} is not an HTTP method")
    if not TARGET.fullmatch(request.target):
        raise InvalidRequest(f"the path {request.target!r} has bytes that must be percent-encoded")
    for name, value in request.headers:
        if not TOKEN.fullmatch(name):
            raise InvalidRequest(f"{name!r} is not a header name")
        if UNSAFE.search(value):
            raise InvalidRequest(f"the value of the header {name.decode()!r} has a line break or NUL in it")
    _validate_framing(request)


def _validate_framing(request: Request) -> None:
    """Raise InvalidRequest if the headers do not frame the body correctly (RFC 9112, section 6).

    A body needs one Content-Length, with its true length. A body that follows piece by piece can have one
    ``Transfer-Encoding: chunked`` instead.
    """
    framing = [
        (name, value)
        for name, value in request.headers
        if len(name) in (14, 17) and name.lower() in FRAMING_HEADERS
    ]
    if not framing and not request.body:
        return
    if len(framing) != 1:
        raise InvalidRequest("a body needs either one Content-Length or one Transfer-Encoding")
    [(name, value)] = framing
    if len(name) == len(b"Transfer-Encoding"):
        if request.body is not None or value.lower() != b"chunked":
            raise InvalidRequest(
                "only a body that follows piece by piece can have a Transfer-Encoding, and only chunked"
            )
    elif not LENGTH.fullmatch(value):
        raise InvalidRequest(f"the Content-Length {value!r} is not a number")
    elif request.body is not None and int(value) != len(request.body):
        raise InvalidRequest(
            f"the body is {len(request.body)} bytes long, and its Content-Length says {int(value)}"
        )


def asks_to_close(headers: Headers) -> bool:
    """Return whether ``headers`` ask to close the connection after the response (RFC 9112, section 9.6)."""
    for name, value in headers:
        if len(name) == 10 and name.lower() == b"connection" and b"close" in value.lower():
            return True
    return False


def encode_head(request: Request, forward: Headers | None = None) -> tuple[bytes, Framing]:
    """Return the head of a request as bytes, and the ``Framing`` of a body that follows piece by piece.

    If ``request.body`` is the whole body, the ``Framing`` is complete already. ``forward``: headers for a
    proxy that forwards the request; None without such a proxy. With such a proxy, the target is in absolute
    form (RFC 9112, section 3.2.2).
    """
    headers, target = request.headers, request.target
    if forward is not None:
        target = _absolute_target(request)
        headers = [*headers, *forward]
    lines = [b"%b %b HTTP/1.1" % (request.method, target)]
    lines += [b"%b: %b" % header for header in headers]
    lines.append(b"\r\n")
    framing = Framing(0) if request.body is not None else framing_of(request)
    return b"\r\n".join(lines), framing


def _absolute_target(request: Request) -> bytes:
    scheme, host, port, _ = request.origin
    host = f"[{host}]" if ":" in host else host
    authority = host if port == DEFAULT_PORTS[scheme] else f"{host}:{port}"
    return f"{scheme}://{authority}".encode("ascii") + request.target


def framing_of(request: Request) -> Framing:
    """Return the ``Framing`` of a body that follows piece by piece."""
    for name, value in request.headers:
        lowered = name.lower()
        if lowered == b"transfer-encoding":
            return Framing(None, complete=False)
        if lowered == b"content-length":
            return Framing(int(value), complete=False)
    return Framing(0, complete=False)
