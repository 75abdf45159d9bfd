"""Browsers that read streams of server-sent events from a server: the server's CPU per token."""

from __future__ import annotations

import asyncio
import statistics
import time
from urllib.parse import urlsplit

import httptools

from benchmarks.clients import AsyncClient, Target
from benchmarks.work.calls import WARM_UP

__all__ = ["browsers", "tokens_of"]

MAX_OPENING = 50  # streams that are opened at the same time
TIMEOUT = 60.0  # seconds until the slowest server has sent the last token


async def browsers(
    client: AsyncClient, *, concurrency: int, seconds: float, interval: float, server: int
) -> dict[str, float]:
    """Open ``concurrency`` streams at ``client.target``, and read ``tokens_of(seconds, interval)`` from each.

    ``interval`` has the seconds between two tokens of a stream, and ``server`` the process id of the server.
    Returns its CPU seconds per token after the warm-up (all threads, user and system), the tokens per second,
    and the median of the seconds that the browsers' last tokens came too late.
    """
    opening = asyncio.Semaphore(MAX_OPENING)
    tokens = tokens_of(seconds, interval)
    async with asyncio.timeout(TIMEOUT):
        opened = await asyncio.gather(
            *(_open(client.target, opening, tokens, interval) for _ in range(concurrency))
        )
        await asyncio.sleep(seconds * WARM_UP)
        wall, cpu = time.perf_counter(), _cpu_of(server)
        before = sum(browser.tokens for browser in opened)
        delays = await asyncio.gather(*(browser.delay for browser in opened))
    wall, cpu = time.perf_counter() - wall, _cpu_of(server) - cpu
    read = sum(browser.tokens for browser in opened) - before
    return {"cpu": cpu / read, "rate": read / wall, "behind": statistics.median(delays)}


def tokens_of(seconds: float, interval: float) -> int:
    """Return how many tokens a stream has in ``seconds`` seconds and the warm-up before them."""
    return round(seconds * (1 + WARM_UP) / interval)


async def _open(target: Target, opening: asyncio.Semaphore, tokens: int, interval: float) -> _Browser:
    """Open a stream and wait for its first token, which is sent before the others begin to come."""
    async with opening:
        url = urlsplit(target.completions)
        browser = _Browser(tokens, interval)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(lambda: browser, url.hostname, url.port)
        transport.write(f"GET {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n".encode())
        await browser.first
    return browser


def _cpu_of(process: int) -> float:
    """Return the CPU seconds of all threads of a process so far; see clock_getcpuclockid(3)."""
    return time.clock_gettime((~process << 3) | 2)


class _Browser(asyncio.Protocol):
    """One stream. It only counts tokens, because it shares its core with the upstream.

    ``first``   is done when the first token has come
    ``tokens``  how many have come
    ``delay``   the seconds that the last one came too late. The token that was least late defines when each
                of the others was due
    """

    def __init__(self, tokens: int, interval: float) -> None:
        loop = asyncio.get_running_loop()
        self.first: asyncio.Future[None] = loop.create_future()
        self.delay: asyncio.Future[float] = loop.create_future()
        self.tokens = 0
        self._last = 1 + tokens
        self._interval = interval
        self._least = float("inf")
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, error: Exception | None) -> None:
        for waiter in (self.first, self.delay):
            if not waiter.done():
                waiter.set_exception(error or ConnectionResetError("the server ended the stream too early"))

    def on_body(self, data: bytes) -> None:
        tokens = data.count(b"data: ")
        self.tokens += tokens
        if not self.first.done():
            self.first.set_result(None)
        elif tokens and not self.delay.done():
            late = time.perf_counter() - self.tokens * self._interval
            self._least = min(late, self._least)
            if self.tokens >= self._last:
                self.delay.set_result(late - self._least)
