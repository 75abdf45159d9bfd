"""``event_stream`` under ASGI reads the stream in a task, ahead of the browser."""

from __future__ import annotations

import asyncio
import gc
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest

from llm_pool.http import event_stream, reading
from llm_pool.http.reading import COMMENT
from testbed.chat import chat_stream
from tests.fixtures.callers import until
from tests.fixtures.events import assert_whole, events_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_pool.calling.pool import LLMPool
    from testbed import Script, ScriptedServer


@pytest.mark.parametrize("kind", ["stream", "astream"])
async def test_a_cancelled_wait_for_the_next_event_loses_nothing(
    kind: str, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    """As in a middleware that sends pings. The response does not end as if it were whole."""
    upstream.gate("token").shut()
    upstream.gate("token").admit()
    pieces = aiter(event_stream(getattr(configure(upstream), kind)("hello")))
    first = await anext(pieces)
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(pieces), 0.02)
    assert len(steps_under_way()) == 1
    upstream.gate("token").open()
    assert_whole([first, *[piece async for piece in pieces]])
    assert len(upstream.requests) == 1


async def test_a_call_that_fails_while_the_browser_reads_slowly_leaves_no_error_behind(
    configure: Callable[..., LLMPool],
    upstream: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """After a heartbeat the step goes on. Then the browser disconnects, and nothing asks for the error."""
    monkeypatch.setattr(reading, "HEARTBEAT_SECONDS", 0.01)
    upstream.gate("token").shut()
    pool = configure(upstream, TIMEOUTS={"read": 0.2})
    async with aclosing(aiter(event_stream(pool.astream("hello")))) as pieces:
        assert await anext(pieces) == COMMENT
        await until(lambda: not steps_under_way())
    del pieces
    gc.collect()
    assert "never retrieved" not in caplog.text


@pytest.mark.parametrize("gate", ["head", "token"])
async def test_a_response_that_is_closed_while_it_waits_leaves_no_task(
    gate: str, configure: Callable[..., LLMPool], upstream: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scenario 24: not even until the loop's next turn, which may be its last."""
    monkeypatch.setattr(reading, "HEARTBEAT_SECONDS", 0.01)
    upstream.gate(gate).shut()
    async with aclosing(aiter(event_stream(configure(upstream).astream("hello")))) as pieces:
        assert await anext(pieces) == COMMENT
        await upstream.gate(gate).await_reached()
    assert steps_under_way() == []


async def test_a_response_that_is_dropped_unread_frees_its_connection(
    configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    """Scenario 24: although a task of its own waits for the next token."""
    upstream.gate("token").shut()
    upstream.gate("token").admit()
    pieces = aiter(event_stream(configure(upstream).astream("hello")))
    assert b"one" in await anext(pieces)
    await upstream.gate("token").await_reached(2)
    del pieces
    gc.collect()
    await upstream.await_until(lambda s: len(s.disconnects) == 1)


async def test_a_browser_that_reads_slowly_gets_every_token(
    configure: Callable[..., LLMPool], serve_first: Callable[[Script], ScriptedServer]
) -> None:
    """The stream is read two steps ahead, and no further."""
    server = serve_first(chat_stream("abcdef", pace="pace"))
    server.gate("pace").shut()
    pool = configure(server)
    stream = pool.astream("hello")
    pieces = aiter(event_stream(stream))
    for text in ("a", "ab", "abc"):
        server.gate("pace").admit()
        if text == "a":
            first = await anext(pieces)
        await until(lambda text=text: stream.text == text)
    server.gate("pace").open()
    await until(lambda: pool.stats().in_use == 0)  # the whole answer has arrived
    assert stream.text == "abc"
    *tokens, done = events_of([first, *[piece async for piece in pieces]])
    assert [event.data["text"] for event in tokens] == list("abcdef")
    assert done.data["text"] == "abcdef"


async def test_a_timer_that_was_set_for_an_earlier_step_is_no_heartbeat(
    configure: Callable[..., LLMPool], upstream: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One timer serves many steps: it fires ``HEARTBEAT_SECONDS`` after the step that has set it."""
    loop = asyncio.get_running_loop()
    timers: list[Callable[[], object]] = []

    def call_later(seconds: float, callback: Callable[..., object], *args: Any, **options: Any) -> Any:
        if seconds == reading.HEARTBEAT_SECONDS:
            timers.append(callback)
        return loop.call_at(loop.time() + seconds, callback, *args, **options)

    monkeypatch.setattr(loop, "call_later", call_later)
    upstream.gate("token").shut()
    pieces = aiter(event_stream(configure(upstream).astream("hello")))
    first = asyncio.create_task(anext(pieces))  # type: ignore[arg-type]
    await upstream.gate("token").await_reached()
    for timer in timers:
        timer()
    upstream.gate("token").open()
    assert await first != COMMENT
    assert_whole([await first, *[piece async for piece in pieces]])
    assert len(timers) == 1


async def test_an_answer_leaves_no_timer(configure: Callable[..., LLMPool], upstream: ScriptedServer) -> None:
    """A timer for each step would stay until it is due, with thousands of others."""
    assert_whole([piece async for piece in event_stream(configure(upstream).astream("hello"))])
    await asyncio.sleep(0)  # the task that has read the stream ends
    timers = [each for each in gc.get_objects() if type(each) is asyncio.TimerHandle]
    assert not [timer for timer in timers if "_heartbeat" in repr(timer) and not timer.cancelled()]


def steps_under_way() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if "_Reader" in repr(task)]
