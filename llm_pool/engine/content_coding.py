"""Decodes compressed bodies of responses (RFC 9110, section 8.4), in steps of bounded size."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from typing import Protocol

from .head import Headers

__all__ = ["BodyError", "ContentDecoder", "begin_decoding", "content_coding", "describe_coding"]

MAX_STEP = 128 * 1024  # bytes that ``read`` returns; brotli can exceed them by half
MAX_INPUT = 16 * 1024  # bytes that are decompressed at a time; what follows a short member is copied
MAX_WINDOW = 23  # zstd's window, as a binary logarithm: 8 MiB (RFC 9659, section 3)
MAGIC = {"gzip": b"\x1f\x8b", "x-gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd"}
DESCRIBING = (b"content-encoding", b"content-length")  # headers of a body as it was before decoding
EXTRA = {"br", "zstd"}  # need the extra "compression"

# Values of Content-Encoding for bodies that are not compressed. Servers write their charset into it, MIME's
# Content-Transfer-Encoding, or the form in which a storage received the body.
NOT_CODINGS = frozenset(
    {"", "identity", "none", "utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "7bit", "8bit", "binary"}
    | {"aws-chunked", "amz-1.0"}
)


def content_coding(headers: Headers) -> str:
    """Return the content coding of a body in lower case, or "" if the body is not compressed.

    Several codings are joined by ", ". The one that was applied first is the first.
    """
    for name, _ in headers:
        if len(name) == 16 and name.lower() == b"content-encoding":
            return _content_coding(headers)
    return ""


def _content_coding(headers: Headers) -> str:
    values = [value for name, value in headers if name.lower() == b"content-encoding"]
    codings = [coding.strip() for coding in b",".join(values).decode("latin-1").lower().split(",")]
    return ", ".join(coding for coding in codings if coding not in NOT_CODINGS)


def describe_coding(coding: str) -> str:
    """Return a phrase for a body whose ``coding`` has no decoder, with advice."""
    if coding in EXTRA:
        return f"a body compressed by {coding!r}; to read such bodies, install django-llm-pool[compression]"
    return f"a body compressed by {coding[:100]!r}, which this package does not decode"


class BodyError(Exception):
    """A body cannot be decoded. The message is a phrase that says what was received."""


class ContentDecoder:
    """Decodes one body. Call ``feed`` with a piece, then ``read`` until it returns b"", and ``end`` at last.

    ``coding``  a content coding
    ``make``    returns a new decompressor, and the error that it raises for invalid data
    """

    def __init__(self, coding: str, make: MakeDecompressor) -> None:
        self._coding = coding
        self._make = make
        self._decompressor, self._error = make()
        self._input = b""
        self._position = 0  # in ``_input``: how much the decompressor has taken
        self._has_more = False  # whether the decompressor can return more without input
        self._is_empty = True

    def feed(self, data: bytes) -> None:
        """Add the next piece of the body as it arrived."""
        self._is_empty = False
        self._input = self._input[self._position :] + data
        self._position = 0

    def read(self, limit: int = MAX_STEP) -> bytes:
        """Return the next decoded bytes, at most ``limit``. Return b"" if more input is needed.

        Ignores data after the end of the compressed body. Raises BodyError if the body is not valid.
        """
        while not self._decompressor.eof or self._begin_member():
            start = self._position
            piece = b"" if self._has_more else self._input[start : start + MAX_INPUT]
            try:
                decoded = self._decompressor.decompress(piece, limit)
            except self._error as error:
                raise BodyError(f"a body that is not valid {self._coding}: {error}") from None
            self._position += len(piece) - len(self._decompressor.unused_data)
            self._has_more = len(decoded) >= limit
            if decoded or (self._position == len(self._input) and not self._decompressor.eof):
                return decoded
        return b""

    def end(self) -> None:
        """Raise BodyError if the compressed body is not complete. A body without any byte is complete."""
        if not self._decompressor.eof and not self._is_empty:
            raise BodyError(f"a body that was cut short: its {self._coding} data has no end")

    def _begin_member(self) -> bool:
        """Begin the next member, and return True, if the rest of the input begins with one.

        A gzip body can have several members, a zstd body several frames (RFC 1952, section 2.2; RFC 8878,
        section 3.1).
        """
        magic = MAGIC.get(self._coding, b"")
        start = self._input[self._position : self._position + len(magic)]
        if not start or start != magic:
            if not magic.startswith(start) or not magic:
                self._position = len(self._input)
            return False
        self._has_more = False
        self._decompressor, self._error = self._make()
        return True


def begin_decoding(coding: str, headers: Headers) -> tuple[ContentDecoder | None, str, Headers]:
    """Return a decoder for ``coding``, "", and ``headers`` without those that describe the compressed body.

    If ``coding`` is not supported, or its package is not installed, return None, ``coding`` and ``headers``.
    """
    make = MAKERS.get(coding)
    try:
        decoder = None if make is None else ContentDecoder(coding, make)
    except ImportError:
        decoder = None
    if decoder is None:
        return None, coding, headers
    return decoder, "", [field for field in headers if field[0].lower() not in DESCRIBING]


class Decompressor(Protocol):
    """The common interface of Python's decompressors (``bz2``, ``compression.zstd``).

    After ``decompress`` has returned b"" or the end was reached, it accepts more data.
    """

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


MakeDecompressor = Callable[[], tuple[Decompressor, type[Exception]]]


class _Inflater:
    """A ``Decompressor`` for zlib's formats. ``wbits`` is that of ``zlib.decompressobj``."""

    unused_data = b""

    def __init__(self, wbits: int) -> None:
        self._object = zlib.decompressobj(wbits)

    @property
    def eof(self) -> bool:
        return self._object.eof

    def decompress(self, data: bytes, max_length: int) -> bytes:
        decoded = self._object.decompress(self._object.unconsumed_tail + data, max_length)
        self.unused_data = self._object.unused_data
        return decoded


class _Deflater:
    """A ``Decompressor`` for the coding deflate: zlib's format, or raw deflate data, which some servers send.

    RFC 9110, section 8.4.1.2, mentions both.
    """

    unused_data = b""  # ignored, as after the end of every body of one member

    def __init__(self) -> None:
        self._inflater: _Inflater | None = None
        self._start = b""

    @property
    def eof(self) -> bool:
        return self._inflater is not None and self._inflater.eof

    def decompress(self, data: bytes, max_length: int) -> bytes:
        if self._inflater is None:
            data = self._start = self._start + data
            if len(data) < 2:
                return b""
            has_header = data[0] & 15 == 8 and int.from_bytes(data[:2], "big") % 31 == 0  # RFC 1950
            self._inflater = _Inflater(zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)
        return self._inflater.decompress(data, max_length)


class _Brotli:
    """A ``Decompressor`` for brotli (RFC 7932)."""

    unused_data = b""

    def __init__(self, decompressor: BrotliDecompressor) -> None:
        self._decompressor = decompressor

    @property
    def eof(self) -> bool:
        return self._decompressor.is_finished()

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._decompressor.process(data, output_buffer_limit=max_length)


class BrotliDecompressor(Protocol):
    """What ``_Brotli`` uses of ``brotli.Decompressor``."""

    def is_finished(self) -> bool: ...
    def process(self, data: bytes, *, output_buffer_limit: int) -> bytes: ...


def _make_brotli() -> tuple[Decompressor, type[Exception]]:
    import brotli  # noqa: PLC0415  it may not be installed

    if not hasattr(brotli.Decompressor, "can_accept_more_data"):
        raise ImportError("before 1.2, brotli cannot limit its output")
    return _Brotli(brotli.Decompressor()), brotli.error


def _make_zstd() -> tuple[Decompressor, type[Exception]]:
    if sys.version_info >= (3, 14):
        from compression import zstd  # noqa: PLC0415  it may not be installed
    else:
        from backports import zstd  # noqa: PLC0415

    options = {int(zstd.DecompressionParameter.window_log_max): MAX_WINDOW}
    return zstd.ZstdDecompressor(options=options), zstd.ZstdError


MAKERS: dict[str, MakeDecompressor] = {
    "gzip": lambda: (_Inflater(zlib.MAX_WBITS | 16), zlib.error),
    "x-gzip": lambda: (_Inflater(zlib.MAX_WBITS | 16), zlib.error),
    "deflate": lambda: (_Deflater(), zlib.error),
    "br": _make_brotli,
    "zstd": _make_zstd,
}
