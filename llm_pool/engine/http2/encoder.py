"""Compresses the heads of requests (HPACK, RFC 7541) with a table of bounded size."""

from __future__ import annotations

from typing import Any

from hpack import Encoder
from hpack.hpack import INDEX_NEVER

__all__ = ["HeadEncoder"]

MAX_NEVER_INDEXED = 32  # headers
MAX_TABLE = 4096  # bytes; hpack searches the whole table for each header


class HeadEncoder(Encoder):
    """An encoder whose table has at most ``MAX_TABLE`` bytes, even if the server allows more.

    The next head begins with the smallest size since the last head, and the present size, if the size has
    changed (RFC 7541, section 4.2). hpack itself would announce each change.
    """

    def __init__(self) -> None:
        super().__init__()
        self._never_indexed: dict[tuple[bytes, bytes], bytes] = {}  # the last encoded ones

    @property
    def header_table_size(self) -> int:
        """The maximum size of the table in bytes."""
        return self.header_table.maxsize

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        size, changes = min(value, MAX_TABLE), self.table_size_changes
        if size != self.header_table.maxsize:  # setting the same size would cancel the announcement
            self.header_table.maxsize = size
            self.table_size_changes = list(dict.fromkeys((min([size, *changes[:1]]), size)))

    def encode(self, headers: Any, huffman: bool = True) -> bytes:
        """Encode a head: an iterable of (name, value). A ``NeverIndexedHeaderTuple`` enters no table.

        hpack's own method logs each head, keys included, and applies Huffman coding to keys byte by byte, in
        Python.
        """
        block = []
        if self.header_table.resized:
            block.append(self._encode_table_size_change())
            self.header_table.resized = False
        for header in headers:
            if getattr(header, "indexable", True):
                block.append(self.add(header, False, huffman))
            else:
                block.append(self._encode_never_indexed(header))
        return b"".join(block)

    def _encode_never_indexed(self, header: tuple[bytes, bytes]) -> bytes:
        encoded = self._never_indexed.get(header)
        if encoded is None:
            if len(self._never_indexed) >= MAX_NEVER_INDEXED:
                self._never_indexed.clear()
            encoded = self._encode_literal(*header, INDEX_NEVER)
            self._never_indexed[header] = encoded
        return encoded
