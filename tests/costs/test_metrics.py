"""What metrics and middleware add to a call. A budget may be lowered; raise it only with a reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.http import HttpRequest, HttpResponse
from prometheus_client import CollectorRegistry

from llm_pool.calling.record import observe, observers, unobserve
from llm_pool.engine.stats.listeners import stats_listeners
from llm_pool.metrics import BATCH, Metrics
from llm_pool.middleware import PoolMiddleware
from tests.fixtures.costs import FunctionCalls
from tests.fixtures.loops import server_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llm_pool.calling.pool import LLMPool
    from llm_pool.calling.record import CallRecord
    from testbed import ScriptedServer

__all__ = ["server_loop"]

CALLS = 10
ROOMS = (
    "llm_pool/calling/",
    "llm_pool/engine/stats/listeners",
    "llm_pool/metrics",
    "llm_pool/middleware",
    "<",
)
"""What a record goes through; "<" has what the standard library writes for named tuples and dataclasses."""

OBSERVED = 6  # functions for each call
FLUSHED = 4  # functions for each record
IN_MIDDLEWARE = 16  # functions for each request with one call
UNCHANGED = 118  # functions for each report of a pool


@pytest.fixture(autouse=True)
def no_installed_metrics() -> Iterator[None]:
    """No observers and listeners but those of the test: not the metrics of the tests' own app."""
    installed = [(listeners, listeners.copy()) for listeners in (observers, stats_listeners)]
    for listeners, _ in installed:
        listeners.clear()
    yield
    for listeners, callbacks in installed:
        listeners.extend(callbacks)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry(), "shop", (0.1, 1.0, 10.0))


@pytest.mark.usefixtures("server_loop")
async def test_an_observed_call_keeps_to_its_budget_of_functions(
    chat_server: ScriptedServer, configure: Callable[..., LLMPool], metrics: Metrics
) -> None:
    pool = configure(chat_server)

    async def functions() -> float:
        await pool.acomplete("hello")  # the connection, and what is made once
        with FunctionCalls() as counted:
            for _ in range(CALLS):
                await pool.acomplete("hello")
        return counted.total(*ROOMS) / CALLS

    bare = await functions()
    observe(metrics.call_ended)
    added = await functions() - bare
    unobserve(metrics.call_ended)
    assert 0 < added <= OBSERVED, added


async def test_a_flush_keeps_to_its_budget_of_functions(
    chat_server: ScriptedServer, configure: Callable[..., LLMPool], metrics: Metrics
) -> None:
    records: list[CallRecord] = []
    observe(records.append)
    await configure(chat_server).acomplete("hello")
    unobserve(records.append)
    metrics.call_ended(*records)
    metrics.flush()  # makes the metrics of these labels
    for _ in range(BATCH - 1):  # one more would flush them on the event loop
        metrics.call_ended(*records)
    with FunctionCalls() as counted:
        metrics.flush()
    assert counted.total("") / (BATCH - 1) <= FLUSHED, counted.total("") / (BATCH - 1)


@pytest.mark.usefixtures("server_loop")
async def test_a_request_in_the_middleware_keeps_to_its_budget_of_functions(
    chat_server: ScriptedServer, configure: Callable[..., LLMPool]
) -> None:
    pool, request, response = configure(chat_server), HttpRequest(), HttpResponse()

    async def view(request: HttpRequest) -> HttpResponse:
        await pool.acomplete("hello")
        return response

    middleware = PoolMiddleware(view)

    async def functions(handler: Callable[[HttpRequest], object]) -> float:
        await handler(request)  # type: ignore[misc]
        with FunctionCalls() as counted:
            for _ in range(CALLS):
                await handler(request)  # type: ignore[misc]
        return counted.total(*ROOMS) / CALLS

    added = await functions(middleware) - await functions(view)
    assert 0 < added <= IN_MIDDLEWARE, added


async def test_what_a_pool_has_not_changed_costs_little(
    chat_server: ScriptedServer, configure: Callable[..., LLMPool], metrics: Metrics
) -> None:
    """A pool reports four times a second at most, and after each call if calls are rare."""
    pool = configure(chat_server)
    await pool.acomplete("hello")
    stats = pool.stats()
    metrics.pool_changed("default", stats, None)
    with FunctionCalls() as counted:
        metrics.pool_changed("default", stats, stats)
    assert counted.total("") <= UNCHANGED, counted.total("")
