"""An agent-like request: many short calls, one after another, made in two ways and timed."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import httpx

from llm_pool import pools

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

CALLS = 20
MESSAGES = [{"role": "user", "content": "Is a list in Python ordered? Answer yes or no."}]
MAX_TOKENS = 1


async def events(alias: str) -> AsyncIterator[bytes]:
    """Run the agent both ways on the pool ``alias``; yield server-sent events as it goes on.

    ``call``: one call has ended (``way``, ``number``, ``seconds``, ``dialed``); ``done``: all have;
    ``error``: one failed, and the run is over.
    """
    ways: dict[str, Callable[[str], Awaitable[bool]]] = {"client": _call_on_new_client, "pool": _call_on_pool}
    totals = dict.fromkeys(ways, 0.0)
    try:
        # Uncounted: the upstream reads the prompt into its cache, so that neither way pays for it.
        await _call_on_new_client(alias)
        # In turn, so that whatever else the machine is doing slows both ways alike.
        for number in range(1, CALLS + 1):
            for way, call in ways.items():
                start = time.perf_counter()
                dialed = await call(alias)
                seconds = time.perf_counter() - start
                totals[way] += seconds
                yield _event("call", {"way": way, "number": number, "seconds": seconds, "dialed": dialed})
    except Exception as error:  # noqa: BLE001  whatever failed, the page has to say so
        yield _event("error", {"error": type(error).__name__, "message": _words(error)})
    else:
        yield _event("done", totals)


async def _call_on_new_client(alias: str) -> bool:
    """Call as many projects do: a client made for the call and thrown away after it."""
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


async def _call_on_pool(alias: str) -> bool:
    completion = await pools[alias].acomplete(MESSAGES, max_tokens=MAX_TOKENS)
    return completion.timing is None or not completion.timing.reused


def _words(error: Exception) -> str:
    """Without the page of a manual, of which httpx tells those who program with it."""
    return str(error).partition("\nFor more information check:")[0]


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
