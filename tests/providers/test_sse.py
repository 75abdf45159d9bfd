"""Scenario 38: the whole event-stream format of the WHATWG, with the bytes split at any place."""

from __future__ import annotations

import time
from itertools import pairwise

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_pool.exceptions import EventTooLarge
from llm_pool.providers.sse import Event, EventParser


def reference(stream: bytes) -> list[Event]:
    """Parse the whole stream at once, by the steps of the standard."""
    text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    events, data, kind, last_id, retry = [], "", "", "", None
    for line in lines[:-1]:  # the rest after the last line end is not a line yet
        if line == "":
            if data != "":
                events.append(Event(data.removesuffix("\n"), kind or "message", last_id, retry))
            data, kind = "", ""
            continue
        if line.startswith(":"):
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            data += value + "\n"
        elif name == "id" and "\0" not in value:
            last_id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            retry = int(value[:18])
    return events


def parse(stream: bytes, *cuts: int) -> list[Event]:
    parser = EventParser()
    events = []
    edges = [0, *sorted(cuts), len(stream)]
    for start, stop in pairwise(edges):
        events += parser.feed(stream[start:stop])
    return events


LINES = st.sampled_from(
    [
        b"data: hello",
        b"data:hello",
        b"data",
        b"data:",
        b"data:  two spaces",
        b'data: {"a": "\xe2\x80\xa8 \xc2\x85 \x0b\x0c\x1c"}',
        b"data: \xf0\x9f\x98\x80 \xe2\x82",
        b": a comment",
        b":",
        b"id: 7",
        b"id",
        b"id: a\0b",
        b"event: delta",
        b"event",
        b"retry: 3000",
        b"retry: 3s",
        b"retry: \xd9\xa3",
        b"unknown: field",
        b" data: indented",
        b"\xef\xbb\xbfdata: not at the beginning",
        b"",
        b"",
        b"",
    ]
)
STREAMS = st.builds(
    lambda bom, lines, rest: bom + b"".join(line + end for line, end in lines) + rest,
    st.sampled_from([b"", b"\xef\xbb\xbf", b"\xef\xbb"]),
    st.lists(st.tuples(LINES, st.sampled_from([b"\n", b"\n", b"\r", b"\r\n"])), max_size=20),
    st.sampled_from([b"", b"data: cut off", b"\r"]),
)
EXAMPLE = (
    '\ufeff: hi\r\nid: 1\rdata: {"t": "é\u2028😀"}\n\r\n\r\ndata: a\ndata\r\n\r\revent: x\ndata: b\n\n'
    "data: c\r\ndata: d\r\n\r\n"
).encode()


@given(STREAMS, st.lists(st.integers(0, 400), max_size=12))
def test_any_splitting_gives_the_events_of_the_standard(stream: bytes, cuts: list[int]) -> None:
    assert parse(stream, *(min(cut, len(stream)) for cut in cuts)) == reference(stream)
    assert parse(stream, *range(len(stream))) == reference(stream)


@given(st.binary(max_size=60), st.integers(0, 60))
def test_any_bytes_give_the_events_of_the_standard(stream: bytes, cut: int) -> None:
    assert parse(stream, min(cut, len(stream))) == reference(stream)


def test_the_example_split_at_each_byte_and_into_single_bytes() -> None:
    events = reference(EXAMPLE)
    assert [event.data for event in events] == ['{"t": "é\u2028😀"}', "a\n", "b", "c\nd"]
    assert parse(EXAMPLE, *range(len(EXAMPLE))) == events
    for cut in range(len(EXAMPLE)):
        assert parse(EXAMPLE, cut) == events


def test_several_complete_events_in_each_of_several_pieces() -> None:
    parser = EventParser()
    for _ in range(3):
        assert [e.data for e in parser.feed(b"data: a\n\ndata: b\n\nevent: x\ndata: c\n\n\n\n")] == [
            "a",
            "b",
            "c",
        ]
        assert parser.end(lenient=True) == []


@pytest.mark.parametrize(
    "piece",
    [
        b"event: x\ndata: b\n\ndata: c\n\n",
        b"event: \ndata: b\n\n",
        b"event: \xc3\xa9\xff\ndata: \xc3\xa9\xff\n\n",
        b"event: x\n\ndata: b\n\n",
        b"event: x\nevent: y\ndata: b\n\n",
        b"event: x\nid: 7\ndata: b\n\ndata: c\n\n",
        b"event: x\ndata: b\ndata: c\n\n",
        b"data: b\nevent: x\n\ndata: c\n\n",
        b"event:x\ndata:b\n\n",
        b"\nevent: x\ndata: b\n\n",
        b": x\ndata: b\n\n: y\n\n",
        b"event: unframed\ndata: b\n\n",
        b"data: b\rdata: c\n\n",
        b"event: x\r\ndata: b\r\n\r\ndata: c\n\n",
    ],
)
def test_a_piece_of_whole_events_gives_what_the_standard_says(piece: bytes) -> None:
    parser = EventParser()
    assert EventParser().feed(piece) == reference(piece)
    assert parser.feed(b"data: a\n\n") + parser.feed(piece) == reference(b"data: a\n\n" + piece)


def test_id_and_retry_without_data_make_no_event_and_hold_for_later_events() -> None:
    assert parse(b"id: 5\n\nretry: 250\n\ndata: x\n\ndata: y\n\n") == [
        Event("x", "message", "5", 250),
        Event("y", "message", "5", 250),
    ]


def test_an_event_type_without_data_is_dropped() -> None:
    assert parse(b"event: lost\n\ndata: x\n\n") == [Event("x")]


def test_an_incomplete_event_is_dropped_at_the_end() -> None:
    parser = EventParser()
    assert parser.feed(b"data: a\n\ndata: b\n") == [Event("a")]
    assert parser.end() == []
    assert parser.end(lenient=True) == []


@pytest.mark.parametrize("rest", [b"data: b", b"data: b\n", b"data: b\r\n", b"data: b\r"])
def test_a_lenient_end_returns_the_incomplete_event(rest: bytes) -> None:
    parser = EventParser()
    parser.feed(b"data: a\n\n")
    parser.feed(rest)
    assert parser.end(lenient=True) == [Event("b")]
    assert parser.end(lenient=True) == []


def test_ten_megabytes_in_small_pieces_take_linear_time() -> None:
    piece = b"x" * 1000
    parser = EventParser()
    parser.feed(b"data: ")
    started = time.process_time()
    for _ in range(10_000):
        assert parser.feed(piece) == []
    [event] = parser.feed(b"\n\n")
    assert len(event.data) == 10_000_000
    assert time.process_time() - started < 2  # quadratic time would take minutes


@pytest.mark.parametrize(
    "endless", [b"data: " + b"x" * 60, b"data: x\n" * 40, b"data\n" * 200, b": " + b"x" * 200, b"x" * 200]
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_an_event_without_end_is_refused_at_the_limit(endless: bytes, size: int) -> None:
    parser = EventParser(max_event_size=50)
    with pytest.raises(EventTooLarge, match="larger than 50 bytes") as caught:  # noqa: PT012
        for start in range(0, len(endless), size):
            parser.feed(endless[start : start + size])
    assert isinstance(caught.value, httpx.RemoteProtocolError)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_limit_is_on_one_event_and_not_on_the_stream(size: int) -> None:
    stream = (b"data: " + b"x" * 30 + b"\n\n") * 20
    parser = EventParser(max_event_size=50)
    events = [
        event for start in range(0, len(stream), size) for event in parser.feed(stream[start : start + size])
    ]
    assert [event.data for event in events] == ["x" * 30] * 20


def test_a_complete_event_larger_than_the_limit_is_refused() -> None:
    parser = EventParser(max_event_size=50)
    parser.feed(b"data: a\n\n")
    with pytest.raises(EventTooLarge):
        parser.feed(b"data: " + b"x" * 100 + b"\n\n")
