"""CPU of checkout and release with 10 and with 1,000 idle connections: ``python -m benchmarks.checkout``.

It measures the ledger alone, and then whole calls to an nginx, one at a time and ten at a time. The rounds
are interleaved; each ratio compares the two rounds that ran one after the other.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

from llm_pool.engine.config import Limits, Origin, PoolConfig
from llm_pool.engine.head import RequestHead
from llm_pool.engine.ledger.ledger import Ledger
from llm_pool.engine.ledger.state import Dial, Waiter
from llm_pool.engine.loops.portal import adopt_server_loop
from llm_pool.engine.pool import Pool
from llm_pool.engine.request import Request
from testbed.programs import nginx

FEW, MANY = 10, 1000
AT_ONCE = (1, 10)
TIMEOUT = 60.0  # seconds for the connections to open, and for a round
LIMITS = Limits(
    max_connections=MANY, max_keepalive_connections=MANY, keepalive_expiry=None, max_lifetime=None
)

Round = Callable[[], float]
"""CPU seconds per call."""


def main() -> None:
    """Measure, and print a line for the ledger and for each number of calls at a time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--checkouts", type=int, default=50_000, help="with the ledger alone, in each round")
    parser.add_argument("--calls", type=int, default=3000, help="with the whole pool, in each round")
    options = parser.parse_args()
    print(f"{'CPU per checkout and release':<32}{f'{FEW} idle':>12}{f'{MANY} idle':>12}{'ratio':>28}")
    ledgers = [ledger_round(idle, options.checkouts) for idle in (FEW, MANY)]
    _compare("the ledger", *ledgers, options.rounds)
    with ExitStack() as running:
        directory = Path(running.enter_context(tempfile.TemporaryDirectory()))
        upstream = running.enter_context(nginx(directory, size=600, keepalive_seconds=3600))
        os.sched_setaffinity(upstream.pid, {min(os.sched_getaffinity(0))})
        pools = [running.enter_context(_PoolProcess(upstream.http_port, idle)) for idle in (FEW, MANY)]
        for at_once in AT_ONCE:
            rounds = [pool.round(at_once, options.calls) for pool in pools]
            _compare(f"a whole call, {at_once} at a time", *rounds, options.rounds)


def _compare(name: str, few: Round, many: Round, rounds: int) -> None:
    few(), many()  # warm-up
    pairs = [(few(), many()) if number % 2 else (many(), few())[::-1] for number in range(rounds)]
    ratios = sorted(more / less for less, more in pairs)
    less, more = (statistics.median(each) * 1e6 for each in zip(*pairs, strict=True))
    spread = f"{statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"
    print(f"{name:<32}{less:>9.2f} us{more:>9.2f} us{spread:>28}", flush=True)


# The ledger alone.


def ledger_round(idle: int, checkouts: int) -> Round:
    """Make a ledger with ``idle`` idle connections; the round does ``checkouts`` checkouts, one at a time."""
    ledger = Ledger(LIMITS)
    lane = ledger.dial_policy.lane(Origin("https", "llm.test", 443), "host loop")
    waiters = [Waiter(lane) for _ in range(idle)]
    for waiter in waiters:
        for order in ledger.arrive(waiter, 0.0):
            if isinstance(order, Dial):
                ledger.dialed(order.lane, object(), 1, 0.0)
    for waiter in waiters:
        assert waiter.entry is not None
        ledger.released(waiter.entry, 0.0)
    assert len(ledger.connections.pool_bound.idle) == idle

    def run() -> float:
        gc.collect()
        began = time.process_time()
        for _ in range(checkouts):
            waiter = Waiter(lane)
            ledger.arrive(waiter, 1.0)
            assert waiter.entry is not None
            ledger.released(waiter.entry, 1.0)
        return (time.process_time() - began) / checkouts

    return run


# The whole pool. Each size runs in a separate process, so that its event loop has no other connections.


class _PoolProcess:
    """A process with a pool and its idle connections; ``round`` sends it work."""

    def __init__(self, port: int, idle: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, child_pipe = context.Pipe()
        self._process = context.Process(target=_work, args=(child_pipe, port, idle), daemon=True)

    def __enter__(self) -> _PoolProcess:
        self._process.start()
        self._receive()  # the connections are open
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.send(None)
        self._process.join(TIMEOUT)

    def round(self, at_once: int, calls: int) -> Round:
        def run() -> float:
            self._pipe.send((at_once, calls))
            return self._receive()

        return run

    def _receive(self) -> float:
        if not self._pipe.poll(TIMEOUT):
            raise SystemExit(f"the pool's process sent no result within {TIMEOUT:g} s")
        cpu_per_call: float = self._pipe.recv()
        return cpu_per_call


def _work(pipe: Connection, port: int, idle: int) -> None:
    if len(os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # the upstream runs on the first core
    asyncio.run(_rounds(pipe, port, idle))


async def _rounds(pipe: Connection, port: int, idle: int) -> None:
    adopt_server_loop()
    origin = Origin("http", "127.0.0.1", port)
    head = RequestHead(origin, b"POST", b"/v1/chat/completions", [(b"Host", b"127.0.0.1:%d" % port)])
    request = Request(head, b"{}")
    pool = Pool(PoolConfig(replace(LIMITS, min_connections=idle), proxy=""))
    await pool.prewarm(origin)
    deadline = time.monotonic() + TIMEOUT
    while pool.stats().idle < idle and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    pipe.send(0.0)
    while (task := await asyncio.to_thread(pipe.recv)) is not None:
        at_once, calls = task
        gc.collect()
        began = time.process_time()
        await asyncio.gather(*(_calls(pool, request, calls // at_once) for _ in range(at_once)))
        cpu = time.process_time() - began
        stats = pool.stats()
        assert stats.connections == stats.idle == idle, stats
        pipe.send(cpu / (calls // at_once * at_once))
    await pool.aclose()


async def _calls(pool: Pool, request: Request, count: int) -> None:
    for _ in range(count):
        response = await pool.fetch(request)
        assert response.status == 200


if __name__ == "__main__":
    main()
