"""A request's head as HTTP/2 fields, and a response's as status and headers (RFC 9113, section 8)."""

from __future__ import annotations

import re

from llm_pool.exceptions import ProtocolError

from ..head import LOWERCASE_TOKEN, UNSAFE
from ..request import Headers, Request

__all__ = ["encode_fields", "promised_length", "read_fields"]

STATUS = re.compile(rb"[2-9][0-9]{2}")  # h2 keeps the interim ones to itself
HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
NOT_SENT = HOP_BY_HOP | {b"te"}
WITHOUT_BODY = (204, 304)


def encode_fields(request: Request) -> Headers:
    """Section 8.3.1; without what section 8.2.2 forbids, which is for HTTP/1.1 only."""
    authority = b""
    regular = []
    for name, value in request.headers:
        lowered = name.lower()
        if lowered == b"host":
            authority = value
        elif lowered not in NOT_SENT:
            regular.append((lowered, value.strip(b" \t")))
    return [
        (b":method", request.method),
        (b":scheme", request.origin.scheme.encode()),
        (b":authority", authority),
        (b":path", request.target),
        *regular,
    ]


def read_fields(fields: Headers) -> tuple[int, Headers]:
    """Status and headers. Raises ProtocolError for a malformed head: an error of this one stream."""
    if not fields:
        raise ProtocolError("an empty head")
    (first, status), *headers = fields
    if first != b":status" or not STATUS.fullmatch(status):
        raise ProtocolError(f"a head that begins with {first!r}: {status[:20]!r}")
    for name, value in headers:
        if not LOWERCASE_TOKEN.fullmatch(name) or name in HOP_BY_HOP:
            raise ProtocolError(f"a header with the name {name[:100]!r}")
        if UNSAFE.search(value):
            raise ProtocolError(f"a line break or NUL in the header {name!r}")
    return int(status), headers


def promised_length(request: Request, status: int, headers: Headers) -> int | None:
    """The bytes of body that the head promises, where it does. h2 has seen to it that it is a number."""
    if request.method == b"HEAD" or status in WITHOUT_BODY:
        return None
    return next((int(value) for name, value in headers if name == b"content-length"), None)
