"""``LLMPool``: what a call sends, and what it returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from llm_pool import __version__
from llm_pool.providers.usage import Usage
from testbed.chat import chat_completion
from tests.fixtures.calls import CALLS, STREAMS, ask

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_pool.calling.pool import LLMPool
    from testbed import ScriptedServer


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("way", ["direct", "through event hooks"])
def test_a_call_is_one_post_to_the_providers_path(
    way: str, call: str, secret: str, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    pool = configure(upstream, HEADERS={"OpenAI-Project": "proj-1"})
    if way != "direct":
        pool.client.event_hooks = {"request": [lambda request: None]}
        pool.aclient.event_hooks = {"response": [hook]}
    ask(call, pool, [{"role": "user", "content": "Hé!"}], temperature=0.5)
    (request,) = upstream.requests
    assert (request.method, request.target) == ("POST", "/v1/chat/completions")
    sent = {
        "host": upstream.authority,
        "authorization": f"Bearer {secret}",
        "content-type": "application/json",
        "accept-encoding": "identity",
        "user-agent": f"llm_pool/{__version__}",
        "openai-project": "proj-1",
        "content-length": str(len(request.body)),
    }
    assert sent.items() <= request.headers.items()
    body = {"model": "test-model", "messages": [{"role": "user", "content": "Hé!"}], "temperature": 0.5}
    if call in STREAMS:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    assert request.json() == body


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("way", ["direct", "through event hooks"])
def test_a_completion_has_its_timing(
    way: str, call: str, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    pool = configure(upstream)
    if way != "direct":
        pool.client.event_hooks = {"request": [lambda request: None]}
        pool.aclient.event_hooks = {"response": [hook]}
    first, second = ask(call, pool), ask(call, pool)
    assert first.request_id == second.request_id == "0"  # the number of the connection, sent by the upstream
    assert first.finish_reason == "stop"
    assert first.timing is not None
    assert second.timing is not None
    assert (first.timing.reused, second.timing.reused) == (False, True)
    assert first.timing.dialing > 0
    assert second.timing.dialing == 0
    for timing in (first.timing, second.timing):
        assert timing.first_byte is not None
        assert 0 <= timing.queued <= timing.first_byte <= timing.total
        if call in STREAMS:
            assert timing.first_token is not None
            assert timing.first_byte <= timing.first_token <= timing.total


@pytest.mark.parametrize("call", ["complete", "acomplete"])
def test_a_completion_has_the_providers_fields(
    call: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    pool = configure(serve(chat_completion("Hello there!", headers={"X-Request-Id": "req-7"}, extra=1)))
    completion = ask(call, pool, model="other")
    assert str(completion) == completion.text == "Hello there!"
    assert completion.model == "test-model"
    assert completion.usage == Usage(3, 2)
    assert completion.request_id == "req-7"
    assert completion.raw["extra"] == 1


async def hook(message: Any) -> None:
    """An event hook."""
