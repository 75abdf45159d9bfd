"""A simulated model server."""

from __future__ import annotations

import asyncio
import functools
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

import pytest

from demo_project.upstream import simulated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def upstream() -> Iterator[str]:
    """URL of a simulated model server. Its loop outlives the test's loop, as a pool's connections do."""

    async def serve(started: Future[tuple[int, Callable[[], object]]]) -> None:
        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with simulated.model_server() as port:
            started.set_result((port, functools.partial(loop.call_soon_threadsafe, over.set)))
            await over.wait()

    started: Future[tuple[int, Callable[[], object]]] = Future()
    thread = threading.Thread(target=asyncio.run, args=(serve(started),))
    thread.start()
    port, end = started.result(timeout=5)
    yield f"http://127.0.0.1:{port}/v1"
    end()
    thread.join()
