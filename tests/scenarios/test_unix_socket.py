"""Calls over a Unix domain socket, as to a sidecar, in place of host and port."""

from __future__ import annotations

import asyncio

import pytest

from llm_pool.engine.config import DEFAULT_PORTS, TLS, Origin
from llm_pool.exceptions import ConnectFailed, PoolClosed, TLSFailed
from testbed import Gate
from testbed.behaviours import json_reply
from tests.fixtures.engine import request_to, until_pool
from tests.fixtures.internals import sockets_of


def request_over(server, host="llm.test"):
    """Return a request to ``host`` for the server at the socket. Nothing connects to its port."""
    request = request_to(server, headers={"Host": host})
    request.origin = Origin(server.scheme, host, DEFAULT_PORTS[server.scheme])
    return request


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "llm.sock")


async def test_calls_go_through_the_socket_and_reuse_it(serve, engine_pool, fake_dns, path, each_loop):
    """Scenario 50: no name is looked up, no proxy is used; ``Host`` is the origin's."""
    server = serve(json_reply(), uds=path)
    pool = engine_pool(uds=path, proxy="http://proxy.test:1")
    for _ in range(3):
        assert (await pool.fetch(request_over(server))).status == 200
    assert server.connections_accepted == 1
    assert server.requests[0].target == "/v1/chat/completions"
    assert server.requests[0].headers["host"] == "llm.test"
    assert fake_dns.queries == []


async def test_proxies_of_the_environment_are_passed_by(serve, engine_pool, path, monkeypatch):
    """Scenario 50: the socket leads directly to the server."""
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.test:1")
    server = serve(json_reply(), uds=path)
    pool = engine_pool(uds=path, proxy=None)
    assert (await pool.fetch(request_over(server))).status == 200


async def test_tls_is_spoken_over_the_socket_too(serve, engine_pool, certificates, path, each_loop):
    """Scenario 49: the certificate must be for the origin's name, wherever the socket is."""
    server = serve(json_reply(), uds=path, tls=certificates.good)
    pool = engine_pool(uds=path, tls=TLS(ca_file=certificates.ca_file))
    assert (await pool.fetch(request_over(server))).status == 200
    with pytest.raises(TLSFailed, match=r"^no TLS connection to https://other.test: .*'other.test'"):
        await pool.fetch(request_over(server, "other.test"))
    assert len(server.requests) == 1


async def test_a_socket_that_is_not_there_is_named(serve, engine_pool, path, each_loop):
    """Scenario 48: one sentence with the path and the reason."""
    pool = engine_pool(uds=path)
    request = request_to(serve(json_reply()))
    with pytest.raises(ConnectFailed) as caught:
        await pool.fetch(request)
    assert str(caught.value) == f"no connection to {request.origin} at {path}: No such file or directory"
    assert sockets_of(pool) == []


@pytest.mark.parametrize("path", ["/tmp/" + "x" * 200, "/tmp/a\0b", ""], ids=["long", "NUL", "empty"])
async def test_an_invalid_path_is_a_failed_connect(serve, engine_pool, path):
    """Scenario 48: never a bare ValueError."""
    pool = engine_pool(uds=path)
    with pytest.raises(ConnectFailed, match=r"^no connection to http://127.0.0.1:\d+ at "):
        await pool.fetch(request_to(serve(json_reply())))
    assert sockets_of(pool) == []


async def test_closing_the_pool_in_a_handshake_closes_the_socket(
    serve, engine_pool, certificates, path, each_loop
):
    """Scenario 19: the dial is cancelled in TLS."""
    gate = Gate()
    server = serve(json_reply(), uds=path, tls=certificates.good, before_handshake=gate.passage)
    pool = engine_pool(uds=path, tls=TLS(ca_file=certificates.ca_file))
    call = asyncio.create_task(pool.fetch(request_over(server)))
    await gate.await_reached()
    await pool.aclose()
    with pytest.raises(PoolClosed):
        await call
    assert sockets_of(pool) == []
    gate.open()
    await server.await_until(lambda s: s.connections_open == 0)


async def test_prewarming_works_over_the_socket(serve, engine_pool, path, each_loop):
    """Scenario 13: the first call opens no connection."""
    server = serve(json_reply(), uds=path)
    pool = engine_pool(uds=path, min_connections=1)
    await pool.prewarm(request_over(server).origin)
    await until_pool(pool, lambda: pool.stats().idle == 1)
    assert (await pool.fetch(request_over(server))).status == 200
    assert server.connections_accepted == 1
