"""Metrics of two gunicorn workers, and a Prometheus that scrapes them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from testbed.process import free_port
from tests.fixtures.scrapes import Scrape, find_program

if TYPE_CHECKING:
    from collections.abc import Callable

    from testbed import ScriptedServer
    from tests.deployments.launcher import Deployment


DOCS = Path(__file__).parents[2] / "docs"
WAIT_SECONDS = 20.0


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
    # A connection may be accepted after the last call: its call got another connection.
    wait_for_scrape(server, lambda s: s.sum("http_client_open_connections") == upstream.connections_open >= 2)
    before = upstream.connections_open
    wait_for_scrape(server, lambda s: s.sum("llm_pool_requests_total") == calls == len(upstream.requests))
    wait_for_scrape(
        server, lambda s: s.sum("gen_ai_client_operation_duration_seconds_count", error_type="") == calls
    )
    os.kill(workers.pop(), signal.SIGKILL)
    upstream.wait_until(lambda s: s.connections_open < before)
    wait_for_scrape(server, lambda s: s.sum("http_client_open_connections") == upstream.connections_open > 0)
    assert scrape(server).sum("llm_pool_requests_total") == calls  # the killed worker's calls still count


def wait_for_scrape(server: Deployment, condition: Callable[[Scrape], object]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition(seen := scrape(server)):
        assert time.monotonic() < deadline, sorted(map(str, seen._samples))
        time.sleep(0.05)


def scrape(server: Deployment) -> Scrape:
    """Scrape the server's metrics; again as long as the view responds with 503."""
    for _ in range(10):
        try:
            url = f"http://127.0.0.1:{server.port}/metrics"
            with urllib.request.urlopen(url, timeout=WAIT_SECONDS) as response:
                return Scrape(response.read().decode())
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != 503:
                raise
    raise AssertionError("the metrics could not be read ten times in a row")


@pytest.mark.server
def test_a_prometheus_scrapes_a_running_server(
    shop: tuple[Deployment, ScriptedServer], tmp_path: Path
) -> None:
    prometheus, port = find_program("prometheus"), free_port()
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
        deadline = time.monotonic() + WAIT_SECONDS
        while not (found := query(port, "sum(http_client_open_connections)")) or found[0]["value"][1] == "0":
            assert process.poll() is None, (tmp_path / "prometheus.log").read_text()
            assert time.monotonic() < deadline, f"{found}; {(tmp_path / 'prometheus.log').read_text()}"
            time.sleep(0.1)
        assert float(found[0]["value"][1]) == 1.0
    finally:
        process.terminate()
        process.wait(WAIT_SECONDS)


def query(port: int, expression: str) -> Any:
    """The result of an instant query; empty until Prometheus responds."""
    url = f"http://127.0.0.1:{port}/api/v1/query?query={quote(expression)}"
    try:
        with urllib.request.urlopen(url, timeout=WAIT_SECONDS) as response:
            return json.load(response)["data"]["result"]
    except urllib.error.HTTPError as not_ready:
        not_ready.close()
        return []
    except OSError:
        return []
