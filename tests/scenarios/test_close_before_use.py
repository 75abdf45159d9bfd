"""A server closes a new connection before a call has used it."""

from __future__ import annotations

import select

import pytest

from llm_pool.engine.config import TLS
from llm_pool.engine.dialer.dialer import Dialer
from llm_pool.engine.http11.connection import HTTP11Connection
from llm_pool.exceptions import ConnectFailed, PoolClosed, ProtocolError, TLSFailed
from testbed.behaviours import close, json_reply, per_connection, reset
from testbed.http2 import offering_http2
from testbed.tls import refuse_client
from tests.fixtures.callers import trusting, until
from tests.fixtures.engine import request_to
from tests.fixtures.internals import after_each_dial, coordinator_of

AT_MOST = 10_000  # milliseconds


def wait_for_close(connection) -> None:
    """Block the loop until the server has closed the connection."""
    poller = select.poll()
    poller.register(connection.transport.get_extra_info("socket"), select.POLLRDHUP)
    assert poller.poll(AT_MOST)


@pytest.fixture
def dials_until_closed(monkeypatch) -> None:
    """Let each dial end only when the new connection has closed."""
    dial = Dialer.dial

    async def dial_until_closed(*args, **kwargs):
        connection = await dial(*args, **kwargs)
        await until(lambda: connection.closed)
        return connection

    monkeypatch.setattr(Dialer, "dial", dial_until_closed)


@pytest.mark.usefixtures("dials_until_closed")
@pytest.mark.parametrize("end", [close, reset])
async def test_a_connection_that_ends_during_its_dial_is_a_failed_dial(each_loop, serve, engine_pool, end):
    """The call fails at once: a server that closes each new connection does not get one after another."""
    server = serve(end)
    pool = engine_pool()
    why = "(the server closed it before a request was sent|Connection reset by peer)"
    with pytest.raises(ConnectFailed, match=f"^no connection to {server.url}: {why}"):
        await pool.fetch(request_to(server))
    assert server.connections_accepted == 1
    assert pool.stats().dial_failures == {"ConnectFailed": 1}


@pytest.mark.usefixtures("dials_until_closed")
@pytest.mark.parametrize(
    ("version", "error"),
    [
        (False, "the server sent b'HTTP/1.1 503 Busy', and no request was sent before"),
        ("prior-knowledge", "the server broke the rules of HTTP/2: "),
    ],
)
async def test_an_answer_before_the_first_request_is_shown(each_loop, serve, engine_pool, version, error):
    """What the server said is not lost."""

    async def answer_at_once(conn) -> None:
        await conn.send(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
        await conn.hold()

    server = serve(answer_at_once)
    with pytest.raises(ProtocolError) as caught:
        await engine_pool(http2=version).fetch(request_to(server))
    assert str(caught.value).startswith(error)
    assert server.connections_accepted == 1


@pytest.mark.parametrize("version", [False, True], ids=["HTTP/1.1", "HTTP/2"])
async def test_a_connection_that_ends_after_its_dial_fails_its_call(
    each_loop, serve, engine_pool, certificates, monkeypatch, version
):
    """Over TLS, where the close is read before the request is written. The next call dials again."""
    context = offering_http2(certificates) if version else certificates.good
    server = serve(per_connection(close, json_reply()), tls=context)
    pool = engine_pool(tls=trusting(certificates), http2=version)
    with monkeypatch.context() as patch:
        after_each_dial(patch, wait_for_close)
        with pytest.raises(ConnectFailed) as caught:
            await pool.fetch(request_to(server))
    assert type(caught.value) is ConnectFailed
    assert server.connections_accepted == 1
    if not version:
        assert (await pool.fetch(request_to(server))).status == 200
    assert pool.stats().in_use == pool.stats().waiting == 0


@pytest.mark.parametrize("given", ["requires a client certificate", "unknown ca"])
async def test_a_refusal_is_read_before_the_reset_after_it(
    each_loop, serve, engine_pool, certificates, monkeypatch, given
):
    """Scenario 49: TLS 1.3, from a server that leaves a part of the handshake unread, as OpenSSL does."""
    server = serve(refuse_client(certificates.requires_client_cert, reset=True))
    after_each_dial(monkeypatch, wait_for_close)
    client_cert = certificates.good_files if given == "unknown ca" else None
    pool = engine_pool(tls=TLS(ca_file=certificates.ca_file, client_cert=client_cert))
    request = request_to(server)
    request.origin = request.origin._replace(scheme="https")
    with pytest.raises(TLSFailed, match=given):
        await pool.fetch(request)
    assert server.connections_accepted == 1


async def test_a_pool_that_closes_before_the_use_says_so(
    serve, engine_pool, server_loop, certificates, monkeypatch
):
    """The close of the connection is then the pool's, and not the server's."""

    async def close_pool(connection) -> bool:
        coordinator_of(pool).close()
        await until(lambda: connection.closed)
        return False

    server = serve(json_reply(), tls=certificates.good)
    pool = engine_pool(tls=trusting(certificates))
    monkeypatch.setattr(HTTP11Connection, "has_unread", lambda self: True)
    monkeypatch.setattr(HTTP11Connection, "is_still_open", close_pool)
    with pytest.raises(PoolClosed):
        await pool.fetch(request_to(server))
