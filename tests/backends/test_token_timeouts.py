"""On every engine, ``first_token`` and ``between_tokens`` end a stream that delivers no content."""

from __future__ import annotations

import asyncio
import json
import time
from functools import partial

import pytest

from llm_pool.exceptions import ReadTimeout, StreamInterrupted, TokenTimeout
from llm_pool.http import event_stream
from testbed.behaviours import EVENTS
from testbed.chat import chat_event
from tests.backends.servers import by_path, model
from tests.fixtures.callers import at_once, in_thread, read_text

COMMENT = b": keep-alive\n\n"
ROLE = chat_event({"role": "assistant", "content": ""})
NO_CHOICES = chat_event(None)
TEXT = chat_event({"content": "a"})
DONE = chat_event({}, finish_reason="stop") + b"data: [DONE]\n\n"

BY_TASK_AND_THREAD = pytest.mark.parametrize("method", ["astream", "stream"])


def pinging(piece, *before, status=200, every=0.05):
    """Send the pieces ``before``, and then ``piece`` every 0.05 s without end."""

    async def behaviour(exchange):
        await exchange.head(status, EVENTS)
        for each in before:
            await exchange.data(each)
        while True:
            await asyncio.sleep(every)
            await exchange.data(piece)

    return behaviour


def paced(*pieces, every):
    """Wait ``every`` seconds before each of the pieces, and then end the stream."""

    async def behaviour(exchange):
        await exchange.head(200, EVENTS)
        for piece in pieces:
            await asyncio.sleep(every)
            await exchange.data(piece)
        await exchange.data(DONE)
        await exchange.end()

    return behaviour


async def silent(exchange):
    await exchange.hold()


def by_prompt(**behaviours):
    """Choose the behaviour by the prompt: streams that wait can do so at the same time."""

    async def behaviour(exchange):
        await behaviours[prompt_of(exchange)](exchange)

    return behaviour


def prompt_of(exchange):
    return json.loads(exchange.body)["messages"][-1]["content"]


@pytest.fixture
def pool_of(serve, play, configure):
    """``pool_of(behaviour, read=1.0)``: a pool whose provider behaves so; the options are its timeouts."""

    def make(behaviour, **timeouts):
        script = play(by_path(completions=behaviour))
        return configure(serve(script), TIMEOUTS={"total": 20.0, **timeouts})

    return make


async def fails_after(seconds, stream, match):
    began = time.monotonic()
    with pytest.raises(TokenTimeout, match=match) as caught:
        await read_text(stream)
    assert isinstance(caught.value, ReadTimeout)
    assert not isinstance(caught.value, StreamInterrupted)
    assert seconds - 0.02 < time.monotonic() - began < seconds + 2.5


@BY_TASK_AND_THREAD
async def test_keep_alives_do_not_postpone_the_first_token(pool_of, method, each_loop):
    pings = {"comments": pinging(COMMENT), "roles": pinging(ROLE), "no choices": pinging(NO_CHOICES)}
    start = getattr(pool_of(by_prompt(**pings), first_token=0.5), method)
    match = r'for 0\.5 s after the request, TIMEOUTS\["first_token"\]'
    await at_once({ping: fails_after(0.5, start(ping), match) for ping in pings})


@BY_TASK_AND_THREAD
async def test_keep_alives_do_not_postpone_the_next_token(pool_of, method, each_loop):
    """The text so far is kept, as at the read timeout."""
    pings = {"comments": pinging(COMMENT, TEXT), "roles": pinging(ROLE, TEXT)}
    start = getattr(pool_of(by_prompt(**pings), first_token=30.0, between_tokens=0.5), method)

    async def keeps_the_text(ping):
        stream = start(ping)
        await fails_after(0.5, stream, r'for 0\.5 s after the last, TIMEOUTS\["between_tokens"\]')
        assert stream.text == "a"
        assert stream.completion is None

    await at_once({ping: keeps_the_text(ping) for ping in pings})


@BY_TASK_AND_THREAD
async def test_it_holds_without_a_read_timeout(pool_of, method):
    """Before the head of the answer, and within the body of an error."""
    faults = {"silence": silent, "endless error": pinging(b"x", status=500)}
    start = getattr(pool_of(by_prompt(**faults), read=None, first_token=0.3), method)
    await at_once({fault: fails_after(0.3, start(fault), "first_token") for fault in faults})


async def test_content_that_comes_in_time_restarts_it(pool_of):
    """The stream takes longer than either timeout. A keep-alive comes before each piece of content."""
    deltas = {
        "text": {"content": "a"},
        "reasoning": {"reasoning_content": "a"},
        "tool calls": {"tool_calls": [{"index": 0, "id": "1"}]},
    }
    streams = {kind: [COMMENT, ROLE, chat_event(delta)] * 5 for kind, delta in deltas.items()}
    behaviour = by_prompt(**{kind: paced(*pieces, every=0.1) for kind, pieces in streams.items()})
    pool = pool_of(behaviour, first_token=1.2, between_tokens=1.2)

    async def is_read_to_its_end(kind):
        stream = pool.astream(kind)
        await read_text(stream)
        assert stream.completion.finish_reason == "stop"

    await at_once({kind: is_read_to_its_end(kind) for kind in deltas})


async def test_a_caller_that_asks_late_is_not_to_blame(serve, play, configure):
    """The timer stops while the caller asks for nothing, also after a chunk without content."""

    async def at_gate(exchange):
        await exchange.head(200, EVENTS)
        await exchange.data(ROLE)
        for piece in (TEXT, DONE):
            await exchange.wait_for(prompt_of(exchange))
            await exchange.data(piece)
        await exchange.end()

    server = serve(play(at_gate))
    pool = configure(server, TIMEOUTS={"first_token": 0.8, "between_tokens": 0.8})

    async def asks_late(method):
        stream = getattr(pool, method)(method)
        step = stream.astep if method == "astream" else partial(in_thread, stream.step)
        await step()
        for _ in range(2):
            await asyncio.sleep(1.0)  # longer than the timeouts
            stepping = asyncio.ensure_future(step())
            await asyncio.sleep(0.1)
            server.gate(method).admit(1)
            await stepping
        await read_text(stream)
        assert stream.completion.text == "a"

    await at_once({method: asks_late(method) for method in ("astream", "stream")})


async def test_none_turns_it_off(pool_of):
    pool = pool_of(paced(*[COMMENT] * 10, TEXT, every=0.05), first_token=None, between_tokens=None)
    assert await read_text(pool.astream("hello")) == "a"
    pool = pool_of(pinging(COMMENT, TEXT), first_token=None, between_tokens=0.2)
    await fails_after(0.2, pool.astream("hello"), "between_tokens")


async def test_a_call_without_a_stream_has_no_such_timeout(pool_of):
    async def late(exchange):
        await asyncio.sleep(0.5)
        await model(exchange)

    pool = pool_of(late, first_token=0.1, between_tokens=0.1)
    assert (await pool.acomplete("hello")).text == "Hello!"


@BY_TASK_AND_THREAD
async def test_it_holds_for_a_call_through_httpx(pool_of, method):
    """With an event hook, as instrumentation installs them."""

    async def ahook(_):
        pass

    pool = pool_of(pinging(COMMENT), first_token=0.3)
    pool.client.event_hooks = {"request": [lambda _: None]}
    pool.aclient.event_hooks = {"request": [ahook]}
    await fails_after(0.3, getattr(pool, method)("hello"), "first_token")


async def test_it_ends_a_stream_to_the_browser(pool_of):
    response = event_stream(pool_of(pinging(COMMENT, TEXT), between_tokens=0.3).astream("hello"))
    events = [event async for event in response]
    assert b'"text": "a"' in events[0]
    assert b'"error": "TokenTimeout"' in events[-1]


async def test_pings_of_anthropic_do_not_postpone_it(serve, play, configure):
    ping = b'event: ping\ndata: {"type": "ping"}\n\n'
    server = serve(play(pinging(ping)))
    pool = configure(server, PROVIDER="anthropic", BASE_URL=server.url, TIMEOUTS={"first_token": 0.3})
    await fails_after(0.3, pool.astream("hello", max_tokens=5), "first_token")
