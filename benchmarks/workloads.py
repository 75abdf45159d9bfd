"""The workloads: which clients are measured, with what work, and for how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["BEFORE", "OURS", "ROUND_TRIP", "WORKLOADS", "Contestant", "Workload", "with_before"]

ROUND_TRIP = 0.05  # seconds, to the distant provider
OURS = ("acomplete", "aclient", "complete", "llm_pool")  # the first words of our contestants' labels
BEFORE = ", before"  # the end of the label of a contestant from another checkout


@dataclass(frozen=True)
class Contestant:
    """A client in a workload.

    ``label``       its name in the report
    ``client``      its name in ``benchmarks.clients.CLIENTS``, or the program or view to run
    ``parameters``  arguments of the work that replace the workload's
    ``checkout``    the folder of another checkout of this project whose ``llm_pool`` is measured; "" for ours
    """

    label: str
    client: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    checkout: str = ""


@dataclass(frozen=True)
class Workload:
    """What is measured, and with which clients.

    ``name``         as ``--workloads`` takes it
    ``title``        as the report shows it
    ``work``         a function of ``worker.WORKS``, "threads", "view", "streaming view" or "startup"
    ``upstream``     the server that ``rounds`` starts: "http", "tls", "events", "tokens", "silence", "far" or
                     "none"
    ``contestants``  the clients, in the order of the report
    ``parameters``   arguments of the work
    ``loop``         "asyncio" or "uvloop"
    ``rounds``       how often each client is measured
    """

    name: str
    title: str
    work: str
    upstream: str
    contestants: tuple[Contestant, ...]
    parameters: Mapping[str, Any]
    loop: str = "asyncio"
    rounds: int = 5


def _these(*names: str) -> tuple[Contestant, ...]:
    return tuple(Contestant(name, name) for name in names)


RIVALS = _these("acomplete", "floor", "aclient", "httpx", "openai", "aiohttp")
OBSERVED = _these("acomplete+metrics")
OURSELVES = _these("acomplete")
OTHERS = _these(
    "acomplete",
    "httpx2",
    "httpx-aiohttp",
    "openai+aiohttp",
    "anthropic",
    "litellm",
    "niquests",
    "pyreqwest",
)
STREAMERS = _these("acomplete", "floor", "httpx", "openai", "aiohttp")
SIZES = tuple(
    Contestant(f"{client}, {number}", client, {"concurrency": number})
    for client in ("acomplete", "floor")
    for number in (10, 1000)
)
HTTP2 = _these("acomplete", "aclient", "httpx", "httpx2", "pyreqwest")
THREADS = _these("complete", "httpx.Client", "openai.OpenAI", "requests")
HOLDERS = _these("acomplete", "floor", "httpx")
IN_TURN = _these("acomplete", "floor", "httpx", "openai", "httpx, one per call", "openai, one per call")
AT_ONCE = (
    Contestant("one call on a new connection", "floor", {"calls": 1}),
    *_these("acomplete", "httpx", "httpx2", "aiohttp"),
)
VIEWS = (
    Contestant("llm_pool", "pooled"),
    Contestant("openai, shared", "shared"),
    Contestant("openai, one per request", "per-request"),
)
STREAMING_VIEWS = (
    Contestant("llm_pool", "stream-pooled"),
    Contestant("openai, shared", "stream-shared"),
    Contestant("openai on aiohttp, shared", "stream-aiohttp"),
)
STARTS = _these("Django and httpx", "llm_pool", "llm_pool and its metrics", "openai")


def _complete(concurrency: int, loop: str) -> Workload:
    title = f"Whole answers, HTTP/1.1, {concurrency} concurrent, {loop}"
    parameters = {"concurrency": concurrency, "seconds": 0.8}
    return Workload(f"complete-{concurrency}-{loop}", title, "calls", "http", RIVALS, parameters, loop)


def _others(loop: str) -> Workload:
    title = f"Whole answers, HTTP/1.1, 50 concurrent, {loop}: other clients"
    return Workload(
        f"others-{loop}", title, "calls", "http", OTHERS, {"concurrency": 50, "seconds": 0.5}, loop
    )


def _streams(loop: str) -> Workload:
    title = f"100 streams, one event per 20 ms each, {loop}"
    parameters = {"concurrency": 100, "seconds": 1.0}
    return Workload(f"stream-{loop}", title, "events", "events", STREAMERS, parameters, loop)


def _streaming_view(browsers: int) -> Workload:
    title = f"A streaming Django view under uvicorn, one worker: {browsers} browsers, 25 tokens a second each"
    parameters = {"concurrency": browsers, "seconds": 1.5, "interval": 0.04}
    return Workload(
        f"browsers-{browsers}", title, "streaming view", "tokens", STREAMING_VIEWS, parameters, "uvloop"
    )


def _all() -> list[Workload]:
    observed = "Whole answers, HTTP/1.1, 50 concurrent, asyncio: with metrics and middleware"
    growth = "Whole answers, HTTP/1.1: 1,000 concurrent against 10"
    http2 = "Whole answers, HTTP/2 over TLS, 50 concurrent"
    threads = "Whole answers from 32 threads"
    in_turn = "20 calls in turn, 50 ms away"
    burst = "50 calls at once on a cold pool, HTTP/2, 50 ms away"
    view = "A Django view under uvicorn, one worker, 32 concurrent"
    start = "The start of an interpreter"
    functions = "Functions called for a call on a warm connection, {}"
    dials = "Dials for 21,500 calls in bursts of 100, with the default limits"
    default = _these("acomplete, default limits")
    return [
        Workload(
            "functions", functions.format("HTTP/1.1"), "functions", "http", OURSELVES, {"calls": 20}, rounds=1
        ),
        Workload(
            "functions-http2",
            functions.format("HTTP/2"),
            "functions",
            "tls",
            OURSELVES,
            {"calls": 20},
            rounds=1,
        ),
        Workload("dials", dials, "dials", "http", default, {"calls": 21_500, "concurrency": 100}, rounds=1),
        _complete(50, "asyncio"),
        _complete(200, "asyncio"),
        _complete(50, "uvloop"),
        _complete(200, "uvloop"),
        _others("asyncio"),
        _others("uvloop"),
        Workload(
            "observed", observed, "turns", "http", OBSERVED, {"concurrency": 50, "seconds": 0.8, "turns": 8}
        ),
        Workload("growth", growth, "calls", "http", SIZES, {"seconds": 1.5}),
        _streams("asyncio"),
        _streams("uvloop"),
        Workload("http2", http2, "calls", "tls", HTTP2, {"concurrency": 50, "seconds": 1.2}),
        Workload("threads", threads, "threads", "http", THREADS, {"concurrency": 32, "seconds": 1.2}),
        Workload("in-turn", in_turn, "in_turn", "far", IN_TURN, {"calls": 20}),
        Workload("burst", burst, "burst", "far", AT_ONCE, {"calls": 50}),
        Workload("memory", "2,000 open streams", "held", "silence", HOLDERS, {"concurrency": 2000}),
        Workload("view", view, "view", "http", VIEWS, {"seconds": 1.5}),
        _streaming_view(100),
        _streaming_view(400),
        Workload("import", start, "startup", "none", STARTS, {}, rounds=9),
    ]


WORKLOADS = {workload.name: workload for workload in _all()}


def with_before(workload: Workload, checkout: str) -> Workload:
    """Add each of our contestants a second time, with the ``llm_pool`` of another checkout."""
    contestants: list[Contestant] = []
    for contestant in workload.contestants:
        contestants.append(contestant)
        if contestant.label.startswith(OURS):
            contestants.append(replace(contestant, label=contestant.label + BEFORE, checkout=checkout))
    return replace(workload, contestants=tuple(contestants))
