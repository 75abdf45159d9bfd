"""Compresses the heads of requests (HPACK, RFC 7541) with a table of bounded size."""

from __future__ import annotations

from hpack import Encoder

__all__ = ["HeadEncoder"]

MAX_TABLE = 4096  # bytes; hpack searches the whole table for each header


class HeadEncoder(Encoder):
    """An encoder whose table has at most ``MAX_TABLE`` bytes, even if the server allows more.

    The next head begins with the smallest size since the last head, and the present size, if the size has
    changed (RFC 7541, section 4.2). hpack itself would announce each change.
    """

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

    def add(self, to_add: tuple[bytes, bytes], sensitive: bool, huffman: bool = False) -> bytes:
        """Encode a header as hpack does, but without Huffman coding if it is ``sensitive``.

        hpack applies Huffman coding byte by byte, in Python. That is too slow for a key in each request.
        """
        return super().add(to_add, sensitive, huffman and not sensitive)
