"""Simulated users of the demo: they chat, run the agent, and do not read some responses to the end."""

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
AGENTS = 50  # every 50th user runs the agent, which delays all other users: see demo_project/agent.py
READING = 5.0  # seconds between two runs of the agent
LEAVERS = 5  # one response in five is not read to the end
EXHAUSTED = ("PoolTimeout", "PoolFull")
TIMEOUT = httpx.Timeout(120.0)


@dataclass
class Seen:
    """What the users saw of the pool's calls.

    ``calls``              the calls that got a response
    ``first_byte``         seconds from the start of a call to the first byte of its response, summed up
    ``clock_differences``  for each call, the difference in seconds between the user's measurement and the
                           pool's: Django's time, on a busy machine
    ``left``               the responses that users did not read to the end
    ``errors``             how often each error was shown, by its name
    """

    calls: int = 0
    first_byte: float = 0.0
    clock_differences: list[float] = field(default_factory=list)
    left: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    def answer(self, first_byte: float) -> None:
        """Count a call whose first byte came after ``first_byte`` seconds."""
        self.calls += 1
        self.first_byte += first_byte


async def use(url: str, users: int, seconds: float, seen: Seen) -> None:
    """Send ``users`` users to the demo at once, for ``seconds`` seconds, and count in ``seen``.

    After that time a user starts no call, and closes a running response at its first token.
    """
    ends_at = time.monotonic() + seconds
    async with asyncio.TaskGroup() as group:
        for number in range(users):
            visit = _run_agents if number % AGENTS == AGENTS - 1 else _chat
            group.create_task(_visit(url, visit, ends_at, seen))


async def _visit(url: str, visit: Any, ends_at: float, seen: Seen) -> None:
    # verify=False: loading the machine's certificates, once for each user, would block the event loop.
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT, trust_env=False, verify=False) as browser:
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
            began = time.monotonic()  # the demo's call begins after the response's head
            async for event, data in _events(response):
                if event == "error":
                    seen.errors[data["error"]] += 1
                    if data["error"] in EXHAUSTED:
                        break
                pieces += 1
                if pieces == 1:
                    first_byte = time.monotonic() - began
                    seen.answer(first_byte)
                if event == "done":
                    seen.clock_differences.append(abs(first_byte - data["timing"]["first_token"]))
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
