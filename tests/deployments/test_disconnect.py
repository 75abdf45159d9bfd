"""A client that disconnects ends the upstream call within a second, whatever its stream waits for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from testbed import Gate
from tests.deployments.raw_client import RawClient
from tests.fixtures.model import model
from tests.fixtures.waiting import A_SECOND, becomes_true

if TYPE_CHECKING:
    from collections.abc import Callable

    from testbed import ReceivedRequest, ScriptedServer, ServerConnection
    from testbed.tls import Certificates
    from tests.deployments.launcher import Deployment

pytestmark = [pytest.mark.server, pytest.mark.parametrize("view", ["stream", "astream"])]


def test_before_the_head(view: str, deploy: Callable[..., Deployment], upstream: ScriptedServer) -> None:
    """Scenario 24: the upstream has received the request and not responded."""
    server = deploy("uvicorn", upstream)
    upstream.gate("head").shut()
    with RawClient(server.port, f"/{view}") as client:
        upstream.gate("head").wait_reached()
        client.close()
        assert_call_ends(upstream)
    assert_in_order(server)


def test_before_the_first_event(
    view: str, deploy: Callable[..., Deployment], upstream: ScriptedServer
) -> None:
    """Scenario 24: the upstream has sent its response head, and the client has received ours."""
    server = deploy("uvicorn", upstream)
    upstream.gate("token").shut()
    with RawClient(server.port, f"/{view}") as client:
        client.read_through(b"\r\n\r\n")
        upstream.gate("token").wait_reached()
        client.close()
        assert_call_ends(upstream)
    assert_in_order(server)


def test_between_two_events(view: str, deploy: Callable[..., Deployment], upstream: ScriptedServer) -> None:
    """Scenario 24: the stream awaits its next token."""
    server = deploy("uvicorn", upstream)
    upstream.gate("token").shut()
    upstream.gate("token").admit()
    with RawClient(server.port, f"/{view}") as client:
        client.read_through(b'"one"')
        upstream.gate("token").wait_reached(2)
        client.close()
        assert_call_ends(upstream)
    assert_in_order(server)


def test_while_the_client_does_not_read(
    view: str, deploy: Callable[..., Deployment], upstream: ScriptedServer
) -> None:
    """Scenario 24: Django awaits ``send()``, and all buffers back to the upstream are full."""
    server = deploy("uvicorn", upstream)
    with RawClient(server.port, f"/{view}?prompt=flood", window=4096) as client:
        client.read_through(b"data: ")
        wait_until_full(upstream.connections[0])
        client.reset()
        assert_call_ends(upstream)
    assert_in_order(server)


def test_while_a_middleware_wraps_the_stream(
    view: str, deploy: Callable[..., Deployment], upstream: ScriptedServer
) -> None:
    """Scenario 24: a thread then reads the sync view's stream, and must be woken."""
    middleware = ["tests.deployments.project.middleware.wrapping"]
    server = deploy("uvicorn", upstream, extra={"middleware": middleware})
    upstream.gate("token").shut()
    upstream.gate("token").admit()
    with RawClient(server.port, f"/{view}") as client:
        client.read_through(b'"one"')
        upstream.gate("token").wait_reached(2)
        client.close()
        assert_call_ends(upstream)
    assert_in_order(server)


def test_while_a_wsgi_server_waits_for_the_model(
    view: str, deploy: Callable[..., Deployment], upstream: ScriptedServer
) -> None:
    """Scenario 24: a WSGI server notices only when it sends the next heartbeat."""
    server = deploy("gunicorn-gthread", upstream, extra={"HEARTBEAT_SECONDS": "0.1"})
    upstream.gate("token").shut()
    with RawClient(server.port, f"/{view}") as client:
        client.read_through(b"\r\n:\n\n")
        client.close()
        assert_call_ends(upstream)
    assert_in_order(server)


def test_while_queued(view: str, deploy: Callable[..., Deployment], upstream: ScriptedServer) -> None:
    """Scenario 24: another stream uses the only connection, and continues."""
    server = deploy("uvicorn", upstream, LIMITS={"max_connections": 1, "max_keepalive_connections": 1})
    upstream.gate("token").shut()
    with RawClient(server.port, f"/{view}") as holder:
        upstream.gate("token").wait_reached()
        with RawClient(server.port, f"/{view}?prompt=queued") as client:
            server.wait_stats(in_use=1, waiting=1)
            client.close()
            server.wait_stats(in_use=1, waiting=0)
        upstream.gate("token").open()
        holder.read_through(b"event: done")
    assert_in_order(server)
    assert [asked(request) for request in upstream.requests] == ["hello", "afterwards"]


def test_while_dialing(
    view: str,
    deploy: Callable[..., Deployment],
    serve: Callable[..., ScriptedServer],
    certificates: Certificates,
) -> None:
    """Scenario 24: during the TLS handshake. The connection joins the pool; the request is not sent."""
    gate = Gate()
    upstream = serve(model, tls=certificates.good, before_handshake=gate.passage)
    server = deploy("uvicorn", upstream, TLS={"ca_file": certificates.ca_file})
    with RawClient(server.port, f"/{view}") as client:
        gate.wait_reached()
        server.wait_stats(dialing=1, waiting=1)
        client.close()
        server.wait_stats(waiting=0)
    gate.open()
    assert_in_order(server)
    assert [asked(request) for request in upstream.requests] == ["afterwards"]


def assert_call_ends(upstream: ScriptedServer) -> None:
    assert becomes_true(lambda: upstream.disconnects, A_SECOND), str(upstream)
    assert len(upstream.disconnects) == 1


def assert_in_order(server: Deployment) -> None:
    """Assert that no connection is in use, the next call is served, and the server logged no error."""
    server.wait_stats(in_use=0, waiting=0)
    assert server.get("/acomplete?prompt=afterwards")["text"] == "You said afterwards."
    assert "Traceback" not in server.output
    assert "Warning" not in server.output


def wait_until_full(connection: ServerConnection) -> None:
    """Wait until no bytes are sent for 0.3 s: no event shows that the buffers are full."""
    sent, deadline = -1, time.monotonic() + 10.0
    while sent != connection.bytes_sent:
        assert time.monotonic() < deadline, "the upstream is never held up"
        sent = connection.bytes_sent
        time.sleep(0.3)


def asked(request: ReceivedRequest) -> str:
    return str(request.json()["messages"][0]["content"])
