"""``Pool.connections()``, the list of a pool's connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.fixtures.engine import request_to

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_pool.engine.pool import Pool
    from testbed import ScriptedServer, ServerConnection


async def answer_at_gate(conn: ServerConnection) -> None:
    """Respond to one request, and end the body when the gate "end" opens."""
    await conn.read_request()
    await conn.send_head(200, {"Transfer-Encoding": "chunked"})
    await conn.wait_for("end")
    await conn.end_chunks()


def test_a_connection_is_listed_with_origin_state_age_streams_and_loop(
    serve: Callable[..., ScriptedServer], engine_pool: Callable[..., Pool]
) -> None:
    server, pool = serve(answer_at_gate), engine_pool()
    server.gate("end")
    assert pool.connections() == []
    exchange = pool.open_sync(request_to(server))
    (busy,) = pool.connections()
    assert str(busy.origin) == server.url
    assert (busy.state, busy.streams, busy.loop) == ("in use", 1, "portal")
    server.gate("end").open()
    exchange.host_loop.run(exchange.read_all)
    (idle,) = pool.connections()
    assert (idle.state, idle.streams) == ("idle", 0)
    assert idle.age >= busy.age >= 0
