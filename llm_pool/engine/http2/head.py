"""Encodes the head of a request as HTTP/2 fields, and reads the head of a response (RFC 9113, section 8)."""

from __future__ import annotations

import re

from hpack import NeverIndexedHeaderTuple

from llm_pool.exceptions import ProtocolError

from ..head import LOWERCASE_TOKEN, UNSAFE
from ..request import Headers, Request

__all__ = ["content_length", "encode_fields", "read_fields"]

STATUS = re.compile(rb"[2-9][0-9]{2}")  # h2 reports interim responses (1xx) as another event
HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
NOT_SENT = HOP_BY_HOP | {b"te"}
WITHOUT_BODY = (204, 304)
INDEXED = frozenset({b"accept", b"accept-encoding", b"content-type", b"user-agent"})  # never contain a key


def encode_fields(request: Request) -> Headers:
    """Return the head of a request as HTTP/2 fields: first the pseudo-header fields, then the headers.

    The header ``Host`` becomes ``:authority`` (RFC 9113, section 8.3.1). ``TE`` and the headers that HTTP/2
    forbids (RFC 9113, section 8.2.2) are left out.

    Every field that can contain a key is marked as never indexed (RFC 7541, section 7.1.3): all but the
    pseudo-header fields, a path with a query excepted, and ``INDEXED``. A list of the headers that contain
    keys would be incomplete, because gateways and users have names of their own.
    """
    authority = b""
    regular = []
    for name, value in request.headers:
        lowered = name.lower()
        if lowered == b"host":
            authority = value
        elif lowered not in NOT_SENT:
            field = (lowered, value.strip(b" \t"))
            regular.append(field if lowered in INDEXED else NeverIndexedHeaderTuple(*field))
    path = (b":path", request.target)
    return [
        (b":method", request.method),
        (b":scheme", request.origin.scheme.encode()),
        (b":authority", authority),
        NeverIndexedHeaderTuple(*path) if b"?" in request.target else path,
        *regular,
    ]


def read_fields(fields: Headers) -> tuple[int, Headers]:
    """Return the status and the headers of a response.

    Raises ProtocolError if the head is malformed. The caller then fails the stream, not the connection.
    """
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


def content_length(request: Request, status: int, headers: Headers) -> int | None:
    """Return the Content-Length of a response. h2 has checked that it is a number.

    Returns None if the response has no such header, or can have no body.
    """
    if request.method == b"HEAD" or status in WITHOUT_BODY:
        return None
    return next((int(value) for name, value in headers if name == b"content-length"), None)
