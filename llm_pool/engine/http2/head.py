"""Encodes the head of a request as HTTP/2 fields, and reads the head of a response (RFC 9113, section 8)."""

from __future__ import annotations

import re

from hpack import NeverIndexedHeaderTuple

from llm_pool.exceptions import ProtocolError

from ..head import TOKEN, UNSAFE, Headers, RequestHead
from ..request import Request

__all__ = ["check_interim", "check_trailers", "content_length", "encode_fields", "read_fields"]

STATUS = re.compile(rb"[2-9][0-9]{2}")  # h2 reports interim responses as another event
INTERIM_STATUS = re.compile(rb"1(?!01)[0-9]{2}")  # no 101: HTTP/2 has no upgrades (RFC 9113, section 8.6)
LENGTH = re.compile(rb"[0-9]{1,18}")
NOT_SENT = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"upgrade"}
)
WITHOUT_BODY = (204, 304)
INDEXED = frozenset({b"accept", b"accept-encoding", b"content-type", b"user-agent"})  # never contain a key


def encode_fields(request: Request) -> Headers:
    """Return the head of a request as HTTP/2 fields: first the pseudo-header fields, then the headers."""
    head = request.head
    if head.fields is None:
        head.fields = _encode(head)
    if request.body and head.length is None:
        return [*head.fields, NeverIndexedHeaderTuple(b"content-length", b"%d" % len(request.body))]
    return head.fields


def _encode(head: RequestHead) -> Headers:
    """Return the fields of a head.

    The header ``Host`` becomes ``:authority`` (RFC 9113, section 8.3.1). ``TE`` and the headers that HTTP/2
    forbids (RFC 9113, section 8.2.2) are left out.

    Every field that can contain a key is marked as never indexed (RFC 7541, section 7.1.3): all but the
    pseudo-header fields, a path with a query excepted, and ``INDEXED``. A list of the headers that contain
    keys would be incomplete, because gateways and users have names of their own.
    """
    authority = b""
    regular = []
    for name, value in head.headers:
        lowered = name.lower()
        if lowered == b"host":
            authority = value
        elif lowered not in NOT_SENT:
            field = (lowered, value.strip(b" \t"))
            regular.append(field if lowered in INDEXED else NeverIndexedHeaderTuple(*field))
    path = (b":path", head.target)
    return [
        (b":method", head.method),
        (b":scheme", head.origin.scheme.encode()),
        (b":authority", authority),
        NeverIndexedHeaderTuple(*path) if b"?" in head.target else path,
        *regular,
    ]


def read_fields(fields: Headers) -> tuple[int, Headers]:
    """Return the status and the headers of a response.

    Accepts names in upper case, connection-specific headers and blanks around values, which RFC 9113, section
    8.2, forbids: servers send them, and other clients accept them. Raises ProtocolError if the head is
    malformed in another way. The caller then fails the stream, not the connection.
    """
    if not fields:
        raise ProtocolError("an empty head")
    (first, status), *headers = fields
    if first != b":status" or not STATUS.fullmatch(status):
        raise ProtocolError(f"a head that begins with {first[:100]!r}: {status[:20]!r}")
    for name, value in headers:
        if not TOKEN.fullmatch(name):
            raise ProtocolError(f"a header with the name {name[:100]!r}")
        if UNSAFE.search(value):
            raise ProtocolError(f"a line break or NUL in the header {name!r}")
    return int(status), [(name, value.strip(b" \t")) for name, value in headers]


def check_interim(fields: Headers) -> None:
    """Raise ProtocolError if the head of an interim response has a status that it cannot have."""
    status = next((value for name, value in fields if name == b":status"), b"")
    if not INTERIM_STATUS.fullmatch(status):
        raise ProtocolError(f"an interim response with the status {status[:20]!r}")


def check_trailers(fields: Headers) -> None:
    """Raise ProtocolError if trailers contain a pseudo-header field (RFC 9113, section 8.1)."""
    for name, _ in fields:
        if name.startswith(b":"):
            raise ProtocolError(f"trailers with the field {name[:100]!r}")


def content_length(request: Request, status: int, headers: Headers) -> int | None:
    """Return the number of bytes that the body of a response must have; None if any number is allowed.

    0 if the response can have no body. Raises ProtocolError for a Content-Length that is no number, or for
    several that differ.
    """
    if request.head.method == b"HEAD" or status in WITHOUT_BODY:
        return 0
    lengths = {value for name, value in headers if len(name) == 14 and name.lower() == b"content-length"}
    if not lengths:
        return None
    if len(lengths) > 1 or not LENGTH.fullmatch(length := lengths.pop()):
        raise ProtocolError("a Content-Length that is no number, or several that differ")
    return int(length)
