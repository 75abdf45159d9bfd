"""Prometheus metrics of the pools, by ``prometheus_client``; ``docs/metrics.md`` lists them.

They are in the default registry, which django-prometheus's view serves. They are updated when something
changes, not when they are read: a custom collector does not work in multiprocess mode. The engine's counters
are copied at most four times a second. The durations and tokens of a call are added after the call has ended.
"""

from __future__ import annotations

import atexit
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from functools import cache
from math import inf
from typing import TYPE_CHECKING, Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from llm_pool.calling.record import observe
from llm_pool.conf.observability import latency_buckets, metric_namespace
from llm_pool.engine.clock import monotonic
from llm_pool.engine.loops.alarm import Alarm
from llm_pool.engine.loops.process import after_fork
from llm_pool.engine.loops.threads import hold, new_rlock
from llm_pool.engine.stats.histogram import BOUNDS
from llm_pool.engine.stats.listeners import STATS_INTERVAL, stats_listeners
from llm_pool.registry import pools

if TYPE_CHECKING:
    from llm_pool.calling.record import CallRecord
    from llm_pool.engine.stats.histogram import Spread
    from llm_pool.engine.stats.stats import PoolStats

__all__ = ["MAX_MODELS", "Metrics", "install"]

MAX_MODELS = 50
BATCH = 64  # calls after which a flush is due at once: the records are then still in the processor's cache
OTHER = "other"
TOKEN_BUCKETS = tuple(4.0**power for power in range(14))
CALL = ("pool", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_operation_name")
LABEL_FIELDS = 6  # how many fields at the start of a record decide its labels
OPERATIONS = {"complete": "chat", "stream": "chat", "embed": "embeddings"}  # names of OpenTelemetry

GAUGES = {
    "streams": ("http_client_active_requests", "Calls that connections carry now."),
    "dialing": ("llm_pool_dialing", "Connections that are being made now."),
    "closing": ("llm_pool_closing", "Connections that are being closed now."),
    "waiting": ("llm_pool_waiting", "Callers that wait for a connection now."),
    "max_connections": ("llm_pool_max_connections", "The limit on connections."),
}
COUNTERS = {
    "requests": ("llm_pool_requests", "Calls that asked for a connection."),
    "queued": ("llm_pool_queued", "Calls that found all connections in use."),
    "reused": ("llm_pool_reused", "Calls that got a connection that was open before."),
    "opened": ("llm_pool_connections_opened", "Connections that were made."),
    "pool_timeouts": (
        "llm_pool_timeouts",
        "Calls that got no connection within the pool timeout.",
    ),
    "refused": ("llm_pool_refused", "Calls that found the queue full."),
    "cancelled": ("llm_pool_cancelled", "Calls that their caller cancelled."),
    "replays": ("llm_pool_replays", "Requests that were sent again."),
    "leaks_suspected": ("llm_pool_leaks_suspected", "Responses that were held for too long."),
    "bytes_sent": ("llm_pool_sent_bytes", "Bytes of request bodies."),
    "bytes_received": ("llm_pool_received_bytes", "Bytes of response bodies."),
}
SPREADS = {
    "wait": ("llm_pool_wait_seconds", "How long calls waited for the connection that they got."),
    "dial": ("llm_pool_dial_seconds", "How long it took to make a connection."),
    "first_byte": ("llm_pool_first_byte_seconds", "From a call's start to its answer's first byte."),
}


class Metrics:
    """The metrics of all pools of this process, in one registry.

    ``registry``   the registry of prometheus_client
    ``namespace``  the prefix of the metrics' names; "" for no prefix
    ``buckets``    the upper limits of the buckets for the durations of calls, in seconds
    """

    def __init__(self, registry: CollectorRegistry, namespace: str, buckets: tuple[float, ...]) -> None:
        common: dict[str, Any] = {"namespace": namespace, "registry": registry}
        self._gauges = {
            field: Gauge(name, text, ["pool"], multiprocess_mode="livesum", **common)
            for field, (name, text) in GAUGES.items()
        }
        self._counters = {
            field: Counter(name, text, ["pool"], **common) for field, (name, text) in COUNTERS.items()
        }
        self._open = Gauge(
            "http_client_open_connections", "Open connections.", ["pool", "http_connection_state"],
            multiprocess_mode="livesum", **common,
        )  # fmt: skip
        self._utilization = Gauge(
            "llm_pool_utilization", "In use / max, 0 to 1, of the most crowded process.", ["pool"],
            multiprocess_mode="livemax", **common,
        )  # fmt: skip
        self._closed = Counter(
            "llm_pool_connections_closed", "Connections that were closed.", ["pool", "reason"], **common
        )
        self._dial_failures = Counter(
            "llm_pool_dial_failures", "Connections that could not be made.", ["pool", "error_type"], **common
        )
        self._spreads = {
            field: Histogram(name, text, ["pool"], buckets=BOUNDS, **common)  # the engine's own buckets
            for field, (name, text) in SPREADS.items()
        }
        self._duration = Histogram(
            "gen_ai_client_operation_duration_seconds", "How long calls took, waits included.",
            [*CALL, "error_type"], buckets=buckets, **common,
        )  # fmt: skip
        self._first_chunk = Histogram(
            "gen_ai_client_operation_time_to_first_chunk_seconds", "From a stream's start to its first text.",
            CALL, buckets=buckets, **common,
        )  # fmt: skip
        self._tokens = Histogram(
            "gen_ai_client_token_usage", "Tokens that calls used, as the provider counts them.",
            [*CALL, "gen_ai_token_type"], buckets=TOKEN_BUCKETS, **common,
        )  # fmt: skip
        self._models: set[str] = set()
        self.begin_anew()

    def begin_anew(self) -> None:
        """Start without records of calls. Called again in a forked child: the parent keeps its records."""
        self._lock = new_rlock()  # for ``hold``: at exit ``flush`` runs on the main thread
        self._alarm = Alarm(self.flush)
        self._ended: deque[CallRecord] = deque()

    def call_ended(self, record: CallRecord) -> None:
        """Keep the record of a call until the next ``flush``. An observer (see ``llm_pool.observe``).

        Adding many records at once costs less. Acquires no lock.
        """
        self._ended.append(record)
        if len(self._ended) >= BATCH:
            self._alarm.set(monotonic())
        elif self._alarm.due_at == inf:
            self._alarm.set(monotonic() + STATS_INTERVAL)

    def flush(self) -> None:
        """Add the calls that have ended since the last flush to the registry.

        Can be called from any thread. An interrupt can stop ``flush`` only when the process exits; the calls
        of that flush are then lost.
        """
        hold(self._lock, self._flush)

    def _flush(self) -> None:
        groups: dict[object, list[CallRecord]] = {}
        for _ in range(len(self._ended)):
            record = self._ended.popleft()
            groups.setdefault(record[:LABEL_FIELDS], []).append(record)
        for records in groups.values():
            self._observe(records)

    def pool_changed(self, name: str, now: PoolStats, before: PoolStats | None) -> None:
        """Add the changes from ``before`` to ``now`` to the metrics of the pool ``name``.

        A callback of ``stats_listeners``; ``before`` is None in the first call. Changes are added, so that
        the metrics of pools with the same name add up. Only the utilization is replaced.
        """
        for field, gauge in self._gauges.items():
            gauge.labels(name).inc(_grown(field, now, before))
        for field, state in (("in_use", "active"), ("idle", "idle")):
            self._open.labels(name, state).inc(_grown(field, now, before))
        self._utilization.labels(name).set(now.utilization)
        for field, counter in self._counters.items():
            counter.labels(name).inc(max(0.0, _grown(field, now, before)))  # ``reused`` can decrease
        for reason, count in now.closed.items():
            known = before.closed.get(reason, 0) if before is not None else 0
            self._closed.labels(name, reason).inc(count - known)
        for error, count in now.dial_failures.items():
            known = before.dial_failures.get(error, 0) if before is not None else 0
            self._dial_failures.labels(name, error).inc(count - known)
        for field, histogram in self._spreads.items():
            known_spread = getattr(before, field) if before is not None else None
            _add_grown(histogram.labels(name), getattr(now, field), known_spread)

    def _observe(self, records: list[CallRecord]) -> None:
        pool, operation = records[0].alias, records[0].operation
        error = _error_type(records[0])
        model = self._model_label(records[0].model, error)
        labels = (pool, records[0].provider, model, OPERATIONS.get(operation, operation))
        timings = [record.timing for record in records]
        first_chunks = [timing.first_token for timing in timings if timing.first_token is not None]
        usages = [record.usage for record in records if record.usage is not None]
        _add(self._duration.labels(*labels, error), [timing.total for timing in timings])
        _add(self._first_chunk.labels(*labels), first_chunks)
        _add(self._tokens.labels(*labels, "input"), [usage.input_tokens for usage in usages])
        _add(self._tokens.labels(*labels, "output"), [usage.output_tokens for usage in usages])

    def _model_label(self, model: str | None, error: str) -> str:
        """Return the label for the name ``model``: the name itself, "other", or "" for None.

        The label is the name itself if it is a pool's MODEL, or one of the first ``MAX_MODELS`` names of
        calls without an error; otherwise "other". Callers can send any number of names, and the memory of a
        label is never freed.
        """
        if model is None or model in self._models:
            return model or ""
        configured = any(pool.settings.model == model for pool in pools.made())
        if not configured and (error or len(self._models) >= MAX_MODELS):
            return OTHER
        self._models.add(model)
        return model


def _error_type(record: CallRecord) -> str:
    if record.error is not None:
        return record.error
    return str(record.status_code) if record.status_code is not None and record.status_code >= 400 else ""


def _add(child: Any, values: Sequence[float]) -> None:
    """Add all ``values`` to the histogram ``child``. ``child.observe`` for each would cost ten times as much.

    Uses private attributes: histograms of prometheus_client have no method for many values.
    """
    if not values:
        return
    values = sorted(values)
    below = 0
    for bucket, bound in zip(child._buckets, child._upper_bounds, strict=True):
        counted = bisect_right(values, bound, below)
        if counted > below:
            bucket.inc(counted - below)
            below = counted
    child._sum.inc(sum(values))


def _add_grown(child: Any, now: Spread, before: Spread | None) -> None:
    """Add to the histogram ``child`` the durations that ``now`` has and ``before`` has not.

    All three have the same buckets. ``before`` is None in the first call.
    """
    known = before.counts if before is not None else (0,) * len(now.counts)
    for bucket, count, counted in zip(child._buckets, now.counts, known, strict=True):
        if count > counted:
            bucket.inc(count - counted)
    child._sum.inc(now.total - (before.total if before is not None else 0.0))


def _grown(field: str, now: PoolStats, before: PoolStats | None) -> float:
    value: float = getattr(now, field)
    return value - getattr(before, field) if before is not None else value


@cache
def install() -> None:
    """Add the metrics of this process's pools to the default registry. Called by ``LLMPoolConfig.ready``.

    Later calls do nothing: ``override_settings(INSTALLED_APPS=...)``, for example, makes ``ready`` run again.
    """
    metrics = Metrics(REGISTRY, metric_namespace(), tuple(latency_buckets()))
    observe(metrics.call_ended)
    stats_listeners.append(metrics.pool_changed)
    after_fork(metrics.begin_anew)
    atexit.register(metrics.flush)
