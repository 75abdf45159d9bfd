"""What an agent does: many short calls, one after another. They are made in two ways, and each is timed."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import httpx

from llm_pool import pools

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

CALLS = 20  # in each way
MESSAGES = [{"role": "user", "content": "Is a list in Python ordered? Answer yes or no."}]
MAX_TOKENS = 1


async def run(alias: str) -> AsyncIterator[bytes]:
    """Make the calls to the pool ``alias`` in both ways; yields server-sent events.

    ``call``: a call has ended, with ``way`` ("client" or "pool"), ``number``, ``seconds`` and ``dialed``;
    ``done``: all calls have ended, with the seconds of each way;
    ``failed``: a call has failed and the run ends, with ``error`` (the exception's class) and ``message``.
    """
    ways: dict[str, Callable[[str], Awaitable[bool]]] = {"client": _call_new_client, "pool": _call_pool}
    totals = dict.fromkeys(ways, 0.0)
    try:
        # This call is not timed. It makes the model cache the prompt, which would slow the first timed call.
        await _call_new_client(alias)
        # The ways take turns, so that other work on the machine slows both equally.
        for number in range(1, CALLS + 1):
            for way, call in ways.items():
                start = time.perf_counter()
                dialed = await call(alias)
                seconds = time.perf_counter() - start
                totals[way] += seconds
                yield _event("call", {"way": way, "number": number, "seconds": seconds, "dialed": dialed})
    except Exception as error:  # noqa: BLE001  the page shows every error
        # httpx appends the address of a manual page, which does not help the visitor.
        message = str(error).partition("\nFor more information check:")[0]
        yield _event("failed", {"error": type(error).__name__, "message": message})
    else:
        yield _event("done", totals)


async def _call_new_client(alias: str) -> bool:
    """Call with a new ``httpx.AsyncClient``, as many projects do. Returns whether a connection was opened."""
    settings = pools[alias].settings
    params = {"max_tokens": MAX_TOKENS}
    path, body = settings.provider.completion_request(MESSAGES, settings.model, params, stream=False)
    async with httpx.AsyncClient(timeout=60.0) as client:
        response = await client.post(
            f"{settings.base_url}{path}", headers=settings.provider.headers(settings.key()), json=body
        )
        response.raise_for_status()
        response.json()
    return True


async def _call_pool(alias: str) -> bool:
    """Call through the pool. Returns whether a connection was opened."""
    completion = await pools[alias].acomplete(MESSAGES, max_tokens=MAX_TOKENS)
    return completion.timing is None or not completion.timing.reused


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
