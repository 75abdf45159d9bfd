"""Anthropic's Messages API over real connections, by each kind of call."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from llm_pool import exceptions
from testbed.behaviours import events, json_reply
from tests.fixtures.calls import CALLS, STREAMS, WHOLE, ask

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_pool.calling.pool import LLMPool
    from testbed import Script, ScriptedServer

MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-test",
    "content": [{"type": "text", "text": "Hello!"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 3, "output_tokens": 2},
}


def event_stream(*values: dict[str, Any]) -> Script:
    """Respond with these values as events, each named by its type."""
    return events(*[f"event: {value['type']}\ndata: {json.dumps(value)}\n\n".encode() for value in values])


BEGIN = {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None}}
TEXT = [
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo!"}},
    {"type": "content_block_stop", "index": 0},
]
END = [
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
    {"type": "message_stop"},
]


@pytest.fixture
def claude(
    configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> Callable[[Script], tuple[LLMPool, ScriptedServer]]:
    """``claude(script)``: a pool for Anthropic's API, and its server."""

    def make(script: Script) -> tuple[LLMPool, ScriptedServer]:
        server = serve(script)
        return configure(server, PROVIDER="anthropic", BASE_URL=server.url, MODEL="claude-test"), server

    return make


@pytest.mark.parametrize("call", CALLS)
def test_an_answer_is_returned(call: str, claude: Any, secret: str) -> None:
    pool, server = claude(json_reply(MESSAGE) if call in WHOLE else event_stream(BEGIN, *TEXT, *END))
    completion = ask(call, pool, max_tokens=9)
    assert (completion.text, completion.finish_reason, completion.model) == (
        "Hello!",
        "end_turn",
        "claude-test",
    )
    assert (completion.usage.input_tokens, completion.usage.output_tokens) == (3, 2)
    [request] = server.requests
    assert (request.target, request.headers["x-api-key"]) == ("/v1/messages", secret)
    assert "anthropic-version" in request.headers
    assert request.json()["model"] == "claude-test"


@pytest.mark.parametrize("call", CALLS)
def test_connections_are_reused(call: str, claude: Any) -> None:
    pool, server = claude(json_reply(MESSAGE) if call in WHOLE else event_stream(BEGIN, *TEXT, *END))
    for _ in range(3):
        ask(call, pool, max_tokens=9)
    assert server.connections_accepted == 1


@pytest.mark.parametrize("call", CALLS)
def test_a_529_raises_overloaded(call: str, claude: Any) -> None:
    says = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    pool, _ = claude(json_reply(says, status=529))
    with pytest.raises(exceptions.Overloaded, match="Overloaded"):
        ask(call, pool, max_tokens=9)


@pytest.mark.parametrize("call", STREAMS)
def test_an_error_in_mid_stream_has_the_text_so_far(call: str, claude: Any) -> None:
    broken = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    pool, _ = claude(event_stream(BEGIN, *TEXT[:2], broken))
    with pytest.raises(exceptions.APIError, match="Overloaded") as caught:
        ask(call, pool, max_tokens=9)
    assert caught.value.partial == "Hel"


@pytest.mark.parametrize("call", STREAMS)
def test_a_stream_without_its_last_event_is_interrupted(call: str, claude: Any) -> None:
    pool, _ = claude(event_stream(BEGIN, *TEXT))
    with pytest.raises(exceptions.StreamInterrupted) as caught:
        ask(call, pool, max_tokens=9)
    assert caught.value.partial == "Hello!"
