"""The cost of a whole answer on a warm connection. A budget may be lowered; raise it only with a reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fixtures.costs import FunctionCalls
from tests.fixtures.loops import server_loop

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_pool.calling.pool import LLMPool
    from testbed import ScriptedServer

__all__ = ["server_loop"]

CALLS = 10

ROOMS = {
    "the whole path": ("",),
    "calling": ("llm_pool/calling/", "llm_pool/conf/", "llm_pool/transports/"),
    "providers": ("llm_pool/providers/",),
    "engine": ("llm_pool/engine/",),
    "ledger": ("llm_pool/engine/ledger/",),
}
"""What is counted together: the prefixes of files. The whole path includes asyncio's functions."""

BUDGETS = {"the whole path": 442, "calling": 45, "providers": 68, "engine": 222, "ledger": 28}


@pytest.mark.usefixtures("server_loop")
async def test_a_warm_call_keeps_to_its_budget_of_functions(
    chat_server: ScriptedServer, configure: Callable[..., LLMPool]
) -> None:
    pool = configure(chat_server)
    await pool.acomplete("hello")  # the connection, and what is made once
    await pool.acomplete("hello")
    with FunctionCalls() as calls:
        for _ in range(CALLS):
            await pool.acomplete("hello")
    counts = {name: calls.total(*rooms) / CALLS for name, rooms in ROOMS.items()}
    assert {name: count for name, count in counts.items() if count > BUDGETS[name]} == {}, counts
