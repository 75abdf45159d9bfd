"""The cost of a whole answer over HTTP/2. A budget may be lowered; raise it only with a reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from testbed.http2 import http2
from testbed.programs import completion
from tests.fixtures.costs import FunctionCalls
from tests.fixtures.loops import server_loop

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_pool.calling.pool import LLMPool
    from testbed import ScriptedServer
    from testbed.http2 import Stream

__all__ = ["server_loop"]

CALLS = 10
BUDGETS = {"": 540, "llm_pool/engine/http2/": 168}
"""Functions called in files whose path begins so. The first one is the whole path, asyncio included."""

HEADERS = [
    (":status", "200"),
    ("date", "Sun, 22 Nov 2026 10:00:00 GMT"),
    ("content-type", "application/json"),
    ("content-length", str(len(completion()))),
    ("x-request-id", "req_0123456789abcdef"),
    ("x-ratelimit-remaining-requests", "9999"),
    ("server", "cloudflare"),
    ("cf-ray", "8f0123456789abcd-FRA"),
]


@pytest.mark.usefixtures("server_loop")
async def test_a_warm_call_keeps_to_its_budget_of_functions(
    serve: Callable[..., ScriptedServer], configure: Callable[..., LLMPool]
) -> None:
    async def answer(stream: Stream) -> None:
        await stream.body()
        stream.peer.h2.send_headers(stream.number, HEADERS)
        stream.peer.h2.send_data(stream.number, completion(), end_stream=True)
        await stream.peer.flush()  # in one write: each read costs functions

    pool = configure(serve(http2(answer)), HTTP2="prior-knowledge")
    await pool.acomplete("hello")  # the connection, and what is made once
    await pool.acomplete("hello")
    with FunctionCalls() as calls:
        for _ in range(CALLS):
            await pool.acomplete("hello")
    counts = {room: calls.total(room) / CALLS for room in BUDGETS}
    assert {room: count for room, count in counts.items() if count > BUDGETS[room]} == {}, counts
