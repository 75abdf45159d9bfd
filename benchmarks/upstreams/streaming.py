"""A small uvloop server that responds to every request with an event stream.

``python -m benchmarks.upstreams.streaming PORT INTERVAL STREAMS EVENTS``. It sends the first event with the
head. Once STREAMS streams are open, it sends an event to each every INTERVAL seconds, EVENTS times in all;
the streams then stay open without events, so that a slow client can still read earlier ones. The events of
different streams are spread evenly over the interval, as those of real streams are.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import uvloop

from benchmarks.clients.base import Target
from benchmarks.machine import held_to, upstream_core
from benchmarks.upstreams.answers import EVENT
from testbed.process import free_port, running

__all__ = ["streaming"]

TICKS = 20  # per interval


@contextlib.contextmanager
def streaming(directory: Path, *, interval: float, streams: int, events: int) -> Iterator[Target]:
    """Run the server in a separate process while the block runs; the arguments are those above."""
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "benchmarks.upstreams.streaming",
        str(port),
        *map(str, (interval, streams, events)),
    ]
    with running(held_to(upstream_core(), command), directory / "streaming.log", port):
        yield Target(f"http://127.0.0.1:{port}/v1")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
FIRST = HEAD + _chunk(EVENT)
NEXT = _chunk(EVENT)


class _Clock:
    """Sends the events. At each tick, one of ``TICKS`` groups of streams gets its next event.

    The ticks begin when enough streams are open, and end with the last stream; the next client's streams
    start them again.
    """

    def __init__(self, interval: float, streams: int, events: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._seconds_per_tick = interval / TICKS
        self._expected = streams
        self._ticks = events * TICKS
        self._groups: list[set[_Stream]] = [set() for _ in range(TICKS)]
        self._open = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, stream: _Stream) -> None:
        self._groups[self._open % TICKS].add(stream)
        self._open += 1
        if self._open == self._expected:
            self._began = self._loop.time()
            self._tick(0)

    def discard(self, stream: _Stream) -> None:
        for group in self._groups:
            group.discard(stream)
        if not any(self._groups):
            self._open = 0
            if self._timer is not None:
                self._timer.cancel()

    def _tick(self, number: int) -> None:
        for stream in self._groups[number % TICKS]:
            stream.transport.write(NEXT)
        if number < self._ticks:
            when = self._began + (number + 1) * self._seconds_per_tick
            self._timer = self._loop.call_at(when, self._tick, number + 1)


class _Stream(asyncio.Protocol):
    """A connection with one request; the brace that closes its JSON body is the end of the request."""

    transport: asyncio.Transport

    def __init__(self, clock: _Clock) -> None:
        self._clock = clock

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"}"):
            self.transport.write(FIRST)
            self._clock.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._clock.discard(self)


async def _serve(port: int, interval: float, streams: int, events: int) -> None:
    clock = _Clock(interval, streams, events)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Stream(clock), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
