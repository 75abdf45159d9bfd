"""Django Channels: ``LLMPoolASGI`` around its router gets the lifespan; websockets use the server loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from tests.deployments.launcher import SERVERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from testbed import ScriptedServer
    from tests.deployments.launcher import Deployment

pytestmark = pytest.mark.server


@pytest.mark.parametrize("name", ["channels-uvicorn", "channels-daphne"])
async def test_a_consumer_streams_on_the_server_loop(
    name: str, deploy: Callable[..., Deployment], upstream: ScriptedServer
) -> None:
    """Scenario 53."""
    server = deploy(name, upstream)
    url = f"http://127.0.0.1:{server.port}/"
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as websocket:
        for _ in range(2):
            await websocket.send_json({"prompt": "hello"})
            assert await websocket.receive_json() == {"on_server_loop": True}
            assert [(await websocket.receive_json())["text"] for _ in range(3)] == ["one", "two", "three"]
            await websocket.receive_json()  # the end of the answer, without text
    server.wait_stats(in_use=0, waiting=0)
    assert upstream.connections_accepted == 1
    assert server.terminate() == SERVERS[name].exit_code


def test_the_lifespan_reaches_the_pools_through_the_router(
    deploy: Callable[..., Deployment], upstream: ScriptedServer
) -> None:
    """Scenarios 13 and 51: connections before the first call, and a clean end."""
    server = deploy("channels-uvicorn", upstream, LIMITS={"min_connections": 2})
    upstream.wait_until(lambda s: s.connections_accepted == 2)
    assert server.get("/acomplete")["text"] == "You said hello."
    assert server.terminate() == SERVERS["channels-uvicorn"].exit_code
    upstream.wait_until(lambda s: s.connections_open == 0)
    assert {left.reason for left in upstream.disconnects} == {"eof"}
    assert server.output == ""


@pytest.mark.parametrize(("name", "warnings"), [("channels-uvicorn", 1), ("channels-daphne", 0)])
def test_a_router_without_the_wrapper_is_warned_of_once(
    name: str, warnings: int, deploy: Callable[..., Deployment], upstream: ScriptedServer
) -> None:
    """Daphne sends no lifespan, whatever the application is."""
    extra: dict[str, Any] = {"ROUTER_OUTERMOST": "yes"}
    server = deploy(name, upstream, LIMITS={"min_connections": 1}, extra=extra)
    for view in ("acomplete", "complete"):
        assert server.get(f"/{view}")["text"] == "You said hello."
    assert server.output.count("application = LLMPoolASGI(ProtocolTypeRouter({...}))") == warnings
