"""Cancels or interrupts a call at one chosen step, so that a test can go through all steps."""

from __future__ import annotations

import asyncio
import re
import sys
import types
from typing import TYPE_CHECKING, Any

import pytest

from tests.fixtures.callers import AT_ONCE, until
from tests.fixtures.engine import request_to

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

    from llm_pool.engine.loops.host_loop import HostLoop
    from llm_pool.engine.pool import Pool
    from testbed import ScriptedServer

__all__ = [
    "CANCEL_MOMENTS",
    "after_turns",
    "assert_serves_at_once",
    "cancel",
    "cancelled_at",
    "interrupted_at",
]

CANCEL_MOMENTS = ("while it waits", "in the tick of delivery")
"""When an await is cancelled: while its future is pending, or when it is done and the task still waits."""


async def cancelled_at(step: int, moment: str, coroutine: Coroutine[Any, Any, Any]) -> tuple[bool, Any]:
    """Await ``coroutine``; cancel its task at await number ``step``. Return (whether it was reached, result).

    Raises CancelledError if the coroutine does.
    """
    return await _step(step, moment, coroutine)


@types.coroutine
def _step(
    step: int, moment: str, coroutine: Coroutine[Any, Any, Any]
) -> Generator[Any, Any, tuple[bool, Any]]:
    task = asyncio.current_task()
    assert task is not None
    resume: Callable[[], Any] = lambda: coroutine.send(None)  # noqa: E731
    number = 0
    while True:
        try:
            future = resume()
        except StopIteration as end:
            return number > step, end.value
        if number == step:
            if moment == CANCEL_MOMENTS[0] or future is None:
                asyncio.get_running_loop().call_soon(task.cancel)
            else:
                future.add_done_callback(lambda _: task.cancel())  # called before the task's own callback
        number += 1
        try:
            yield future
        except BaseException as error:  # noqa: BLE001 - the coroutine handles it
            resume = lambda error=error: coroutine.throw(error)  # noqa: E731
        else:
            resume = lambda: coroutine.send(None)  # noqa: E731


def after_turns(host_loop: HostLoop, turns: int, function: Callable[[], object]) -> None:
    """Call ``function`` on ``host_loop`` after ``turns`` turns of its event loop."""

    def turn(left: int) -> None:
        if left:
            host_loop.loop.call_soon(turn, left - 1)
        else:
            function()

    host_loop.post(turn, turns)


_INTERRUPTED = re.compile(r"/llm_pool/|/threading\.py$|/concurrent/futures/").search


def interrupted_at(step: int, function: Callable[..., Any], *args: Any) -> tuple[bool, Any]:
    """Call ``function``; raise KeyboardInterrupt at step ``step``. Return (whether it was reached, result).

    A step is a point where CPython handles signals: the entry of a function, or the return from a built-in.
    Only steps in the package and in the modules ``threading`` and ``concurrent.futures`` count.
    """
    steps = 0

    def profile(frame: types.FrameType, event: str, arg: object) -> None:
        nonlocal steps
        if event not in ("call", "c_return") or not _INTERRUPTED(frame.f_code.co_filename):
            return
        steps += 1
        if steps - 1 == step:
            raise KeyboardInterrupt

    sys.setprofile(profile)
    try:
        result = function(*args)
    finally:
        sys.setprofile(None)
    return steps > step, result


async def cancel(task: asyncio.Task) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def assert_serves_at_once(pool: Pool, server: ScriptedServer) -> None:
    """Assert that a pool of one connection serves the next call at once, and that nothing is left waiting."""
    async with asyncio.timeout(AT_ONCE):
        assert (await pool.fetch(request_to(server))).status == 200
    await until(lambda: pool.stats().in_use == 0)
    assert pool.stats().waiting == 0
    assert server.peak_open <= pool.stats().max_connections
