"""Metrics: they match what the server counted, in one process and in several."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from llm_pool import metrics
from llm_pool.calling.record import CallRecord, observe, unobserve
from llm_pool.engine.loops import portal
from llm_pool.engine.stats.histogram import BOUNDS
from llm_pool.engine.stats.listeners import STATS_INTERVAL, stats_listeners
from llm_pool.exceptions import AuthenticationFailed, ConnectFailed, PoolTimeout
from llm_pool.providers.results import Timing, Usage
from testbed.behaviours import json_reply
from testbed.process import free_port
from tests.deployments.conftest import deploy
from tests.scenarios.callers import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llm_pool.calling.pool import LLMPool
    from llm_pool.engine.stats.stats import PoolStats
    from testbed import Script, ScriptedServer
    from tests.deployments.launcher import Deployment

__all__ = ["deploy"]

DOCS = Path(__file__).parents[2] / "docs"
PATIENCE = 20.0
METRIC = re.compile(r"\b(?:http_client|llm_pool|gen_ai_client)_\w+(?=[{\[ )])")


class Scrape:
    """The samples of one scrape."""

    def __init__(self, text: str) -> None:
        self._samples = [
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ]
        self.names = {sample.name for sample in self._samples}

    def sum(self, name: str, **labels: str) -> float:
        """The sum of all samples with that name and these labels."""
        return sum(s.value for s in self._samples if s.name == name and labels.items() <= s.labels.items())

    def labels(self, name: str, label: str) -> set[str]:
        return {sample.labels[label] for sample in self._samples if sample.name == name}


class Installed:
    """Metrics in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._passed: list[PoolStats] = []
        self.metrics = metrics.Metrics(self.registry, "shop", (0.1, 1.0, 10.0))

    def changed(self, name: str, now: PoolStats, before: PoolStats | None) -> None:
        """Pass stats on, except of pools of earlier tests, whose first stats went to other metrics."""
        if before is None or any(before is each for each in self._passed):
            self._passed.append(now)
            self.metrics.pool_changed(name, now, before)

    def scrape(self) -> Scrape:
        self.metrics.flush()
        return self.scrape_what_is_flushed()

    def scrape_what_is_flushed(self) -> Scrape:
        return Scrape(generate_latest(self.registry).decode())


@pytest.fixture
def installed() -> Iterator[Installed]:
    """Metrics that are registered as ``install`` does it."""
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
    assert called.wait(PATIENCE)


async def test_counters_and_gauges_match_what_the_server_saw(
    installed: Installed, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    pool = configure(upstream)
    for _ in range(5):
        await pool.acomplete("hello")
    async for _ in pool.astream("hello"):
        pass
    await until(lambda: installed.scrape().sum("shop_llm_pool_requests_total", pool="default") == 6)
    idle = {"http_connection_state": "idle"}  # the last stats may be from before its end
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
    pool = configure(upstream, LEAK_THRESHOLD=4 * STATS_INTERVAL)  # all other stats have been passed by then
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
        metrics._add(batch, values)
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
    assert installed.scrape_what_is_flushed().sum(counts) == 0
    await pool.acomplete("hello")
    await until(lambda: installed.scrape_what_is_flushed().sum(counts) == metrics.BATCH)


def test_they_appear_in_the_view_of_django_prometheus(
    configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    exports = pytest.importorskip("django_prometheus.exports", reason="no django-prometheus for this Django")
    configure(upstream).complete("hello")
    text = exports.ExportToDjangoView(None).content.decode()
    assert "http_client_open_connections" in Scrape(text).names


# Two gunicorn workers


@pytest.fixture
def shop(
    deploy: Callable[..., Deployment], upstream: ScriptedServer, tmp_path: Path
) -> tuple[Deployment, ScriptedServer]:
    """Two workers with metrics in multiprocess mode, configured as in docs/metrics.md."""
    (tmp_path / "metrics").mkdir()
    config = tmp_path / "gunicorn.conf.py"
    config.write_text(
        "from prometheus_client import multiprocess\n\n"
        "def child_exit(server, worker):\n"
        "    multiprocess.mark_process_dead(worker.pid)\n"
    )
    extra = {
        "options": f"--workers 2 --config {config}",
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics"),
    }
    return deploy("gunicorn-gthread", upstream, extra=extra), upstream


@pytest.mark.server
def test_gauges_of_two_workers_are_summed_without_those_of_a_killed_one(
    shop: tuple[Deployment, ScriptedServer],
) -> None:
    server, upstream = shop
    workers: set[int] = set()
    calls = 0
    with ThreadPoolExecutor(4) as threads:
        for _ in range(50):  # until each worker has answered
            answers = list(threads.map(server.get, ["/complete"] * 8))
            calls += len(answers)
            workers |= {answer["process"] for answer in answers}
            if len(workers) == 2:
                break
    assert len(workers) == 2
    # A connection whose call got another one may be accepted after the last call has ended.
    wait_for_scrape(server, lambda s: s.sum("http_client_open_connections") == upstream.connections_open >= 2)
    before = upstream.connections_open
    wait_for_scrape(server, lambda s: s.sum("llm_pool_requests_total") == calls == len(upstream.requests))
    wait_for_scrape(
        server, lambda s: s.sum("gen_ai_client_operation_duration_seconds_count", error_type="") == calls
    )
    os.kill(workers.pop(), signal.SIGKILL)
    upstream.wait_until(lambda s: s.connections_open < before)
    wait_for_scrape(server, lambda s: s.sum("http_client_open_connections") == upstream.connections_open > 0)
    assert scrape(server).sum("llm_pool_requests_total") == calls  # what was counted stays


def wait_for_scrape(server: Deployment, condition: Callable[[Scrape], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition(seen := scrape(server)):
        assert time.monotonic() < deadline, sorted(map(str, seen._samples))
        time.sleep(0.05)


def scrape(server: Deployment) -> Scrape:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=PATIENCE) as response:
        return Scrape(response.read().decode())


# A real Prometheus


def program(name: str) -> str:
    """The path of a program. Skips the test if it is not installed; fails in CI."""
    found = shutil.which(name)
    if found is None:
        assert "CI" not in os.environ, f"{name} is missing; Debian's package 'prometheus' has it"
        pytest.skip(f"{name} is not installed; Debian's package 'prometheus' has it")
    return found


def promtool(*arguments: str, cwd: Path = DOCS) -> None:
    done = subprocess.run(
        [program("promtool"), *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_alert_rules_are_valid() -> None:
    promtool("check", "rules", "alerts.yml")


def test_alerts_fire_when_they_should_and_not_before() -> None:
    promtool("test", "rules", "alerts_test.yml", cwd=Path(__file__).parent)


@pytest.mark.server
def test_a_prometheus_scrapes_a_running_server(
    shop: tuple[Deployment, ScriptedServer], tmp_path: Path
) -> None:
    prometheus, port = program("prometheus"), free_port()
    server, _ = shop
    server.get("/complete")
    (tmp_path / "prometheus.yml").write_text(
        f"global: {{scrape_interval: 1s}}\nrule_files: ['{DOCS / 'alerts.yml'}']\n"
        f"scrape_configs: [{{job_name: shop, static_configs: [{{targets: ['127.0.0.1:{server.port}']}}]}}]\n"
    )
    command = [
        prometheus, f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}", f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    with (tmp_path / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + PATIENCE
        while not (found := query(port, "sum(http_client_open_connections)")) or found[0]["value"][1] == "0":
            assert process.poll() is None, (tmp_path / "prometheus.log").read_text()
            assert time.monotonic() < deadline, f"{found}; {(tmp_path / 'prometheus.log').read_text()}"
            time.sleep(0.1)
        assert float(found[0]["value"][1]) == 1.0
    finally:
        process.terminate()
        process.wait(PATIENCE)


def query(port: int, expression: str) -> Any:
    """The result of an instant query; empty while Prometheus is not up."""
    url = f"http://127.0.0.1:{port}/api/v1/query?query={quote(expression)}"
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as response:
            return json.load(response)["data"]["result"]
    except OSError:
        return []


def test_the_dashboard_and_the_alerts_use_metrics_that_exist() -> None:
    """Every name, with every suffix that Prometheus adds."""
    exposed = {
        f"{family.name}{ending}"
        for family in Installed().registry.collect()
        for ending in ("", "_total", "_count", "_sum", "_bucket")
    }
    dashboard = json.loads((DOCS / "grafana-dashboard.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    used = set(METRIC.findall(" ".join([*expressions, (DOCS / "alerts.yml").read_text()])))
    assert len(used) >= 15
    assert {f"shop_{name}" for name in used} <= exposed


def test_every_metric_is_in_the_docs() -> None:
    text = (DOCS / "metrics.md").read_text()
    for family in Installed().registry.collect():
        name = family.name.removeprefix("shop_") + ("_total" if family.type == "counter" else "")
        assert f"`{name}`" in text
