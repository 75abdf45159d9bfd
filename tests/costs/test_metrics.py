"""What metrics and middleware add to a call. A budget may be lowered; raise it only with a reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.http import HttpRequest, HttpResponse
from prometheus_client import CollectorRegistry

from llm_pool.calling.record import observe, observers, unobserve
from llm_pool.metrics import BATCH, Metrics
from llm_pool.middleware import PoolMiddleware
from tests.fixtures.costs import FunctionCalls
from tests.fixtures.loops import server_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llm_pool.calling.pool import LLMPool
    from testbed import ScriptedServer

__all__ = ["server_loop"]

CALLS = BATCH - 1  # one more would flush the metrics on the event loop
BUCKETS = (0.1, 1.0, 10.0)
OBSERVED = 10  # functions for each call
IN_MIDDLEWARE = 17  # functions for each request with one call
UNCHANGED = 118  # functions for each report of a pool


@pytest.fixture(autouse=True)
def no_observers() -> Iterator[None]:
    """No observers but those of the test. The tests' settings have installed metrics."""
    installed = observers.copy()
    observers.clear()
    yield
    observers.extend(installed)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry(), "shop", BUCKETS)


@pytest.mark.usefixtures("server_loop")
async def test_an_observed_call_keeps_to_its_budget_of_functions(
    chat_server: ScriptedServer, configure: Callable[..., LLMPool], metrics: Metrics
) -> None:
    pool = configure(chat_server)

    async def functions() -> float:
        await pool.acomplete("hello")  # the connection, and what is made once
        metrics.flush()
        with FunctionCalls() as counted:
            for _ in range(CALLS):
                await pool.acomplete("hello")
            metrics.flush()
        return counted.total("") / CALLS

    bare = await functions()
    observe(metrics.call_ended)
    added = await functions() - bare
    unobserve(metrics.call_ended)
    assert 0 < added <= OBSERVED, added


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
        return counted.total("") / CALLS

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
