"""For any field blocks from a server, the decoder gives the result of hpack's decoder.

``LLM_POOL_EXAMPLES`` sets how many examples are tried (default: 200).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpack import Decoder, Encoder, HPACKError
from hpack.exceptions import OversizedHeaderListError
from hypothesis import example, given
from hypothesis import strategies as st

from llm_pool.engine.http2.block_decoder import MAX_HEADER_LIST, BlockDecoder
from llm_pool.engine.http2.frames import BrokenRule, ErrorCode
from tests.fuzz.test_response_bytes import fuzzed

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = st.sampled_from([b":status", b"date", b"x", b"content-type", b"x-request-id"]) | st.binary(
    max_size=40
)
VALUES = st.sampled_from([b"", b"200", b"application/json"]) | st.binary(max_size=200)
LARGE = st.integers(1000, 5000).map(bytes)  # beyond the table, and many of them beyond the limit of a head
SIZES = st.sampled_from([0, 31, 60, 200, 4096])
ODD = st.lists(
    st.sampled_from([0, 0x0F, 0x10, 0x1F, 0x20, 0x3E, 0x3F, 0x40, 0x7F, 0x80, 0x82, 0xBE, 0xFF]), max_size=8
)


@st.composite
def blocks(draw: st.DrawFn) -> list[bytes]:
    """Blocks of one encoder, some of them changed, cut, or made of odd bytes."""
    encoder, drawn = Encoder(), []
    for _ in range(draw(st.integers(1, 6))):
        if draw(st.integers(0, 9)) == 0:
            encoder.header_table_size = draw(SIZES)
        fields = draw(st.lists(st.tuples(NAMES, VALUES), max_size=10))
        if draw(st.integers(0, 9)) == 0:
            fields += [(b"large", draw(LARGE))] * draw(st.integers(1, 40))
        block = bytearray(encoder.encode(fields, huffman=draw(st.booleans())))
        at = draw(st.integers(0, len(block)))
        match draw(st.sampled_from(["whole", "whole", "whole", "flip", "cut", "insert"])):
            case "flip" if at < len(block):
                block[at] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del block[at:]
            case "insert":
                block[at:at] = bytes(draw(ODD))
        drawn.append(bytes(block))
    return drawn


def outcome(decode: Callable[[bytes], list[tuple[bytes, bytes]]], block: bytes) -> object:
    """The fields, or why they are refused."""
    try:
        return decode(block)
    except BrokenRule as error:
        return error.code
    except OversizedHeaderListError:
        return ErrorCode.ENHANCE_YOUR_CALM
    except HPACKError:
        return ErrorCode.COMPRESSION_ERROR


HALF = b"\x01x\x7f\xb5\x0f" + bytes(2100)
"""The literal "x" with a value of 2,100 bytes: two of them do not fit in the table."""


@fuzzed
@example([b"\x40\x01x\x01y", b"\xbe", b"\x20\xbe"])
@example([b"\x40" + HALF, b"\xbe\x40" + HALF, b"\xbe", b"\xbf"])
@given(blocks() | st.lists(st.binary(max_size=30), max_size=3))
def test_the_decoder_is_equal_to_hpacks(sent: list[bytes]) -> None:
    """Scenarios 40, 59: fields, tables, sizes of tables, Huffman codes, integers; truncated ones too."""
    decoder, oracle = BlockDecoder(), Decoder(MAX_HEADER_LIST)
    for block in sent:
        expected = outcome(lambda data: oracle.decode(data, raw=True), block)  # type: ignore[arg-type, return-value]
        assert outcome(decoder.decode, block) == expected
        if isinstance(expected, ErrorCode):
            break  # the connection ends
