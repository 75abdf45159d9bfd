"""A small uvloop server: answers every request with an event stream, an event each so many seconds.

``python -m benchmarks.upstreams.streaming PORT INTERVAL STREAMS EVENTS``. The first event comes with the
head, the others once so many streams are open. The streams are spread evenly over the interval, so that a
client meets them one by one, as it would in life. They fall silent after so many events, so that one that
cannot keep up catches up in the end.
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

TICKS = 20  # to the interval


@contextlib.contextmanager
def streaming(directory: Path, *, interval: float, streams: int, events: int) -> Iterator[Target]:
    """The server, as a process of its own."""
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
    """Ticks from when there are enough streams; at each tick one group of them gets its next event.

    When the last stream has gone it waits for the next client's.
    """

    def __init__(self, interval: float, streams: int, events: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._tick = interval / TICKS
        self._enough = streams
        self._turns = events * TICKS
        self._groups: list[set[_Stream]] = [set() for _ in range(TICKS)]
        self._open = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, stream: _Stream) -> None:
        self._groups[self._open % TICKS].add(stream)
        self._open += 1
        if self._open == self._enough:
            self._began = self._loop.time()
            self._turn(0)

    def discard(self, stream: _Stream) -> None:
        for group in self._groups:
            group.discard(stream)
        if not any(self._groups):
            self._open = 0
            if self._timer is not None:
                self._timer.cancel()

    def _turn(self, number: int) -> None:
        for stream in self._groups[number % TICKS]:
            stream.transport.write(NEXT)
        if number < self._turns:
            when = self._began + (number + 1) * self._tick
            self._timer = self._loop.call_at(when, self._turn, number + 1)


class _Stream(asyncio.Protocol):
    """A connection. Its one request ends with the brace that closes its JSON."""

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
