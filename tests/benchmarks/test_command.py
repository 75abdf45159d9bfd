"""``python -m benchmarks``: its output, its document, the far host, and clients that are not installed."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

import pytest

from benchmarks import install, reading
from benchmarks.child import work
from benchmarks.link import LinkImpossible, link
from benchmarks.report.document import text
from benchmarks.results import Measured, Results

pytestmark = [pytest.mark.server, pytest.mark.forks]


def test_a_missing_library_is_skipped_with_the_reason(monkeypatch, tmp_path):
    target = {"url": "http://127.0.0.1:9/v1"}
    task = {"client": "litellm", "work": "calls", "loop": "asyncio", "target": target, "parameters": {}}
    found = work(task)
    if found["missing"] != "litellm":
        pytest.skip("litellm is installed")
    assert install.why_missing("litellm") == "litellm is not installed"
    monkeypatch.setattr(install, "_SKIPPED", tmp_path / "skipped.json")
    (tmp_path / "skipped.json").write_text('{"httpx-aiohttp": "no version of it is to be had"}')
    assert install.why_missing("httpx_aiohttp") == "no version of it is to be had"


def test_a_failed_pip_install_returns_its_reason():
    reason = install._pip(sys.executable, ["--no-index", "no-such-peer"])
    assert reason == "No matching distribution found for no-such-peer"


def test_the_far_host_has_the_round_trip_time_asked_for():
    try:
        with link(0.5) as far, socket.socket() as sock:
            sock.settimeout(5)
            began = time.monotonic()
            with pytest.raises(
                ConnectionRefusedError
            ):  # nothing listens there; the refusal takes a round trip
                sock.connect((far.host, 8443))
            assert time.monotonic() - began >= 0.5
    except LinkImpossible as error:
        pytest.skip(str(error))


def test_the_command_prints_goals_and_exits_with_0():
    command = [sys.executable, "-m", "benchmarks", "--quick", "--rounds", "1", "--workloads", "import"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "llm_pool" in done.stdout
    assert "at most" in done.stdout


def test_the_readers_are_measured_in_three_sizes(monkeypatch, capsys):
    names = ["chat: tool calls", "messages: text in one event"]
    monkeypatch.setattr(sys, "argv", ["reading", "--share", "0.002", "--answers", *names])
    reading.main()
    heading, *lines = capsys.readouterr().out.splitlines()
    assert [line.partition("  ")[0] for line in lines] == names
    assert {len(line) for line in lines} == {len(heading)}


def test_the_document_lists_goals_losses_and_skipped_clients():
    ours, theirs = {"cpu": 0.002}, {"cpu": 0.001}
    http2 = Measured("http2", {"acomplete": [ours], "httpx": [theirs]}, {"pyreqwest": "not to be had"})
    http2.loads = [2.0]
    document = text(Results("2026-01-01", 60.0, {"CPU": "a good one"}, {"httpx": "1.0"}, {"http2": http2}))
    assert "| httpx | at most 0.17 | **2.00** (2.00 to 2.00) * | does not hold |" in document
    assert "`acomplete` against httpx is 2.00; the goal is at most 0.17." in document
    assert "httpx needs 0.50 of our CPU" in document
    assert "| before |" not in document
    assert "pyreqwest is skipped: not to be had" in document
    assert (
        "\\* Whole answers, HTTP/2 over TLS, 50 concurrent: the load by other processes was 2.0." in document
    )
    assert "- CPU: a good one" in document
    assert "## Large answers" in document
    http2.add("acomplete, before", {"cpu": 0.004})
    document = text(Results("2026-01-01", 60.0, {}, {}, {"http2": http2}))
    assert "| httpx | at most 0.17 | 4.00 | **2.00** (2.00 to 2.00) * | does not hold |" in document
