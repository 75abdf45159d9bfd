"""HTTP/2: what a server can make the client store, compute and send is bounded."""

from __future__ import annotations

import pytest
from h2.settings import SettingCodes
from hpack import Decoder

from llm_pool.engine.http2.encoder import HeadEncoder
from llm_pool.engine.http2.head import encode_fields
from testbed.behaviours import hold
from testbed.http2 import http2, reply
from tests.fixtures.engine import request_to
from tests.fixtures.internals import run_on
from tests.scenarios.http2_calls import h2_pool, peer

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
