"""Rewrites a response head that breaks RFC 9112 in a way that other clients accept."""

from __future__ import annotations

import re

from llm_pool.exceptions import ProtocolError

from ..head import TOKEN, Headers

__all__ = ["head_length", "is_response", "rewrite_head"]

BLANKS = b" \t"
START = re.compile(rb"[\r\n]*HTTP/[0-9]\.[0-9](?![^ ])")
EMPTY_LINE = re.compile(rb"\n\r?\n")
NEWER_VERSION = re.compile(rb"HTTP/1\.[2-9](?= )")


def is_response(data: bytes) -> bool:
    """Return whether ``data`` begins like a response of HTTP, complete or not."""
    return START.match(data) is not None


def head_length(data: bytes) -> int:
    """Return the length of the head at the start of ``data``, with its empty line; 0 if it is incomplete."""
    end = EMPTY_LINE.search(data)
    return 0 if end is None else end.end()


def rewrite_head(head: bytes) -> bytes:
    """Return a head of the same meaning that is valid, except that values can contain control characters.

    Accepts what at least two of httpx, requests and aiohttp accept, if they understand the same:

    - lines that end with LF alone (RFC 9112, section 2.2)
    - folded headers: the parts are joined by a blank (RFC 9112, section 5.2)
    - several Content-Lengths with one value, and a Content-Length beside chunked, which then does not count
      (RFC 9112, section 6.3)
    - a minor version above 1, which means 1.1 (RFC 9110, section 6.2)

    The status line and the framing are left to the parser. Raises ProtocolError for a line that is no header,
    or for a NUL or a CR alone.
    """
    head = head.replace(b"\r\n", b"\n").strip(b"\n")
    if b"\r" in head or b"\0" in head:
        raise ProtocolError("a CR without LF, or a NUL, in its head")
    status_line, *lines = head.split(b"\n")
    fields: Headers = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if line[:1] in BLANKS and fields:
            name, value = fields.pop()
            fields.append((name, b"%b %b" % (value, line.strip(BLANKS))))
        elif colon and TOKEN.fullmatch(name):
            fields.append((name, value.strip(BLANKS)))
        else:
            raise ProtocolError(f"a line that is no header: {name[:50]!r}")
    fields = _without_redundant_lengths(fields)
    status_line = NEWER_VERSION.sub(b"HTTP/1.1", status_line)
    return b"".join([status_line, b"\r\n", *[b"%b: %b\r\n" % field for field in fields], b"\r\n"])


def _without_redundant_lengths(fields: Headers) -> Headers:
    """Return ``fields`` with the first of equal Content-Lengths, or without any if the body is chunked."""
    lengths = [field for field in fields if field[0].lower() == b"content-length"]
    is_chunked = any(
        name.lower() == b"transfer-encoding" and value.lower() == b"chunked" for name, value in fields
    )
    if not is_chunked and len({value for _, value in lengths}) > 1:
        raise ProtocolError("several Content-Lengths that differ")
    kept = [] if is_chunked else lengths[:1]
    others = [field for field in fields if field[0].lower() != b"content-length"]
    return [*others, *kept]
