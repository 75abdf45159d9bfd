"""The decoder of compressed bodies: any pieces, any limit, what follows the end."""

from __future__ import annotations

import gzip
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_pool.engine.content_coding import (
    MAX_INPUT,
    BodyError,
    ContentDecoder,
    begin_decoding,
    content_coding,
)
from tests.fixtures.compression import COMPRESS

TEXT = b"".join(b"%d, " % number for number in range(20_000))


def decoder_for(name):
    decoder, coding, _ = begin_decoding(name.partition(":")[0], [])
    assert decoder is not None and not coding
    return decoder


def decode(name, pieces, limit=1000):
    """Return everything that a decoder makes of the pieces, and how much it returned at once."""
    decoder, decoded = decoder_for(name), []
    for piece in pieces:
        decoder.feed(piece)
        while data := decoder.read(limit):
            decoded.append(data)
    decoder.end()
    return b"".join(decoded), max(map(len, decoded), default=0)


def cut(data, sizes):
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [*pieces, data]


@pytest.mark.parametrize("name", COMPRESS)
@settings(deadline=None)
@given(sizes=st.lists(st.integers(0, 5000), max_size=20), limit=st.sampled_from([1, 7, 1000, 100_000]))
def test_a_body_is_the_same_however_it_is_cut(name, sizes, limit):
    """Scenario 40: pieces of any size, and none larger than the limit comes out (of brotli: 64 KiB)."""
    text = TEXT if limit >= 1000 else TEXT[:500]
    decoded, largest = decode(name, cut(COMPRESS[name](text), sizes), limit)
    assert decoded == text
    assert largest <= (limit if name != "br" else 2 * limit + 65536)


@pytest.mark.parametrize("name", COMPRESS)
def test_each_byte_for_itself(name):
    """Scenario 40: headers, and the first bytes of a second member, are cut too."""
    compressed = COMPRESS[name](b"hello, hello, hello")
    assert decode(name, [bytes([byte]) for byte in compressed])[0] == b"hello, hello, hello"


@pytest.mark.parametrize("name", [name for name in COMPRESS if name != "br"])
@pytest.mark.parametrize("rest", [b"\n", b"\0" * 600, b"\x1f", b"\x1fx", b"(\xb5", b"<!-- cached -->" * 5000])
@pytest.mark.parametrize("separate", [False, True])
def test_what_follows_the_end_is_ignored(name, rest, separate):
    """Scenario 40: padding, or what a gateway adds to a body; gzip(1) ignores it too."""
    compressed = COMPRESS[name](TEXT)
    pieces = [compressed, rest, rest] if separate else [compressed + rest]
    assert decode(name, pieces)[0] == TEXT


@pytest.mark.parametrize("name", COMPRESS)
def test_a_body_without_its_last_byte_is_cut_short(name):
    """Scenario 40: and a body of no bytes is complete."""
    if name == "gzip:trailing zeros":
        pytest.skip("the last byte is not part of the compressed data")
    with pytest.raises(BodyError, match="cut short"):
        decode(name, [COMPRESS[name](TEXT)[:-1]])
    assert decode(name, [])[0] == b""


@pytest.mark.parametrize("name", COMPRESS)
def test_a_long_body_with_a_part_that_expands(name):
    """Scenario 40: more input follows while the decoder still has output (brotli then accepts no input)."""
    body = bytes(2_000_000) + random.Random(1).randbytes(200_000)
    assert decode(name, [COMPRESS[name](body)], limit=50_000)[0] == body


class Repeating:
    """A ``Decompressor`` that returns each byte 100 times, and accepts no input while it can return more."""

    eof, unused_data = False, b""

    def __init__(self) -> None:
        self._rest = b""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        assert not (data and self._rest)
        decoded = self._rest + b"".join(bytes([byte]) * 100 for byte in data)
        self._rest = decoded[max_length:]
        return decoded[:max_length]


def test_a_decompressor_that_can_return_more_gets_no_input():
    """Scenario 40: some versions of brotli refuse it."""
    decoder = ContentDecoder("x", lambda: (Repeating(), ValueError))
    decoder.feed(b"ab" * MAX_INPUT)
    decoded = b"".join(iter(decoder.read, b""))
    assert decoded == (b"a" * 100 + b"b" * 100) * MAX_INPUT


def test_many_empty_members_cost_little():
    """Scenario 59: the cost grows with the bytes received, and not with their square."""
    empty = gzip.compress(b"")
    started = time.process_time()
    decoded, _ = decode("gzip", [empty * 40_000 + gzip.compress(b"end")])
    assert decoded == b"end"
    assert time.process_time() - started < 1.0


@pytest.mark.parametrize(
    ("values", "coding"),
    [
        ([], ""),
        ([b""], ""),
        ([b" Identity "], ""),
        ([b"identity", b"identity"], ""),
        ([b"UTF-8, none"], ""),
        ([b"GZIP\t"], "gzip"),
        ([b"aws-chunked,gzip"], "gzip"),
        ([b"gzip", b"br"], "gzip, br"),
        ([b"caf\xe9"], "caf\xe9"),
    ],
)
def test_the_value_of_content_encoding(values, coding):
    """Scenario 40: several headers are one list, and names are case-insensitive (RFC 9110, section 8.4.1)."""
    headers = [(b"X", b"y"), *((b"Content-encoding", value) for value in values)]
    assert content_coding(headers) == coding
