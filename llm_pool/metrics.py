"""The pools in Prometheus's terms, by ``prometheus_client``; ``docs/metrics.md`` lists them.

They are in the default registry, and so in django-prometheus's view too. All are set by events: in
multiprocess mode nothing else counts. What the engine counts is copied a few times a second, what a call
brings when it ends.
"""

from __future__ import annotations

import atexit
import threading
import time
from bisect import bisect_left
from typing import Any, NamedTuple

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from llm_pool.calls import CallRecord, observe
from llm_pool.conf.observability import latency_buckets, metric_namespace
from llm_pool.engine import portal
from llm_pool.engine.alarm import Alarm
from llm_pool.engine.news import NEWS_SECONDS, listeners
from llm_pool.engine.stats import PoolStats

__all__ = ["MOST_MODELS", "Metrics", "install"]

MOST_MODELS = 50
OTHER = "other"
TOKEN_BUCKETS = tuple(4.0**power for power in range(14))
CALL = ("pool", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_operation_name")
OPERATIONS = {"complete": "chat", "stream": "chat"}

GAUGES = {
    "streams": ("http_client_active_requests", "Calls that connections carry now."),
    "dialing": ("llm_pool_dialing", "Connections that are being made now."),
    "waiting": ("llm_pool_waiting", "Callers that wait for a connection now."),
    "max_connections": ("llm_pool_max_connections", "Connections that there may be."),
}
COUNTERS = {
    "requests": ("llm_pool_requests", "Calls that asked for a connection."),
    "queued": ("llm_pool_queued", "Calls that had to wait for one."),
    "reused": ("llm_pool_reused", "Calls that got a connection that was there before."),
    "opened": ("llm_pool_connections_opened", "Connections that were made."),
    "pool_timeouts": ("llm_pool_timeouts", "Calls that waited for a connection in vain."),
    "refused": ("llm_pool_refused", "Calls that found the queue full."),
    "cancelled": ("llm_pool_cancelled", "Calls that their caller gave up."),
    "replays": ("llm_pool_replays", "Requests that were sent again."),
    "leaks_suspected": ("llm_pool_leaks_suspected", "Responses that were held for too long."),
    "bytes_sent": ("llm_pool_sent_bytes", "Bytes of request bodies."),
    "bytes_received": ("llm_pool_received_bytes", "Bytes of response bodies."),
}


class _Heap:
    """Values on their way into a histogram, many at once: one by one they cost ten times as much.

    It reaches into prometheus_client's own histogram, which takes no more than one value at a time.
    """

    __slots__ = ("_bounds", "_child", "_counts", "_total")

    def __init__(self, child: Any) -> None:
        self._child = child
        self._bounds: list[float] = child._upper_bounds
        self._counts = [0] * len(self._bounds)
        self._total = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def empty(self) -> None:
        """Into the histogram with them."""
        if not any(self._counts):
            return
        for bucket, count in zip(self._child._buckets, self._counts, strict=True):
            if count:
                bucket.inc(count)
        self._child._sum.inc(self._total)
        self._counts = [0] * len(self._bounds)
        self._total = 0.0


class _Series(NamedTuple):
    """What a call of one kind goes into. Finding a series by its labels costs more than adding to it."""

    duration: _Heap
    first_chunk: _Heap
    wait: _Heap
    input_tokens: _Heap
    output_tokens: _Heap


class Metrics:
    """The metrics of all pools of this process, in one registry."""

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
        self._wait = Histogram(
            "llm_pool_wait_seconds", "How long calls waited for a connection.", ["pool"],
            buckets=buckets, **common,
        )  # fmt: skip
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
        self._lock = threading.Lock()
        self._soon = Alarm(self.flush)
        self._heaps: dict[int, _Heap] = {}  # by the histogram's identity
        self._models: set[str] = set()
        self._series: dict[tuple[str, str, str | None, str, str], _Series] = {}

    def call_ended(self, record: CallRecord) -> None:
        """An observer of calls."""
        error = record.error or ""
        if not error and record.status_code is not None and record.status_code >= 400:
            error = str(record.status_code)
        key = (record.alias, record.provider, record.model, record.operation, error)
        series = self._series.get(key)
        if series is None:
            series = self._find_series(*key)
        timing, usage = record.timing, record.usage
        with self._lock:
            series.duration.add(timing.total)
            series.wait.add(timing.queued + timing.dialing)
            if timing.first_token is not None:
                series.first_chunk.add(timing.first_token)
            if usage is not None:
                series.input_tokens.add(usage.input_tokens)
                series.output_tokens.add(usage.output_tokens)
        self._soon.set(time.monotonic() + NEWS_SECONDS)

    def flush(self) -> None:
        """Into the registry with what calls have brought since the last time."""
        with self._lock:
            for heap in self._heaps.values():
                heap.empty()

    def begin_anew(self) -> None:
        """In the child of a fork: what the parent had not flushed is the parent's, as was its lock."""
        self._lock = threading.Lock()
        self._soon = Alarm(self.flush)
        self._heaps.clear()
        self._series.clear()

    def pool_changed(self, name: str, now: PoolStats, before: PoolStats | None) -> None:
        """A listener to the engine's news. By difference: pools of the same name add up."""
        for field, gauge in self._gauges.items():
            gauge.labels(name).inc(_grown(field, now, before))
        for field, state in (("in_use", "active"), ("idle", "idle")):
            self._open.labels(name, state).inc(_grown(field, now, before))
        self._utilization.labels(name).set(now.utilization)
        for field, counter in self._counters.items():
            counter.labels(name).inc(max(0.0, _grown(field, now, before)))  # a reuse may be taken back
        for reason, count in now.closed.items():
            known = before.closed.get(reason, 0) if before is not None else 0
            self._closed.labels(name, reason).inc(count - known)
        for error, count in now.dial_failures.items():
            known = before.dial_failures.get(error, 0) if before is not None else 0
            self._dial_failures.labels(name, error).inc(count - known)

    def _find_series(
        self, alias: str, provider: str, model: str | None, operation: str, error: str
    ) -> _Series:
        labels = (alias, provider, self._known(model, error), OPERATIONS.get(operation, operation))
        series = _Series(
            self._heap(self._duration, *labels, error),
            self._heap(self._first_chunk, *labels),
            self._heap(self._wait, alias),
            self._heap(self._tokens, *labels, "input"),
            self._heap(self._tokens, *labels, "output"),
        )
        if labels[2] == (model or ""):  # or anybody's typing errors would fill the memory
            self._series[alias, provider, model, operation, error] = series
        return series

    def _heap(self, histogram: Histogram, *labels: str) -> _Heap:
        child = histogram.labels(*labels)
        with self._lock:
            return self._heaps.setdefault(id(child), _Heap(child))

    def _known(self, model: str | None, error: str) -> str:
        """The model, if it is among the first that have ever answered: there is no end of names."""
        if model is None or model in self._models:
            return model or ""
        if error or len(self._models) >= MOST_MODELS:
            return OTHER
        self._models.add(model)
        return model


def _grown(field: str, now: PoolStats, before: PoolStats | None) -> float:
    value: float = getattr(now, field)
    return value - getattr(before, field) if before is not None else value


def install() -> None:
    """Called once, from ``AppConfig.ready``: from now on this process's pools are in the default registry."""
    metrics = Metrics(REGISTRY, metric_namespace(), tuple(latency_buckets()))
    observe(metrics.call_ended)
    listeners.append(metrics.pool_changed)
    portal.after_fork(metrics.begin_anew)
    atexit.register(metrics.flush)
