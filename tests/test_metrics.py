"""Metrics for Prometheus: a scrape of one process shows what the upstream counted."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from llm_pool import metrics
from llm_pool.calling.record import CallRecord, observe, unobserve
from llm_pool.engine.loops import portal
from llm_pool.engine.stats.histogram import BOUNDS
from llm_pool.engine.stats.listeners import STATS_INTERVAL, stats_listeners
from llm_pool.exceptions import AuthenticationFailed, ConnectFailed, PoolTimeout
from llm_pool.providers.results import Timing
from llm_pool.providers.usage import Usage
from testbed.behaviours import json_reply
from tests.fixtures.callers import until
from tests.fixtures.internals import observe_all
from tests.fixtures.scrapes import Installed, Scrape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llm_pool.calling.pool import LLMPool
    from testbed import Script, ScriptedServer
    from testbed.provider import ScriptedProvider


WAIT_SECONDS = 20.0


@pytest.fixture
def installed() -> Iterator[Installed]:
    """Metrics, registered in the same way as by ``install``."""
    fresh = Installed()
    wait_for_earlier_stats()
    observe(fresh.metrics.call_ended)
    stats_listeners.append(fresh.changed)
    yield fresh
    stats_listeners.remove(fresh.changed)
    unobserve(fresh.metrics.call_ended)


def wait_for_earlier_stats() -> None:
    """Wait until the listeners have been called for the last time for pools of earlier tests."""
    called, host_loop = threading.Event(), portal.portal()
    host_loop.post(lambda: host_loop.loop.call_later(2 * STATS_INTERVAL, called.set))
    assert called.wait(WAIT_SECONDS)


async def test_counters_and_gauges_match_what_the_server_saw(
    installed: Installed, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    pool = configure(upstream)
    for _ in range(5):
        await pool.acomplete("hello")
    async for _ in pool.astream("hello"):
        pass
    await until(lambda: installed.scrape().sum("shop_llm_pool_requests_total", pool="default") == 6)
    idle = {"http_connection_state": "idle"}  # the last stats may be from before the stream's end
    await until(lambda: installed.scrape().sum("shop_http_client_open_connections", **idle) == 1)
    seen = installed.scrape()
    assert seen.sum("shop_http_client_open_connections") == 1
    assert seen.sum("shop_http_client_active_requests") == 0
    assert seen.sum("shop_llm_pool_connections_opened_total") == upstream.connections_accepted == 1
    assert seen.sum("shop_llm_pool_reused_total") == 5
    assert seen.sum("shop_llm_pool_max_connections") == pool.stats().max_connections
    sent = sum(len(request.body) for request in upstream.requests)
    assert seen.sum("shop_llm_pool_sent_bytes_total") == sent
    duration = "shop_gen_ai_client_operation_duration_seconds"
    common = {"gen_ai_provider_name": "openai", "gen_ai_request_model": "test-model"}
    assert seen.sum(f"{duration}_count", error_type="", gen_ai_operation_name="chat", **common) == 6
    assert seen.sum("shop_gen_ai_client_operation_time_to_first_chunk_seconds_count", **common) == 1
    assert seen.sum("shop_gen_ai_client_token_usage_sum", gen_ai_token_type="input") == 15


async def test_counters_begin_with_zero(configure: Callable[..., LLMPool], upstream: ScriptedServer) -> None:
    """See https://prometheus.io/docs/practices/instrumentation/#avoid-missing-metrics"""
    registry = CollectorRegistry()
    stats = configure(upstream).stats()
    metrics.Metrics(registry, "shop", (1.0,)).pool_changed("default", stats, None)
    scraped = generate_latest(registry).decode()
    for name in ("llm_pool_refused_total", "llm_pool_waiting", "llm_pool_wait_seconds_count"):
        assert f'shop_{name}{{pool="default"}} 0.0' in scraped


async def test_embeddings_have_an_operation_of_their_own(
    installed: Installed, configure: Callable[..., LLMPool], llm_provider: ScriptedProvider
) -> None:
    await configure(llm_provider).aembed(["one", "two"])
    common = {"gen_ai_operation_name": "embeddings", "gen_ai_request_model": "test-model"}
    seen = installed.scrape()
    assert seen.sum("shop_gen_ai_client_operation_duration_seconds_count", **common) == 1
    assert seen.sum("shop_gen_ai_client_token_usage_sum", gen_ai_token_type="input", **common) == 2


async def test_histograms_match_those_of_the_engine(
    installed: Installed, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    """They include calls through a client, and leave out calls that got no connection."""
    limits = {"max_connections": 1, "max_keepalive_connections": 1}
    pool = configure(upstream, LIMITS=limits, TIMEOUTS={"pool": 0.05})
    body = {"messages": [{"content": "hello"}]}
    # This call needs a longer timeout: it dials.
    await pool.aclient.post("/embeddings", json=body, timeout=5.0)
    upstream.gate("token").shut()
    upstream.gate("token").admit()
    async with pool.astream("hello") as stream:
        await anext(stream)
        with pytest.raises(PoolTimeout):
            await pool.acomplete("hello")
        await until(lambda: installed.scrape().sum("shop_llm_pool_timeouts_total") == 1)
    await pool.adrain()
    await pool.aclient.post("/embeddings", json=body, timeout=5.0)
    await until(lambda: installed.scrape().sum("shop_llm_pool_first_byte_seconds_count") == 3)
    seen, stats = installed.scrape(), pool.stats()
    for name, spread in (("wait", stats.wait), ("dial", stats.dial), ("first_byte", stats.first_byte)):
        metric = f"shop_llm_pool_{name}_seconds"
        assert seen.sum(f"{metric}_count", pool="default") == spread.count > 1
        assert seen.sum(f"{metric}_sum", pool="default") == pytest.approx(spread.total)
        for number, bound in enumerate(BOUNDS):
            assert seen.sum(f"{metric}_bucket", le=str(bound)) == sum(spread.counts[: number + 1])


async def test_a_closed_pool_has_no_connections(
    installed: Installed, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    pool = configure(upstream)
    await pool.acomplete("hello")
    await until(lambda: installed.scrape().sum("shop_http_client_open_connections") == 1)
    await pool.aclose()
    await until(lambda: installed.scrape().sum("shop_http_client_open_connections") == 0)
    assert installed.scrape().sum("shop_llm_pool_connections_closed_total", reason="closed") == 1


async def test_a_leak_is_counted_without_other_calls(
    installed: Installed, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    pool = configure(upstream, LEAK_THRESHOLD=4 * STATS_INTERVAL)  # the listeners have all other stats then
    upstream.gate("token").shut()
    upstream.gate("token").admit()
    async with pool.astream("hello") as stream:
        await anext(stream)
        await until(lambda: installed.scrape().sum("shop_llm_pool_leaks_suspected_total") == 1)


async def test_errors_are_counted_by_type(
    installed: Installed, configure: Callable[..., LLMPool], serve_first: Callable[[Script], ScriptedServer]
) -> None:
    server = serve_first(json_reply({"error": {"message": "no"}}, status=401))
    pool = configure(server)
    with pytest.raises(AuthenticationFailed):
        await pool.acomplete("hello")
    server.refuse()
    await pool.adrain()
    with pytest.raises(ConnectFailed):
        await pool.acomplete("hello")
    counts = "shop_gen_ai_client_operation_duration_seconds_count"
    for error in ("AuthenticationFailed", "ConnectFailed"):
        assert installed.scrape().sum(counts, error_type=error) == 1
    await until(
        lambda: installed.scrape().sum("shop_llm_pool_dial_failures_total", error_type="ConnectFailed") == 1
    )


async def test_a_configured_model_has_a_label_before_it_answers(
    installed: Installed, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    upstream.refuse()
    pool = configure(upstream)
    for model in ("test-model", "another"):
        with pytest.raises(ConnectFailed):
            await pool.acomplete("hello", model=model)
    counts, error = "shop_gen_ai_client_operation_duration_seconds_count", "ConnectFailed"
    for model in ("test-model", metrics.OTHER):
        assert installed.scrape().sum(counts, gen_ai_request_model=model, error_type=error) == 1


def test_adding_many_values_equals_observing_each() -> None:
    registry, other = CollectorRegistry(), CollectorRegistry()
    batch = metrics.Histogram("h", "", buckets=(0.1, 1.0), registry=registry)
    single = metrics.Histogram("h", "", buckets=(0.1, 1.0), registry=other)
    for values in ((0.0, 0.1, 0.11, 1.0, 5.0), (0.2, 0.3), ()):
        observe_all(batch, values)
        for value in values:
            single.observe(value)
    assert _values(registry) == _values(other)


def _values(registry: CollectorRegistry) -> list[str]:
    return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]


def test_the_number_of_model_labels_is_bounded(installed: Installed) -> None:
    for number in range(3 * metrics.MAX_MODELS):
        for error in ("NotFound", None):
            name = f"model-{number}"
            installed.metrics.call_ended(
                CallRecord("a", "openai", name, "complete", 200, error, Timing(total=1.0), Usage(1, 1), 0)
            )
    seen = installed.scrape()
    name = "shop_gen_ai_client_operation_duration_seconds_count"
    models = seen.labels(name, "gen_ai_request_model")
    assert len(models) == metrics.MAX_MODELS + 1
    assert "other" in models
    assert seen.sum(name) == 6 * metrics.MAX_MODELS


async def test_a_full_batch_is_flushed_at_once(
    installed: Installed, configure: Callable[..., LLMPool], upstream: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(metrics, "STATS_INTERVAL", 3600.0)
    pool = configure(upstream)
    counts = "shop_gen_ai_client_operation_duration_seconds_count"
    for _ in range(metrics.BATCH - 1):
        await pool.acomplete("hello")
    assert installed.scrape_without_flush().sum(counts) == 0
    await pool.acomplete("hello")
    await until(lambda: installed.scrape_without_flush().sum(counts) == metrics.BATCH)


def test_metrics_appear_in_django_prometheus(
    configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    exports = pytest.importorskip("django_prometheus.exports", reason="no django-prometheus for this Django")
    configure(upstream).complete("hello")
    text = exports.ExportToDjangoView(None).content.decode()
    assert "http_client_open_connections" in Scrape(text).names
