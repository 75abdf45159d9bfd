"""Encodes field blocks: the heads of HTTP/2 requests (HPACK, RFC 7541)."""

from __future__ import annotations

from hpack.table import HeaderTable

from ..head import Headers

__all__ = ["WITHOUT_TABLE", "encode_fields", "encode_length"]

NEVER_INDEXED = 0x10  # (RFC 7541, section 6.2.3)
INDEXED = 0x80  # (RFC 7541, section 6.1)
WITHOUT_TABLE = b"\x20"  # sets the size of the encoder's table to 0 (RFC 7541, section 6.3)

_NAMES: dict[bytes, int] = {}
_FIELDS: dict[tuple[bytes, bytes], bytes] = {}
for _index, (_name, _value) in enumerate(HeaderTable.STATIC_TABLE, 1):
    _NAMES.setdefault(_name, _index)
    _FIELDS[_name, _value] = bytes([INDEXED | _index])


def encode_fields(fields: Headers) -> bytes:
    """Return a field block. It depends on no earlier block, and leaves nothing in the server's table.

    A server, or a proxy on the way, must not store any of its fields either: each is a literal that is never
    indexed (RFC 7541, section 7.1.3), unless it is in the static table. A list of the headers that contain
    keys would be incomplete, because gateways and users have names of their own. Without a table the block of
    the next call is the same again, and can be kept.
    """
    return b"".join([_FIELDS.get(field) or _literal(*field) for field in fields])


def _literal(name: bytes, value: bytes) -> bytes:
    """Return a field as a literal that is never indexed."""
    index = _NAMES.get(name, 0)
    return _integer(index, 0x0F, NEVER_INDEXED) + (b"" if index else _string(name)) + _string(value)


def _string(data: bytes) -> bytes:
    return _integer(len(data), 0x7F) + data


def _integer(number: int, prefix: int, flags: int = 0) -> bytes:
    """Return a number as bytes (RFC 7541, section 5.1). ``prefix``: its bits in the first byte."""
    if number < prefix:
        return bytes([flags | number])
    encoded = bytearray([flags | prefix])
    number -= prefix
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


_LENGTH = _literal(b"content-length", b"")[:-1]  # without the length of its value


def encode_length(size: int) -> bytes:
    """Return the field Content-Length, to add to a block."""
    digits = b"%d" % size
    return b"%b%c%b" % (_LENGTH, len(digits), digits)
