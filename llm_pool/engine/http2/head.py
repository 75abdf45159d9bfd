"""Encodes the head of a request for HTTP/2, and reads the head of a response (RFC 9113, section 8)."""

from __future__ import annotations

import re

from llm_pool.exceptions import ProtocolError

from ..head import TOKEN, UNSAFE, Headers, RequestHead
from ..request import Request
from .block_encoder import encode_fields, encode_length

__all__ = ["check_trailers", "content_length", "encode_head", "read_headers", "read_status"]

STATUS = re.compile(rb"1(?!01)[0-9]{2}|[2-9][0-9]{2}")  # no 101: HTTP/2 has no upgrades (section 8.6)
LENGTH = re.compile(rb"[0-9]{1,18}")
NOT_SENT = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"upgrade"}
)
WITHOUT_BODY = (204, 304)


def encode_head(request: Request) -> bytes:
    """Return the head of a request as a field block."""
    head = request.head
    if head.block is None:
        head.block = encode_fields(_fields(head))
    if request.body and head.length is None:
        return head.block + encode_length(len(request.body))
    return head.block


def _fields(head: RequestHead) -> Headers:
    """Return the fields of a head: first the pseudo-header fields, then the headers.

    The header ``Host`` becomes ``:authority`` (RFC 9113, section 8.3.1). ``TE`` and the headers that HTTP/2
    forbids (RFC 9113, section 8.2.2) are left out.
    """
    authority = b""
    regular = []
    for name, value in head.headers:
        lowered = name.lower()
        if lowered == b"host":
            authority = value
        elif lowered not in NOT_SENT:
            regular.append((lowered, value.strip(b" \t")))
    scheme = head.origin.scheme.encode()
    pseudo = [
        (b":method", head.method),
        (b":scheme", scheme),
        (b":authority", authority),
        (b":path", head.target),
    ]
    return pseudo + regular


def read_status(fields: Headers) -> int:
    """Return the status of a response, interim responses included. Raises ProtocolError if it has none."""
    first, status = fields[0] if fields else (b"nothing", b"")
    if first != b":status" or not STATUS.fullmatch(status):
        raise ProtocolError(f"a head that begins with {first[:100]!r}: {status[:20]!r}")
    return int(status)


def read_headers(fields: Headers) -> Headers:
    """Return the headers of a response.

    Accepts names in upper case, connection-specific headers and blanks around values, which RFC 9113, section
    8.2, forbids: servers send them, and other clients accept them. Raises ProtocolError if a header is
    malformed in another way. The caller then fails the stream, not the connection.
    """
    headers = [(name, value.strip(b" \t")) for name, value in fields[1:]]
    # Each looks at all headers at once: a name is valid if each of its bytes is, and it is not empty.
    names = [name for name, _ in headers]
    if names and not (all(names) and TOKEN.fullmatch(b"".join(names))):
        bad = next(name for name in names if not TOKEN.fullmatch(name))
        raise ProtocolError(f"a header with the name {bad[:100]!r}")
    if UNSAFE.search(b"".join([value for _, value in headers])):
        bad = next(name for name, value in headers if UNSAFE.search(value))
        raise ProtocolError(f"a line break or NUL in the header {bad!r}")
    return headers


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
