"""Decodes field blocks: the heads of HTTP/2 responses (HPACK, RFC 7541).

hpack's own decoder takes ten times as long. Only its static table and its Huffman decoder are used.
"""

from __future__ import annotations

from functools import lru_cache

from hpack.exceptions import HPACKDecodingError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from ..head import Headers
from .frames import BrokenRule, ErrorCode

__all__ = ["MAX_HEADER_LIST", "TABLE_SIZE", "BlockDecoder"]

MAX_HEADER_LIST = 64 * 1024  # bytes of a decoded head, counted as in RFC 9113, section 6.5.2
TABLE_SIZE = 4096  # bytes of the table; the default (RFC 9113, section 6.5.2)
ENTRY_OVERHEAD = 32  # bytes that each field counts besides name and value (RFC 7541, section 4.1)
MAX_SHIFT = 28  # bits: an integer has at most five bytes after its prefix
CACHED_STRING = 128  # bytes of a compressed string that is kept with its plain text: names, many values

STATIC_TABLE = HeaderTable.STATIC_TABLE
FIRST_DYNAMIC = len(STATIC_TABLE) + 1

_decode_short = lru_cache(maxsize=1024)(decode_huffman)


class BlockDecoder:
    """Decodes the field blocks of one connection, in their order: they depend on earlier ones."""

    def __init__(self) -> None:
        self._table: Headers = []  # the dynamic table, oldest entry first
        self._size = 0  # of its entries, in bytes
        self._max_size = TABLE_SIZE

    def decode(self, block: bytes) -> Headers:
        """Return the fields of a block.

        Raises BrokenRule for a block that is invalid, or has more than ``MAX_HEADER_LIST`` bytes. The
        connection must end then: the table may differ from the server's.
        """
        try:
            return self._decode(block)
        except (HPACKDecodingError, IndexError):
            raise BrokenRule(ErrorCode.COMPRESSION_ERROR, "a head that is no valid HPACK") from None

    def _decode(self, block: bytes) -> Headers:
        fields: Headers = []
        at, end, size = 0, len(block), 0
        while at < end:
            first = block[at]
            if first >= 0x80:  # a field of the tables (RFC 7541, section 6.1)
                index, at = _integer(block, at, 0x7F)
                name, value = field = self._entry(index)
            elif 0x20 <= first < 0x40:  # (section 6.3)
                if fields:
                    raise HPACKDecodingError("a size of the table after a field (section 4.2)")
                index, at = _integer(block, at, 0x1F)
                self._resize(index)
                continue
            else:  # a literal, with or without an entry in the table (section 6.2)
                index, at = _integer(block, at, 0x3F if first >= 0x40 else 0x0F)
                if index:
                    name = self._entry(index)[0]
                else:
                    name, at = _string(block, at)
                value, at = _string(block, at)
                field = (name, value)
                if first >= 0x40:
                    self._add(field)
            fields.append(field)
            size += len(name) + len(value) + ENTRY_OVERHEAD
            if size > MAX_HEADER_LIST:
                text = f"a head of more than {MAX_HEADER_LIST} bytes"
                raise BrokenRule(ErrorCode.ENHANCE_YOUR_CALM, text)
        return fields

    def _entry(self, index: int) -> tuple[bytes, bytes]:
        """Return an entry of the static or the dynamic table (RFC 7541, section 2.3.3)."""
        if index >= FIRST_DYNAMIC:
            place = len(self._table) + FIRST_DYNAMIC - 1 - index  # the newest entry has the lowest index
            if place >= 0:
                return self._table[place]
        elif index > 0:
            return STATIC_TABLE[index - 1]
        raise HPACKDecodingError("an index without an entry")

    def _add(self, field: tuple[bytes, bytes]) -> None:
        self._table.append(field)
        self._size += _size(field)
        self._evict()

    def _resize(self, size: int) -> None:
        if size > TABLE_SIZE:
            raise HPACKDecodingError("a table larger than the settings allow")
        self._max_size = size
        self._evict()

    def _evict(self) -> None:
        """Remove the oldest entries until the others fit (RFC 7541, section 4.4)."""
        count = 0
        while self._size > self._max_size:
            self._size -= _size(self._table[count])
            count += 1
        if count:
            del self._table[:count]


def _size(field: tuple[bytes, bytes]) -> int:
    return len(field[0]) + len(field[1]) + ENTRY_OVERHEAD


def _integer(block: bytes, at: int, prefix: int) -> tuple[int, int]:
    """Return the integer at ``at``, and where it ends (RFC 7541, section 5.1).

    ``prefix``: the bits of the first byte that belong to it. Raises IndexError if the block is too short.
    """
    number = block[at] & prefix
    at += 1
    if number < prefix:
        return number, at
    for shift in range(0, MAX_SHIFT + 1, 7):
        byte = block[at]
        at += 1
        number += (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise HPACKDecodingError("an integer that is too long")


def _string(block: bytes, at: int) -> tuple[bytes, int]:
    """Return the string at ``at``, and where it ends (RFC 7541, section 5.2)."""
    compressed = block[at] >= 0x80
    size, at = _integer(block, at, 0x7F)
    end = at + size
    if end > len(block):
        raise HPACKDecodingError("a string that is longer than its block")
    data = block[at:end]
    if compressed:
        data = _decode_short(data) if size <= CACHED_STRING else decode_huffman(data)
    return data, end
