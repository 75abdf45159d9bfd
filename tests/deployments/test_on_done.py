"""``on_done`` of ``event_stream`` under real servers: when it is called, and that the ORM can be used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.deployments.raw_client import RawClient

if TYPE_CHECKING:
    from collections.abc import Callable

    from testbed import ScriptedServer
    from tests.deployments.launcher import Deployment

pytestmark = [
    pytest.mark.server,
    pytest.mark.parametrize("view", ["stream-on-done", "astream-on-done"]),
    pytest.mark.parametrize("server", ["uvicorn", "gunicorn-gthread"]),
]


def test_it_is_called_after_the_last_byte(
    server: str, view: str, deploy: Callable[..., Deployment], upstream: ScriptedServer
) -> None:
    """Here it waits for a call of its own, and the browser has the whole response nevertheless."""
    deployed = deploy(server, upstream)
    head = upstream.gate("head")
    head.shut()
    head.admit()
    with RawClient(deployed.port, f"/{view}") as client:
        head.wait_reached(2)
        assert b"event: done" in client.read_through(b"\r\n0\r\n\r\n")
    head.open()
    deployed.wait_stats(in_use=0)
    assert [each.json()["messages"][0]["content"] for each in upstream.requests] == [
        "hello",
        "saved onetwothree",
    ]
    assert "Traceback" not in deployed.output


def test_it_is_called_when_the_browser_has_left(
    server: str, view: str, deploy: Callable[..., Deployment], upstream: ScriptedServer
) -> None:
    deployed = deploy(server, upstream, extra={"HEARTBEAT_SECONDS": "0.1"})
    upstream.gate("token").shut()
    upstream.gate("token").admit()
    with RawClient(deployed.port, f"/{view}") as client:
        client.read_through(b'"one"')
    upstream.wait_until(lambda s: len(s.requests) == 2)
    assert upstream.requests[1].json()["messages"][0]["content"] == "saved one"
    upstream.gate("token").open()
    deployed.wait_stats(in_use=0)
    assert "Traceback" not in deployed.output
