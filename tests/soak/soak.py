"""One soak: calls to servers with faults for a while, and then an audit of what is left."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import threading
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from llm_pool.calling.stream import Stream
from llm_pool.engine.connection import Connection
from llm_pool.engine.exchange import Exchange
from llm_pool.engine.ledger.state import Entry, Waiter
from llm_pool.engine.loops import portal
from llm_pool.engine.loops.loop_call import LoopCall
from tests.fixtures.internals import ledger_of
from tests.fixtures.leaks import Holdings
from tests.soak.callers import Callers
from tests.soak.interrupted import Interrupt
from tests.soak.record import ErrorLog, Record
from tests.soak.world import World

__all__ = ["Soak"]

SETTLE_SECONDS = 10.0
"""Seconds within which connections and tasks must end after the last call."""
POLL_SECONDS = 0.02
GROWTH = 1.1
SPARE = 16 * 1024 * 1024
"""Memory may grow to ``GROWTH`` times that after a third of the time, plus these bytes."""
TRANSIENT = (Connection, Exchange, Entry, Waiter, LoopCall, Stream)


class Soak:
    """A soak of ``seconds``. Call ``run`` once; then ``record`` has the outcomes and the violations.

    It prints a line of progress every ``progress_every`` seconds.
    """

    def __init__(self, seconds: float, seed: str, *, progress_every: float = 10.0) -> None:
        self.seconds, self.seed = seconds, seed
        self.record = Record()
        self.leaked: Counter[str] = Counter()
        self.memory: list[int] = []
        """Bytes after a third of the time, and at the end."""
        self.opened = self.reused = 0
        self._objects_before = _transient()
        self._progress_every = progress_every

    def run(self) -> None:
        """Make calls for ``seconds``, and then audit what is left."""
        portal.portal()  # before the audit's first count, since the portal never ends
        log = ErrorLog(self.record)
        logging.getLogger().addHandler(log)
        hooks = sys.unraisablehook, threading.excepthook
        sys.unraisablehook = self._unraisable
        threading.excepthook = self._thread_failed
        before, descriptors = Holdings.now(), _descriptors()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)  # for the streams that callers abandon
                self._run_calls()
                self._audit_process(before, descriptors)
        finally:
            sys.unraisablehook, threading.excepthook = hooks
            logging.getLogger().removeHandler(log)

    def _run_calls(self) -> None:
        with World(self.record, self.seed) as world:
            callers = Callers(world.places, self.record, self.seed)
            callers.start()
            self._wait(world)
            callers.stop()
            world.calm_down()
            self.memory.append(_resident())
            self._audit_idle(world)
            for pool in world.pools:
                pool.close()
            self._audit_closed(world)

    def _wait(self, world: World) -> None:
        began = time.monotonic()
        printed = began
        while (elapsed := time.monotonic() - began) < self.seconds:
            time.sleep(min(1.0, self.seconds - elapsed))
            self.record.look_for_hangs()
            if not self.memory and elapsed >= self.seconds / 3:
                self.memory.append(_resident())
            if time.monotonic() - printed >= self._progress_every:
                printed = time.monotonic()
                self._print_progress(world, printed - began)

    def _print_progress(self, world: World, elapsed: float) -> None:
        pools = "; ".join(_brief(pool.name, pool.stats()) for pool in world.pools)
        print(
            f"{elapsed:5.0f} s  {self.record.calls.total()} calls, {_resident() >> 20} MiB, "
            f"{len(self.record.violations)} violations  [{pools}]",
            flush=True,
        )

    # The audit.

    def _audit_idle(self, world: World) -> None:
        """After the last call, every connection is idle."""
        for pool in world.pools:
            if not _becomes_true(lambda pool=pool: _all_idle(pool.stats())):
                self.record.violation(f"pool {pool.name!r} is not at rest after its calls: {pool.stats()}")
            stats = pool.stats()
            self.leaked["slots"] += stats.connections - stats.idle
            self.opened += stats.opened
            self.reused += stats.reused

    def _audit_closed(self, world: World) -> None:
        """After the pools are closed: no connection at a server, task on the portal or object in memory."""
        for pool in world.pools:
            stats = pool.stats()
            if stats.connections or ledger_of(pool).total:
                self.leaked["connections"] += ledger_of(pool).total
                self.record.violation(f"after its close {pool.name!r} has {stats}")
        if not _becomes_true(lambda: world.held() == 0):
            self.leaked["connections at the servers"] = world.held()
            self.record.violation(f"{world.held()} connections are left at the servers")
        host_loop = portal.portal()
        if not _becomes_true(lambda: host_loop.run(_other_tasks) == 0):
            self.leaked["tasks"] = host_loop.run(_other_tasks)
            self.record.violation(f"{self.leaked['tasks']} tasks are left on the portal")
        if not _becomes_true(lambda: not _transient() - self._objects_before):
            left = _transient() - self._objects_before
            self.leaked.update(left)
            self.record.violation(f"objects are left in memory: {dict(left)}; {_holders()}")

    def _audit_process(self, before: Holdings, descriptors: int) -> None:
        try:
            before.assert_no_more_than_these()
        except AssertionError as left:
            self.leaked["threads and sockets"] = str(left).count(";") + 1
            self.record.violation(str(left))
        if not _becomes_true(lambda: _descriptors() <= descriptors):
            self.leaked["file descriptors"] = _descriptors() - descriptors
            self.record.violation(f"{self.leaked['file descriptors']} file descriptors are left")
        if len(self.memory) == 2 and self.memory[1] > self.memory[0] * GROWTH + SPARE:
            self.record.violation(f"memory grew from {self.memory[0]} to {self.memory[1]} bytes")

    def _unraisable(self, what: Any) -> None:
        if isinstance(what.exc_value, Interrupt):
            return  # it came during a finalizer, and the call went on
        self.record.violation(f"raised where nothing can catch it: {what.object!r}", what.exc_value)

    def _thread_failed(self, what: Any) -> None:
        self.record.violation(f"a thread ended with an error: {what.thread}", what.exc_value)

    def table(self) -> str:
        """The counts of the soak as text."""
        record = self.record
        lines = [f"seed {self.seed}, {self.seconds:g} s"]
        for title, counts in (
            ("calls", record.calls),
            ("outcomes", record.outcomes),
            ("faults of the servers", record.faults),
            ("other events", record.events),
        ):
            lines.append(f"{title}: {counts.total()}")
            lines += [f"  {count:>8}  {name}" for name, count in counts.most_common()]
        lines.append(f"connections: {self.opened} opened, {self.reused} calls on a reused one")
        lines += [f"  {peak:>8}  peak at the servers of {name!r}" for name, peak in record.peaks.items()]
        lines.append(f"longest call: {record.longest:.2f} s")
        lines.append("memory: " + " -> ".join(f"{size >> 20} MiB" for size in self.memory))
        lines.append(f"leaked: {'; '.join(f'{n} {what}' for what, n in (+self.leaked).items()) or 'nothing'}")
        lines.append(f"violations: {len(record.violations)}")
        return "\n".join(lines)


def _brief(name: str, stats: Any) -> str:
    return (
        f"{name}: {stats.in_use} in use, {stats.idle} idle, {stats.dialing} dialing, {stats.waiting} waiting"
    )


def _all_idle(stats: Any) -> bool:
    return stats.connections == stats.idle and not (stats.in_use or stats.dialing or stats.waiting)


def _becomes_true(predicate: Any) -> bool:
    """Whether the predicate becomes true within ``SETTLE_SECONDS``.

    It polls: neither the kernel nor the garbage collector has an event to wait for.
    """
    deadline = time.monotonic() + SETTLE_SECONDS
    while not predicate():
        if time.monotonic() > deadline:
            return False
        gc.collect()
        time.sleep(POLL_SECONDS)
    return True


async def _other_tasks() -> int:
    return len(asyncio.all_tasks()) - 1


def _transient() -> Counter[str]:
    return Counter(kind.__name__ for kind in map(type, gc.get_objects()) if issubclass(kind, TRANSIENT))


def _holders() -> str:
    """Say for each transient object which types of objects refer to it."""
    left = [each for each in gc.get_objects() if issubclass(type(each), TRANSIENT)]
    holders = [
        sorted({type(holder).__name__ for holder in gc.get_referrers(each) if holder is not left})
        for each in left
    ]
    return "; ".join(f"{type(each).__name__} in {names}" for each, names in zip(left, holders, strict=True))


def _resident() -> int:
    """The resident memory of the process in bytes; 0 without /proc."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    except FileNotFoundError:
        return 0


def _descriptors() -> int:
    try:
        return len(list(Path("/proc/self/fd").iterdir()))
    except FileNotFoundError:
        return 0
