"""The state of a pool at one moment, and its counters."""

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
    """The present gauges of a pool in this process, and its counters and histograms since it was made.

    Gauges:

    ``max_connections``    the limit of connections
    ``connections``        connections in use, idle or being dialed
    ``in_use``             connections that carry at least one call
    ``idle``               open connections that carry no call
    ``dialing``            connections being dialed
    ``closing``            connections that carry no call and are being closed. They are not part of
                           ``connections``, but count against the limit
    ``waiting``            callers in the queue
    ``streams``            calls on all connections; an HTTP/2 connection can carry several
    ``utilization``        ``in_use`` / ``max_connections``, 0.0 to 1.0
    ``oldest_connection``  age of the oldest connection in seconds; 0.0 if there is none
    ``longest_wait``       longest time in seconds that a caller in the queue has waited; 0.0 if none waits

    Counters:

    ``requests``           calls that needed a connection
    ``queued``             those of ``requests`` that found every connection in use and no room for another. A
                           call that only waited for a dial is not counted
    ``reused``             those of ``requests`` that got a connection which had carried a call or been idle
    ``opened``             connections opened
    ``closed``             connections closed, by reason
    ``pool_timeouts``      calls that failed with PoolTimeout after the pool timeout
    ``refused``            calls that failed with PoolFull
    ``cancelled``          calls that their caller cancelled, or closed before the end of the response
    ``replays``            how often a request was sent again
    ``leaks_suspected``    responses held longer than ``leak_threshold``
    ``dial_failures``      failed dials, by the class name of the error
    ``dial_failure``       message of the last failed dial; None if no dial has failed, or if a later dial to
                           the same origin has succeeded
    ``bytes_sent``         bytes of request bodies
    ``bytes_received``     bytes of response bodies, before decompression
    ``input_tokens``       input tokens, as the providers count them
    ``output_tokens``      output tokens, as the providers count them

    Histograms, in seconds:

    ``wait``               the wait for a connection, dial included
    ``dial``               each dial that succeeded: DNS, TCP, proxy tunnel and TLS
    ``first_byte``         from the start of a call to the head of its response
    ``first_token``        from the start of a stream to its first text
    ``total``              from the start of a call to the end of a complete response
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
    """The counters that the ledger does not keep. ``lock`` is the coordinator's lock.

    ``answer_read`` can be called from any thread. ``add_answers`` is called with the lock held. All other
    methods acquire the lock: call them on a host loop only (see ``loops.threads``).
    """

    __slots__ = (
        "_answers",
        "_failed_origin",
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
        self.dial_failure: str | None = None  # only the message: the error would keep the frames of its dial
        self._failed_origin: Origin | None = None  # the origin of ``dial_failure``
        self.wait = Histogram()
        self.dial = Histogram()
        self.first_byte = Histogram()
        self.first_token = Histogram()
        self.total = Histogram()
        self._answers: deque[tuple[int, int, float | None]] = deque()

    def count(self, name: str) -> None:
        """Add one to the counter with the attribute name ``name``."""
        with self.lock:
            setattr(self, name, getattr(self, name) + 1)

    def waited(self, seconds: float) -> None:
        """Count a call that got its connection after ``seconds``."""
        with self.lock:
            self.wait.record(seconds)
            self.add_answers()  # with each call, so that ``_answers`` stays short

    def dialed(self, origin: Origin, seconds: float) -> None:
        """Count a dial that has succeeded after ``seconds``.

        Clears ``dial_failure`` if the failed dial was to the same origin.
        """
        with self.lock:
            self.dial.record(seconds)
            if origin == self._failed_origin:
                self.dial_failure = self._failed_origin = None

    def dial_failed(self, origin: Origin, error: BaseException) -> None:
        """Count a failed dial by the class of ``error``, and keep the message as ``dial_failure``."""
        with self.lock:
            self.dial_failures[type(error).__name__] += 1
            self.dial_failure, self._failed_origin = str(error), origin

    def call_ended(self, marks: Marks, *, complete: bool) -> None:
        """Count a call that had a connection and has ended: its bytes and its times.

        ``complete``: whether its response is complete.
        """
        with self.lock:
            self.bytes_sent += marks.sent
            self.bytes_received += marks.received
            if marks.first_byte:
                self.first_byte.record(marks.first_byte - marks.started)
            if complete:
                self.total.record(marks.ended - marks.started)

    def answer_read(self, input_tokens: int, output_tokens: int, first_token: float | None) -> None:
        """Record the tokens of an answer, and the seconds from the call's start to its first token.

        ``first_token``: None if these seconds are not measured. Can be called from any thread. The method
        acquires no lock: the caller's thread can be interrupted, and the garbage collector can end a call on
        a thread that holds the lock. ``add_answers`` adds the numbers later.
        """
        self._answers.append((input_tokens, output_tokens, first_token))

    def add_answers(self) -> None:
        """Count the answers that ``answer_read`` has recorded. Call it with the lock held."""
        while self._answers:
            input_tokens, output_tokens, first_token = self._answers.popleft()
            self.input_tokens += input_tokens
            self.output_tokens += output_tokens
            if first_token is not None:
                self.first_token.record(first_token)


def take_stats(ledger: Ledger, tally: Tally, now: float) -> PoolStats:
    """Return the stats of a pool. Call it with the coordinator's lock held.

    ``now``: the present time, in seconds of the monotonic clock.
    """
    tally.add_answers()
    connections = ledger.connections
    in_use, idle, dialing = connections.in_use, len(connections.pool_bound.idle), ledger.dial_policy.dialing
    max_connections = ledger.limits.max_connections
    oldest = next(ledger.entries(), None)
    return PoolStats(
        max_connections=max_connections,
        connections=in_use + idle + dialing,
        in_use=in_use,
        idle=idle,
        dialing=dialing,
        closing=ledger.total - in_use - idle - dialing,
        waiting=ledger.waiting,
        streams=connections.streams,
        utilization=in_use / max_connections,
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
    """Describe the state of a pool in one line, for error messages."""
    closing = f"closing {stats.closing}, " if stats.closing else ""
    state = (
        f"in use {stats.in_use}, idle {stats.idle}, dialing {stats.dialing}, {closing}"
        f"waiting {stats.waiting}, max {stats.max_connections}"
    )
    return f"{state}; last dial failure: {stats.dial_failure}" if stats.dial_failure else state
