"""HTTP/2: what a server can make the client store, compute and send is bounded."""

from __future__ import annotations

import asyncio
import socket

import pytest
from h2.settings import SettingCodes
from hpack import Decoder
from hyperframe import frame as frames

from llm_pool.engine.http2 import connection as connection_module
from llm_pool.engine.http2 import wire as wire_module
from llm_pool.engine.http2.block_encoder import encode_fields
from llm_pool.engine.http2.head import encode_head
from llm_pool.exceptions import ProtocolError
from testbed.behaviours import hold, per_connection
from testbed.http2 import http2, reply
from tests.fixtures.engine import request_to
from tests.fixtures.internals import run_on, sockets_of
from tests.scenarios.http2_calls import h2_pool, peer, start_call

__all__ = ["h2_pool"]

pytestmark = pytest.mark.usefixtures("each_loop")


# What the server stores of a request's head.


def table_of(server):
    """The table of the server's decoder."""
    return peer(server).h2.decoder.header_table


SECRETS = {
    "Authorization": "Bearer sk-secret",
    "X-API-Key": "secret-key",
    "X-Gateway-Token": "secret-token",
    "Cookie": "session=secret-session-of-a-user",
}


async def test_nothing_of_a_head_gets_into_the_servers_table(serve, h2_pool):
    """Scenarios 46, 59: neither keys, cookies and queries nor anything else; both ends store nothing."""
    server = serve(http2(reply()))
    pool = h2_pool()
    for _ in range(2):
        await pool.fetch(request_to(server, target="/x?key=secret", headers=SECRETS | {"User-Agent": "x"}))
        received = server.requests[-1].headers
        assert received.items() >= {name.lower(): value for name, value in SECRETS.items()}.items()
        assert not table_of(server).dynamic_entries


async def test_fields_are_marked_as_never_indexed(serve):
    """Scenario 46: proxies on the way do not store them either (RFC 7541, section 7.1.3)."""
    request = request_to(serve(hold), target="/x?key=secret", headers=SECRETS)
    decoded = Decoder().decode(encode_head(request))
    assert [field for field in decoded if field.indexable] == [(":method", "POST"), (":scheme", "http")]
    assert dict(decoded).items() >= {name.lower(): value for name, value in SECRETS.items()}.items()


@pytest.mark.parametrize("length", [0, 1, 126, 127, 128, 255, 256, 20_000])
def test_a_field_of_any_length_is_read_as_it_was(length):
    """Scenario 46: names and values, and a name of the static table with a long index."""
    fields = [
        (b"x" * length, b"y" * length),
        (b"authorization", b"z" * length),
        (b"age", b""),
        (b":path", b"/"),
    ]
    assert Decoder(10**6).decode(encode_fields(fields), raw=True) == fields


async def test_a_server_that_changes_the_tables_size_reads_every_head(serve, h2_pool):
    """Scenario 46: smaller, none, larger than the default; a call or no call between two changes.

    A head after a smaller size must begin with a size (RFC 9113, section 4.3.1).
    """
    server = serve(http2(reply()))
    pool = h2_pool()
    for number, sizes in enumerate([[], [100], [0], [0, 4096], [50, 5000, 6000], [2**32 - 1], [60]]):
        for size in sizes:
            await run_on(server, peer(server).change_settings({SettingCodes.HEADER_TABLE_SIZE: size}))
        for _ in range(2):
            await pool.fetch(request_to(server, target=f"/{number}"))
        assert server.requests[-1].target == f"/{number}"
    assert table_of(server).maxsize == 0
    assert server.connections_accepted == 1


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
