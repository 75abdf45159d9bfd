"""A request's head in bytes, and how its body is framed (RFC 9112). What must not be sent is refused."""

from __future__ import annotations

import re

from llm_pool.exceptions import InvalidRequest

from .config import DEFAULT_PORTS
from .request import Headers, Request

__all__ = [
    "LOWERCASE_TOKEN",
    "TEXT_TOKEN",
    "TOKEN",
    "UNSAFE",
    "Framing",
    "asks_to_close",
    "check",
    "encode_head",
]

# Methods and header names are tokens, made of ``tchar`` (RFC 9110, section 5.6.2). HTTP/2 has no upper case in
# names (RFC 9113, section 8.2.1).
_LOWERCASE_TCHARS = r"!#$%&'*+\-.^_`|~0-9a-z"
LOWERCASE_TOKEN = re.compile(f"[{_LOWERCASE_TCHARS}]+".encode())
TEXT_TOKEN = re.compile(f"[{_LOWERCASE_TCHARS}A-Z]+")
TOKEN = re.compile(TEXT_TOKEN.pattern.encode())
UNSAFE = re.compile(rb"[\r\n\0]")  # a value with one of these is invalid (RFC 9110, section 5.5)
TARGET = re.compile(rb"[!-~]+")
LENGTH = re.compile(rb"[0-9]{1,18}")
FRAMING = {b"content-length", b"transfer-encoding"}


class Framing:
    """How the body goes out: ``length`` bytes, or chunked where that is None."""

    __slots__ = ("_left", "chunked", "complete")

    def __init__(self, length: int | None, *, complete: bool = True) -> None:
        self.chunked = length is None
        self.complete = complete
        self._left = length or 0

    def frame(self, data: bytes) -> bytes:
        """A piece of the body as it goes on the wire."""
        if self.chunked:
            return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
        self._left -= len(data)
        if self._left < 0:
            raise InvalidRequest("the body is longer than its Content-Length says")
        return data

    def end(self) -> bytes:
        """What ends the body on the wire."""
        if self._left:
            raise InvalidRequest(f"the body is {self._left} bytes shorter than its Content-Length says")
        self.complete = True
        return b"0\r\n\r\n" if self.chunked else b""


def check(request: Request) -> None:
    """Refuse a request whose head would not be read as it was written (request smuggling, broken lines)."""
    if not TOKEN.fullmatch(request.method):
        raise InvalidRequest(f"{request.method!r} is not an HTTP method")
    if not TARGET.fullmatch(request.target):
        raise InvalidRequest(f"the path {request.target!r} has bytes that must be percent-encoded")
    for name, value in request.headers:
        if not TOKEN.fullmatch(name):
            raise InvalidRequest(f"{name!r} is not a header name")
        if UNSAFE.search(value):
            raise InvalidRequest(f"the value of the header {name.decode()!r} has a line break or NUL in it")
    _check_framing(request)


def _check_framing(request: Request) -> None:
    """Refuse a request whose end the server would see elsewhere than we do."""
    framing = [pair for pair in request.headers if len(pair[0]) in (14, 17) and pair[0].lower() in FRAMING]
    if not framing and not request.body:
        return
    if len(framing) != 1:
        raise InvalidRequest("a body needs either one Content-Length or one Transfer-Encoding")
    [(name, value)] = framing
    if len(name) == len(b"Transfer-Encoding"):
        if request.body is not None or value.lower() != b"chunked":
            raise InvalidRequest(
                "only a body that follows piece by piece is sent chunked, and in no other coding"
            )
    elif not LENGTH.fullmatch(value):
        raise InvalidRequest(f"the Content-Length {value!r} is not a number")
    elif request.body is not None and int(value) != len(request.body):
        raise InvalidRequest(
            f"the body is {len(request.body)} bytes long, and its Content-Length says {int(value)}"
        )


def asks_to_close(headers: Headers) -> bool:
    """Whether the connection is to be closed after the response (RFC 9112, section 9.6)."""
    return any(
        len(name) == 10 and name.lower() == b"connection" and b"close" in value.lower()
        for name, value in headers
    )


def encode_head(request: Request, forward: Headers | None = None) -> tuple[bytes, Framing]:
    """The head in bytes. With ``forward``, for a proxy: absolute form (section 3.2.2) and its headers."""
    headers, target = request.headers, request.target
    if forward is not None:
        target = _absolute(request)
        headers = [*headers, *forward]
    lines = [b"%b %b HTTP/1.1" % (request.method, target)]
    lines += [b"%b: %b" % header for header in headers]
    lines.append(b"\r\n")
    framing = Framing(0) if request.body is not None else _framing(request)
    return b"\r\n".join(lines), framing


def _absolute(request: Request) -> bytes:
    scheme, host, port = request.origin
    host = f"[{host}]" if ":" in host else host
    authority = host if port == DEFAULT_PORTS[scheme] else f"{host}:{port}"
    return f"{scheme}://{authority}".encode("ascii") + request.target


def _framing(request: Request) -> Framing:
    for name, value in request.headers:
        lowered = name.lower()
        if lowered == b"transfer-encoding":
            return Framing(None, complete=False)
        if lowered == b"content-length":
            return Framing(int(value), complete=False)
    return Framing(0, complete=False)
