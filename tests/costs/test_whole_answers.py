"""The cost of a whole answer on a warm connection. A budget may be lowered; raise it only with a reason."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from llm_pool.providers import PROVIDERS
from llm_pool.providers.head import Head, HeaderView
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

BUDGETS = {"the whole path": 300, "calling": 30, "providers": 57, "engine": 140, "ledger": 28}


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


CHAT = {"index": 0, "message": {"role": "assistant", "content": "Hello!"}, "finish_reason": "stop"}
MESSAGE = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello!"}]}
COUNTED = {"input_tokens": 3, "output_tokens": 2}
ANSWERS: dict[str, tuple[int, dict[str, Any]]] = {
    "openai": (38, {"choices": [CHAT], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}),
    "anthropic": (34, {"content": [{"type": "text", "text": "Hello!"}], "usage": COUNTED}),
    "openai-responses": (67, {"status": "completed", "error": None, "output": [MESSAGE], "usage": COUNTED}),
}
"""For each provider the budget of an answer, from the bytes of its body to the completion, and the answer."""


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_read_within_its_budget_of_functions(name: str) -> None:
    budget, answer = ANSWERS[name]
    provider = PROVIDERS[name]()
    body = json.dumps({"id": "1", "model": "m", **answer}).encode()
    head = Head(200, HeaderView([(provider.request_id_headers[0].encode(), b"req_1")]))
    assert provider.parse_completion(head, body).text == "Hello!"
    with FunctionCalls() as calls:
        provider.parse_completion(head, body)
    assert calls.total("llm_pool/providers/") <= budget
