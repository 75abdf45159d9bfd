"""A stream of which one step was cancelled, interrupted or failed does not end as if it were whole."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from llm_pool.exceptions import ReadTimeout, StreamInterrupted
from testbed.chat import chat_stream
from tests.fixtures.engine import until_pool
from tests.fixtures.waiting import becomes_true

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llm_pool.calling.pool import LLMPool
    from testbed import ScriptedServer

ENGINES = ["native", "httpcore", "aiohttp"]
WORDS = ["Hel", "lo, ", "world"]
NEXT = r"ended before its answer was complete: an earlier step raised {}\. Start a new stream"


@pytest.fixture
def server(serve: Callable[..., ScriptedServer]) -> ScriptedServer:
    """A model that sends its first word at once, and the others when the gate "token" opens."""
    server = serve(chat_stream(WORDS, pace="token"))
    server.gate("token").admit()
    return server


async def hook(request: Any) -> None:
    """An event hook, which makes calls go through httpx."""


async def cancel_next(iterator: Any) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(iterator), 0.02)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("hooked", [False, True])
async def test_after_a_cancelled_anext_the_next_one_raises(
    hooked: bool, engine: str, configure: Callable[..., LLMPool], server: ScriptedServer, each_loop: str
) -> None:
    """Scenario 26: as in a view that sends pings while ``wait_for(anext(stream), 0.5)`` times out."""
    pool = configure(server, ENGINE=engine)
    if hooked:
        pool.aclient.event_hooks = {"request": [hook]}
    stream = pool.astream("hello")
    assert (await anext(stream)).text == "Hel"
    await cancel_next(stream)
    server.gate("token").open()
    for _ in range(2):
        with pytest.raises(StreamInterrupted, match=NEXT.format("CancelledError")) as caught:
            await anext(stream)
    assert (caught.value.partial, stream.completion) == ("Hel", None)
    await until_pool(pool.engine, lambda: pool.stats().in_use == 0)


async def test_a_stream_cancelled_before_its_answer_raises_too(
    pool_to: Callable[..., LLMPool], server: ScriptedServer, each_loop: str
) -> None:
    server.gate("token").shut()
    stream = pool_to(server).astream("hello")
    await cancel_next(stream)
    with pytest.raises(StreamInterrupted) as caught:
        await stream.astep()
    assert (caught.value.partial, caught.value.request_id) == ("", None)


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Set Python's handler of SIGINT: a shell makes processes in the background ignore the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("hooked", [False, True])
def test_after_an_interrupted_next_the_next_one_raises(
    hooked: bool, engine: str, configure: Callable[..., LLMPool], server: ScriptedServer
) -> None:
    """Scenario 26: KeyboardInterrupt; Celery's SoftTimeLimitExceeded is raised in the same way."""
    pool = configure(server, ENGINE=engine)
    if hooked:
        pool.client.event_hooks = {"request": [lambda request: None]}
    stream = pool.stream("hello")
    assert next(stream).text == "Hel"
    interrupter = threading.Thread(target=interrupt_in_step)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    interrupter.join()
    server.gate("token").open()
    for _ in range(2):
        with pytest.raises(StreamInterrupted, match=NEXT.format("KeyboardInterrupt")) as caught:
            next(stream)
    assert (caught.value.partial, stream.completion) == ("Hel", None)


def interrupt_in_step() -> None:
    """Send SIGINT to the main thread when it waits in a step of a stream."""
    main = threading.main_thread()
    assert becomes_true(lambda: {"Stream.step", "HostLoop.run"} <= set(functions_of(main)))
    signal.pthread_kill(main.ident or 0, signal.SIGINT)


def functions_of(thread: threading.Thread) -> Iterator[str]:
    """The names of the functions that the thread is in."""
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        yield frame.f_code.co_qualname
        frame = frame.f_back


@pytest.mark.parametrize("kind", ["stream", "astream"])
async def test_after_an_error_the_next_step_raises(
    kind: str, pool_to: Callable[..., LLMPool], server: ScriptedServer
) -> None:
    """Scenario 29: a loop that ignores errors does not take the text for the whole answer."""
    stream: Any = getattr(pool_to(server, read=0.1), kind)("hello")

    async def step() -> Any:
        return await anext(stream) if kind == "astream" else await asyncio.to_thread(next, stream, None)

    assert (await step()).text == "Hel"
    with pytest.raises(ReadTimeout):
        await step()
    with pytest.raises(StreamInterrupted, match=NEXT.format("ReadTimeout")):
        await step()


@pytest.mark.parametrize("close", ["close", "aclose"])
@pytest.mark.parametrize("waiting", [False, True])
async def test_a_stream_that_is_closed_ends(
    waiting: bool, close: str, pool_to: Callable[..., LLMPool], server: ScriptedServer, each_loop: str
) -> None:
    """Scenario 35: a close is no failure, even in the middle of a step. ``completion`` stays None."""
    stream = pool_to(server).astream("hello")
    await anext(stream)
    step = asyncio.create_task(stream.astep()) if waiting else None
    await asyncio.sleep(0)
    if close == "close":
        stream.close()
    else:
        await stream.aclose()
    assert step is None or await step == []
    for _ in range(2):
        assert [chunk async for chunk in stream] == []
    assert stream.completion is None
