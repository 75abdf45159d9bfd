"""Users of the demo: they chat, run the agent, and some leave in the middle."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import httpx

__all__ = ["Seen", "use"]

QUESTIONS = ("Say hello.", "Name a colour.", "What is two and two?", "Name a fruit that is red.")
AGENTS = 50  # every 50th user runs the agent, which holds up all others: see demo_project/agent.py
READING = 5.0  # seconds that a user looks at what the agent has done
LEAVERS = 5  # every fifth answer is left in the middle
EXHAUSTED = ("PoolTimeout", "PoolFull")
PATIENCE = httpx.Timeout(120.0)


@dataclass
class Seen:
    """What the users saw of the pool's calls.

    ``first_byte`` is the time in seconds, of all answered calls together, from when a view asked the pool
    until the first of the answer came. ``apart`` is by how much the user's clock and the pool's differ about
    it, for each call: between the two are Django and a busy machine.
    """

    calls: int = 0
    first_byte: float = 0.0
    apart: list[float] = field(default_factory=list)
    left: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    def answer(self, first_byte: float) -> None:
        """A call that was answered, after so long."""
        self.calls += 1
        self.first_byte += first_byte


async def use(url: str, users: int, seconds: float, seen: Seen) -> None:
    """Let ``users`` loose on the demo at once. Who has asked at the end stays until something is answered."""
    ends_at = time.monotonic() + seconds
    async with asyncio.TaskGroup() as group:
        for number in range(users):
            visit = _run_agents if number % AGENTS == AGENTS - 1 else _chat
            group.create_task(_visit(url, visit, ends_at, seen))


async def _visit(url: str, visit: Any, ends_at: float, seen: Seen) -> None:
    # Without ``verify`` each would load the machine's certificates, and hold up all others meanwhile.
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, trust_env=False, verify=False) as browser:
        await browser.get("/")
        browser.headers["X-CSRFToken"] = browser.cookies["csrftoken"]
        await visit(browser, ends_at, seen)


def _leaves() -> bool:
    return random.randrange(LEAVERS) == 0


async def _chat(browser: httpx.AsyncClient, ends_at: float, seen: Seen) -> None:
    while time.monotonic() < ends_at:
        leaves = _leaves()
        body = {"messages": [{"role": "user", "content": random.choice(QUESTIONS)}]}
        pieces, first_byte = 0, 0.0
        async with browser.stream("POST", "/answer/", json=body) as response:
            asked_at = time.monotonic()  # the pool is asked when the head has been sent
            async for event, data in _events(response):
                if event == "error":
                    seen.errors[data["error"]] += 1
                    if data["error"] in EXHAUSTED:
                        break
                pieces += 1
                if pieces == 1:
                    first_byte = time.monotonic() - asked_at
                    seen.answer(first_byte)
                if event == "done":
                    seen.apart.append(abs(first_byte - data["timing"]["first_token"]))
                if event == "message" and (leaves or time.monotonic() > ends_at):
                    seen.left += 1
                    break


async def _run_agents(browser: httpx.AsyncClient, ends_at: float, seen: Seen) -> None:
    for distance in cycle(("near", "far")):
        if time.monotonic() > ends_at:
            break
        async with browser.stream("POST", "/agent/run/", json={"distance": distance}) as response:
            async for event, data in _events(response):
                if event == "call" and data["way"] == "pool":
                    seen.answer(data["seconds"])
                elif event == "error":
                    seen.errors[data["error"]] += 1
        await asyncio.sleep(READING)


async def _events(response: httpx.Response) -> AsyncIterator[tuple[str, Any]]:
    response.raise_for_status()
    event = "message"
    async for line in response.aiter_lines():
        name, _, value = line.partition(": ")
        if name == "event":
            event = value
        elif name == "data":
            yield event, json.loads(value)
            event = "message"
