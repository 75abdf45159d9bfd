"""What a pool looks like at one moment, and what it has done so far."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..config import Origin
from ..ledger.ledger import Ledger
from ..request import Marks
from .histogram import Histogram, Spread

__all__ = ["PoolStats", "Tally", "describe", "take_stats"]


@dataclass(frozen=True, slots=True)
class PoolStats:
    """Gauges of now, and counters since the pool was made, in this process.

    Gauges: ``connections`` are in use, idle or dialing; those that are ``closing`` serve nobody and are not
    among them, but each takes the place of another until it has closed. ``streams`` are the calls that
    connections carry (over HTTP/2 one connection carries many); ``waiting`` the callers in the queue,
    ``longest_wait`` the seconds the first of them has waited; ``utilization`` is in use / max, 0.0 to 1.0;
    ``oldest_connection`` is an age in seconds. Both ages are 0.0 where there is none.

    Counters: ``requests`` asked for a connection, ``queued`` of them found all connections taken and no room
    for another (who only waits for a dial of his own is not queued), ``reused`` got one that was there
    before; ``opened`` connections, and ``closed`` ones by reason. ``pool_timeouts`` waited in vain for as
    long as the pool timeout, ``refused`` found the queue full, ``cancelled`` were given up by their caller,
    ``replays`` is how often a request was sent again, ``leaks_suspected`` how many responses were held longer
    than the ``leak_threshold``. ``dial_failures`` by the class of the error; ``dial_failure`` is the message
    of the last, until a dial to the same origin succeeds. Bytes are of bodies, as they came over the wire.
    Tokens are what the providers told.

    Durations in seconds: ``wait`` for a connection, ``dial`` of a connection that came about, and from the
    start of a call ``first_byte`` of its answer, ``first_token`` of a stream, and ``total`` of an answer that
    was whole.
    """

    max_connections: int
    connections: int
    in_use: int
    idle: int
    dialing: int
    closing: int
    waiting: int
    streams: int
    utilization: float
    oldest_connection: float
    longest_wait: float
    requests: int
    queued: int
    reused: int
    opened: int
    closed: Mapping[str, int]
    pool_timeouts: int
    refused: int
    cancelled: int
    replays: int
    leaks_suspected: int
    dial_failures: Mapping[str, int]
    dial_failure: str | None
    bytes_sent: int
    bytes_received: int
    input_tokens: int
    output_tokens: int
    wait: Spread
    dial: Spread
    first_byte: Spread
    first_token: Spread
    total: Spread


class Tally:
    """Counts what the ledger's rules do not need to know, under the ledger's lock. From any thread."""

    __slots__ = (
        "_answers",
        "_failing",
        "bytes_received",
        "bytes_sent",
        "cancelled",
        "dial",
        "dial_failure",
        "dial_failures",
        "first_byte",
        "first_token",
        "input_tokens",
        "leaks_suspected",
        "lock",
        "output_tokens",
        "pool_timeouts",
        "refused",
        "replays",
        "total",
        "wait",
    )

    def __init__(self, lock: Any) -> None:
        self.lock = lock
        self.pool_timeouts = 0
        self.refused = 0
        self.cancelled = 0
        self.replays = 0
        self.leaks_suspected = 0
        self.bytes_sent = 0
        self.bytes_received = 0
        self.input_tokens = 0
        self.output_tokens = 0
        self.dial_failures: Counter[str] = Counter()
        self.dial_failure: str | None = None  # in words: the error would hold all that its dial had in hand
        self._failing: Origin | None = None  # where that was
        self.wait = Histogram()
        self.dial = Histogram()
        self.first_byte = Histogram()
        self.first_token = Histogram()
        self.total = Histogram()
        self._answers: deque[tuple[int, int, float | None]] = deque()

    def count(self, name: str) -> None:
        """One more of what is counted under that name."""
        with self.lock:
            setattr(self, name, getattr(self, name) + 1)

    def waited(self, seconds: float) -> None:
        """A call has a connection, after ``seconds``."""
        with self.lock:
            self.wait.record(seconds)
            self.add_answers()  # those of earlier calls, or their number would grow

    def dialed(self, origin: Origin, seconds: float) -> None:
        """A dial has succeeded, after so long."""
        with self.lock:
            self.dial.record(seconds)
            if origin == self._failing:
                self.dial_failure = self._failing = None

    def dial_failed(self, origin: Origin, error: BaseException) -> None:
        """A dial has failed."""
        with self.lock:
            self.dial_failures[type(error).__name__] += 1
            self.dial_failure, self._failing = str(error), origin

    def call_ended(self, marks: Marks, *, whole: bool) -> None:
        """A call that had got a connection has ended; ``whole``: its answer was complete."""
        with self.lock:
            self.bytes_sent += marks.sent
            self.bytes_received += marks.received
            if marks.first_byte:
                self.first_byte.record(marks.first_byte - marks.started)
            if whole:
                self.total.record(marks.ended - marks.started)

    def answer_read(self, input_tokens: int, output_tokens: int, first_token: float | None) -> None:
        """Add what only the reader of an answer finds; ``first_token`` in seconds from the call's start.

        It takes no lock, and leaves the sum to ``add_answers``: the caller's thread may be interrupted, and
        the garbage collector may end a call on a thread that holds the lock.
        """
        self._answers.append((input_tokens, output_tokens, first_token))

    def add_answers(self) -> None:
        """Under the lock: count what has been read meanwhile."""
        while self._answers:
            input_tokens, output_tokens, first_token = self._answers.popleft()
            self.input_tokens += input_tokens
            self.output_tokens += output_tokens
            if first_token is not None:
                self.first_token.record(first_token)


def take_stats(ledger: Ledger, tally: Tally, now: float) -> PoolStats:
    """Read the books, under their lock."""
    tally.add_answers()
    connections = ledger.connections
    in_use, idle, dialing = connections.in_use, len(connections.pool_bound.idle), ledger.dial_policy.dialing
    most = ledger.limits.max_connections
    oldest = next(ledger.entries(), None)
    return PoolStats(
        max_connections=most,
        connections=in_use + idle + dialing,
        in_use=in_use,
        idle=idle,
        dialing=dialing,
        closing=ledger.total - in_use - idle - dialing,
        waiting=ledger.waiting,
        streams=connections.streams,
        utilization=in_use / most,
        oldest_connection=now - oldest.opened_at if oldest is not None else 0.0,
        longest_wait=max((now - first.arrived_at for first in ledger.first_waiters()), default=0.0),
        requests=ledger.requests,
        queued=ledger.queued,
        reused=connections.reused,
        opened=connections.opened,
        closed=dict(connections.closed_by_reason),
        pool_timeouts=tally.pool_timeouts,
        refused=tally.refused,
        cancelled=tally.cancelled,
        replays=tally.replays,
        leaks_suspected=tally.leaks_suspected,
        dial_failures=dict(tally.dial_failures),
        dial_failure=tally.dial_failure,
        bytes_sent=tally.bytes_sent,
        bytes_received=tally.bytes_received,
        input_tokens=tally.input_tokens,
        output_tokens=tally.output_tokens,
        wait=tally.wait.spread(),
        dial=tally.dial.spread(),
        first_byte=tally.first_byte.spread(),
        first_token=tally.first_token.spread(),
        total=tally.total.spread(),
    )


def describe(stats: PoolStats) -> str:
    """The state of a pool in words, for the message of an error."""
    closing = f"closing {stats.closing}, " if stats.closing else ""
    words = (
        f"in use {stats.in_use}, idle {stats.idle}, dialing {stats.dialing}, {closing}"
        f"waiting {stats.waiting}, max {stats.max_connections}"
    )
    return f"{words}; last dial failure: {stats.dial_failure}" if stats.dial_failure else words
