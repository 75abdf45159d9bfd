"""HTTP/2: what a server can make the client store, compute and send is bounded."""

from __future__ import annotations

import asyncio
import socket

import pytest
from h2.settings import SettingCodes
from hpack import Decoder, NeverIndexedHeaderTuple
from hyperframe import frame as frames

from llm_pool.engine.http2 import connection as connection_module
from llm_pool.engine.http2 import wire as wire_module
from llm_pool.engine.http2.encoder import MAX_NEVER_INDEXED, HeadEncoder
from llm_pool.engine.http2.head import encode_fields
from llm_pool.exceptions import ProtocolError
from testbed.behaviours import hold, per_connection
from testbed.http2 import http2, reply
from tests.fixtures.engine import request_to
from tests.fixtures.internals import never_indexed_of, run_on, sockets_of
from tests.scenarios.http2_calls import h2_pool, peer, start_call

__all__ = ["h2_pool"]

pytestmark = pytest.mark.usefixtures("each_loop")


# The table of the encoder.


def table_of(server):
    """The server's copy of the table that the client's encoder has."""
    return peer(server).h2.decoder.header_table


@pytest.mark.parametrize("announced", [65_536, 2**32 - 1])
async def test_the_encoders_table_does_not_grow_with_the_servers_setting(serve, h2_pool, announced):
    """Scenario 59: at most 4,096 bytes (RFC 7541, section 4.2), so that the cost of a head is bounded."""
    server = serve(http2(reply(), settings={SettingCodes.HEADER_TABLE_SIZE: announced}))
    pool = h2_pool()
    for number in range(100):
        await pool.fetch(request_to(server, target=f"/{number:0100}"))
    assert peer(server).acknowledged == 1
    assert table_of(server).maxsize == 4096
    assert 10 < len(table_of(server).dynamic_entries) < 40


@pytest.mark.parametrize(
    ("sizes", "announcement"),
    [
        ([], b""),
        ([9999], b""),
        ([9999, 10], b"\x2a"),
        ([30, 10], b"\x2a"),
        ([0, 30], b"\x20\x3e"),
        ([30, 10, 20, 9999], b"\x2a\x3f\xe1\x1f"),
        ([10, 8888, 9999], b"\x2a\x3f\xe1\x1f"),
    ],
)
async def test_a_change_of_the_tables_size_is_announced_once(sizes, announcement):
    """Scenario 46: the smallest size, if it was smaller, and the last (RFC 7541, sections 4.2 and 6.3)."""
    encoder = HeadEncoder()
    for size in sizes:
        encoder.header_table_size = size
    assert encoder.encode([(b":method", b"GET")]) == announcement + b"\x82"
    assert encoder.encode([(b":method", b"GET")]) == b"\x82"


async def test_a_server_that_changes_the_tables_size_reads_every_head(serve, h2_pool):
    """Scenario 46: smaller, none, larger than allowed; a call or no call between two changes."""
    server = serve(http2(reply()))
    pool = h2_pool()
    for number, sizes in enumerate([[], [100], [0], [0, 4096], [50, 5000, 6000], [2**32 - 1], [60]]):
        for size in sizes:
            await run_on(server, peer(server).change_settings({SettingCodes.HEADER_TABLE_SIZE: size}))
        for _ in range(2):
            await pool.fetch(request_to(server, target=f"/{number}"))
        assert server.requests[-1].target == f"/{number}"
    assert table_of(server).maxsize == 60
    assert server.connections_accepted == 1


SECRETS = {
    "Authorization": "Bearer sk-secret",
    "X-API-Key": "secret-key",
    "X-Gateway-Token": "secret-token",
    "Cookie": "session=secret-session-of-a-user",
}


PLAIN = {"User-Agent": "x", "Accept": "a/b", "Accept-Encoding": "identity", "Content-Type": "c/d"}


async def test_no_secret_gets_into_the_encoders_table(serve, h2_pool):
    """Scenario 46: keys, cookies and queries arrive, and no later head refers to them."""
    server = serve(http2(reply()))
    pool = h2_pool()
    for _ in range(2):
        await pool.fetch(request_to(server, target="/x?key=secret", headers=SECRETS | PLAIN))
        received = server.requests[-1].headers
        assert received.items() >= {name.lower(): value for name, value in SECRETS.items()}.items()
    stored = {name for name, _ in table_of(server).dynamic_entries}
    assert stored == {b":authority", b"user-agent", b"accept", b"accept-encoding", b"content-type"}


async def test_secrets_are_marked_as_never_indexed(serve):
    """Scenario 46: proxies on the way do not store them either (RFC 7541, section 7.1.3)."""
    request = request_to(serve(hold), target="/x?key=secret", headers=SECRETS | PLAIN)
    decoded = Decoder().decode(HeadEncoder().encode(encode_fields(request)))
    never_indexed = {field[0] for field in decoded if not field.indexable}
    assert never_indexed == {":path", "content-length", *(name.lower() for name in SECRETS)}


async def test_few_secrets_are_kept_encoded():
    """Scenario 46: a connection keeps the encoded keys, but not an idempotency key for each call."""
    encoder = HeadEncoder()
    for number in range(1000):
        field = NeverIndexedHeaderTuple(b"idempotency-key", b"%d" % number)
        assert Decoder().decode(encoder.encode([field])) == [("idempotency-key", str(number))]
    assert len(never_indexed_of(encoder)) <= MAX_NEVER_INDEXED


# Floods of frames.


def ping(number):
    return frames.PingFrame(0, opaque_data=b"pingpong").serialize()


def changed_settings(number):
    return frames.SettingsFrame(0, settings={SettingCodes.HEADER_TABLE_SIZE: 1}).serialize()


def empty_data(number):
    return frames.DataFrame(number).serialize()


def padded_data(number):
    return frames.DataFrame(number, pad_length=200, flags=["PADDED"]).serialize()


def priority(number):
    return frames.PriorityFrame(number, stream_weight=3).serialize()


def window_update(number):
    return frames.WindowUpdateFrame(0, window_increment=1).serialize()


def window_update_of_a_stream(number):
    return frames.WindowUpdateFrame(number, window_increment=1).serialize()


def unknown_frame(number):
    return b"\x00\x00\x00\xee\x00" + number.to_bytes(4, "big")


def reset_of_another_stream(number):
    return frames.RstStreamFrame(1).serialize()


def interim_head(number):
    return frames.HeadersFrame(number, data=b"\x08\x03103", flags=["END_HEADERS"]).serialize()


def settings_acknowledgement(number):
    return frames.SettingsFrame(0, flags=["ACK"]).serialize()


FLOODS = [
    ping, changed_settings, empty_data, padded_data, priority, window_update, window_update_of_a_stream,
    unknown_frame, reset_of_another_stream, interim_head, settings_acknowledgement,
]  # fmt: skip


@pytest.mark.parametrize("flood", FLOODS)
async def test_a_flood_of_frames_ends_the_connection(serve, h2_pool, flood):
    """Scenario 59: after 1,000 frames in a second; calls on other connections go on meanwhile."""

    async def answer(stream):
        if stream.number == 1:
            await stream.respond(body=b"ok")
            return
        if flood in (empty_data, padded_data):
            await stream.head(200)
        while True:
            await stream.peer.send_frames(flood(stream.number) * 500)

    server = serve(per_connection(http2(answer), http2(reply(body=b"other"))))
    pool = h2_pool(max_streams_per_connection=1)
    assert (await pool.fetch(request_to(server))).body == b"ok"
    flooded = start_call(pool, server, read=20.0)
    await server.await_requests(2)
    assert (await pool.fetch(request_to(server, read=5.0))).body == b"other"
    with pytest.raises(ProtocolError, match="over 1000 frames in a second that carry no response"):
        await flooded
    await server.await_until(lambda s: s.connections_open == 1)


async def test_many_small_frames_of_responses_and_uploads_are_no_flood(serve, h2_pool):
    """Scenario 59: 5,000 pieces of one byte each, and an upload whose windows grow in small steps."""

    async def answer(stream):
        while not stream.complete:
            for _ in range(100):
                stream.peer.h2.increment_flow_control_window(1)
                stream.peer.h2.increment_flow_control_window(1, stream.number)
            before = len(stream.received)
            await stream.peer.flush()
            await stream.until(lambda before=before: stream.complete or len(stream.received) > before)
        await stream.head(200)
        for _ in range(5_000):
            await stream.data(b"x")
        await stream.data(b"", end=True)

    server = serve(http2(answer))
    whole = await h2_pool().fetch(request_to(server, bytes(3_000_000), read=20.0))
    assert whole.body == b"x" * 5_000


async def test_pings_now_and_then_are_no_flood(serve, h2_pool, monkeypatch):
    """Scenario 59: the frames are counted anew each second."""
    monkeypatch.setattr(wire_module, "MAX_IDLE_FRAMES", 20)

    async def answer(stream):
        for _ in range(3):
            await stream.peer.send_frames(ping(0) * 15)
            await asyncio.sleep(1.1)
        await stream.respond(body=b"ok")

    assert (await h2_pool().fetch(request_to(serve(http2(answer)), read=20.0))).body == b"ok"


async def test_a_server_that_does_not_read_the_answers_to_its_pings(serve, h2_pool, monkeypatch):
    """Scenario 59: what the client owes is bounded, and then the connection ends."""
    monkeypatch.setattr(wire_module, "MAX_IDLE_FRAMES", 10**9)
    monkeypatch.setattr(connection_module, "MAX_UNSENT", 200_000)

    async def answer(stream):
        if stream.number == 1:
            await stream.respond()
            return
        stream.peer.conn.pause_reading()
        while True:
            await stream.peer.send_frames(ping(0) * 5_000)

    server = serve(per_connection(http2(answer), http2(reply(body=b"next"))))
    pool = h2_pool()
    await pool.fetch(request_to(server))
    [sock] = sockets_of(pool)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # the kernel would take megabytes
    with pytest.raises(ProtocolError, match="leaves 200000 bytes unread"):
        await pool.fetch(request_to(server, read=20.0))
    assert (await pool.fetch(request_to(server))).body == b"next"
