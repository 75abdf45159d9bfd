"""The cost of each further token of ``event_stream``. A budget may be lowered; raise it only with reason."""

from __future__ import annotations

import asyncio.tasks
import json.encoder
from typing import TYPE_CHECKING

import pytest

from llm_pool.http import event_stream
from testbed.chat import chat_stream
from tests.fixtures.costs import FunctionCalls
from tests.fixtures.loops import server_loop

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from llm_pool.calling.pool import LLMPool
    from testbed import Script, ScriptedServer

__all__ = ["server_loop"]

TOKENS = 20

ROOMS = {
    "http and json": ("llm_pool/http/", json.__file__, json.encoder.__file__),
    "new tasks": (asyncio.tasks.__file__,),
}
BUDGETS = {"events": {"http and json": 17, "new tasks": 0}, "ai-sdk": {"http and json": 16, "new tasks": 0}}


@pytest.mark.usefixtures("server_loop")
@pytest.mark.parametrize("kind", ["events", "ai-sdk"])
async def test_a_token_on_its_way_to_the_browser_keeps_to_its_budget_of_functions(
    kind: Literal["events", "ai-sdk"],
    configure: Callable[..., LLMPool],
    serve_first: Callable[[Script], ScriptedServer],
) -> None:
    server = serve_first(chat_stream(["word "] * (TOKENS + 2), pace="pace"))
    gate = server.gate("pace")
    gate.shut()
    response = event_stream(configure(server).astream("hello"), format=kind)
    pieces = aiter(response)
    for _ in range(2):  # the first makes what all use
        gate.admit()
        await anext(pieces)
    with FunctionCalls() as calls:
        for _ in range(TOKENS):
            gate.admit()
            await anext(pieces)
    gate.open()
    assert b"finish" in b"".join([piece async for piece in pieces])
    counts = {name: calls.total(*rooms) / TOKENS for name, rooms in ROOMS.items()}
    assert {name: count for name, count in counts.items() if count > BUDGETS[kind][name]} == {}, counts
