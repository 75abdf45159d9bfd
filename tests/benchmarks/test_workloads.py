"""Each kind of benchmark runs and returns its measures; speed is not tested."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.child import Failed, work
from benchmarks.results import Measured
from benchmarks.rounds import run, run_round
from benchmarks.workloads import Contestant, Workload, with_before
from testbed.process import free_port

pytestmark = [pytest.mark.server, pytest.mark.forks]

SHORT = 0.05  # seconds
LONG = 1.5  # seconds, for work that only time ends: longer than the pauses of a busy machine


def workload(work: str, upstream: str, *clients: str, loop: str = "asyncio", **parameters: float) -> Workload:
    contestants = tuple(Contestant(client, client) for client in clients)
    return Workload("http2", "a title", work, upstream, contestants, parameters, loop)


def measured(given: Workload) -> Measured:
    found = Measured(given.name)
    run_round(given, 0, found, 1.0, lambda _: None)
    return found


def test_a_pool_is_prewarmed_before_calls_in_turn():
    found = measured(workload("in_turn", "http", "acomplete", calls=3))
    assert not found.skipped
    assert found.rounds["acomplete"][0]["wall"] > 0


def test_each_round_measures_each_client():
    turns: list[str] = []
    calls = workload("calls", "http", "floor", "acomplete", loop="uvloop", concurrency=3, seconds=SHORT)
    found = run([replace(calls, rounds=2)], 60, 1.0, turns.append)[calls.name]
    assert [turn.rpartition(": ")[2] for turn in turns] == ["floor", "acomplete", "acomplete", "floor"]
    for client in ("floor", "acomplete"):
        assert len(found.rounds[client]) == 2
        for each in found.rounds[client]:
            assert 0 < each["cpu"] < 1
            assert each["p50"] <= each["p99"]
            assert each["rate"] > 0
            assert each["memory"] > 2**20


def test_no_round_begins_after_the_time_limit():
    calls = replace(workload("calls", "http", "floor", concurrency=1, seconds=SHORT), rounds=1000)
    assert len(run([calls], 0.1, 1.0, lambda _: None)[calls.name].rounds["floor"]) == 1
    assert "minutes was reached" in run([calls], 0.0, 1.0, lambda _: None)[calls.name].not_run


def test_each_installed_client_is_measured():
    clients = ("acomplete+metrics", "aclient", "httpx", "httpx2", "aiohttp", "openai")
    found = measured(workload("calls", "http", *clients, concurrency=2, seconds=SHORT))
    assert {"acomplete+metrics", "aclient", "httpx", "aiohttp"} <= set(found.rounds)
    assert not [reason for reason in found.skipped.values() if not reason.endswith("is not installed")]


def test_calls_with_and_without_observers_take_turns():
    turns = workload("turns", "http", "acomplete+metrics", concurrency=2, seconds=SHORT, turns=4)
    (found,) = measured(turns).rounds["acomplete+metrics"]
    assert found["cpu"] > 0
    assert found["times"] > 0


def test_functions_and_dials_are_counted():
    (found,) = measured(workload("functions", "http", "acomplete", calls=3)).rounds["acomplete"]
    assert found["functions"] > found["python"] > 10
    bursts = workload("dials", "http", "acomplete, default limits", calls=60, concurrency=30)
    (found,) = measured(bursts).rounds["acomplete, default limits"]
    assert 30 <= found["dials"] <= 60


def test_http2_is_measured_over_tls():
    calls = workload("calls", "tls", "acomplete", "httpx", concurrency=2, seconds=SHORT)
    assert set(measured(calls).rounds) == {"acomplete", "httpx"}


def test_calls_of_threads_are_measured():
    calls = workload("threads", "http", "complete", "httpx.Client", concurrency=2, seconds=LONG)
    assert set(measured(calls).rounds) == {"complete", "httpx.Client"}


def test_streams_are_measured_as_their_events_come():
    events = workload("events", "events", "floor", "acomplete", concurrency=5, seconds=LONG)
    found = measured(events)
    assert set(found.rounds) == {"floor", "acomplete"}, found.skipped
    assert found.rounds["floor"][0]["p50"] <= found.rounds["floor"][0]["p99"]


def test_an_open_stream_holds_memory():
    (held,) = measured(workload("held", "silence", "acomplete", concurrency=20)).values("acomplete", "bytes")
    assert held > 1000


def test_a_view_is_measured_by_the_cpu_of_its_server():
    (found,) = measured(workload("view", "http", "pooled", seconds=SHORT)).rounds["pooled"]
    assert found["per_cpu_second"] == pytest.approx(1 / found["cpu"])


def test_a_streaming_view_is_measured_by_the_tokens_that_browsers_read():
    pace = {"concurrency": 3, "seconds": 0.2, "interval": 0.01}
    found = measured(workload("streaming view", "tokens", "stream-pooled", "stream-shared", **pace))
    (ours,) = found.rounds["stream-pooled"]
    assert 0 < ours["cpu"] < 1
    assert ours["behind"] >= 0
    assert found.skipped.get("stream-shared", "").removesuffix(" is not installed") in ("", "openai")


@pytest.mark.parametrize("kind", ["calls", "streaming view", "startup"])
def test_another_checkout_of_the_project_is_measured_beside_this_one(kind, tmp_path):
    (tmp_path / "llm_pool").mkdir()
    (tmp_path / "llm_pool" / "__init__.py").write_text("raise RuntimeError('this is the other checkout')")
    pace = {"concurrency": 1, "seconds": SHORT}
    given, client = {
        "calls": (workload("calls", "http", **pace), "acomplete"),
        "streaming view": (workload("streaming view", "tokens", **pace, interval=0.01), "stream-pooled"),
        "startup": (workload("startup", "none"), "llm_pool"),
    }[kind]
    ours = Contestant("llm_pool", client)
    both = with_before(replace(given, contestants=(ours, Contestant("floor", "floor"))), str(tmp_path))
    assert [each.label for each in both.contestants] == ["llm_pool", "llm_pool, before", "floor"]
    found = measured(replace(both, contestants=both.contestants[:2]))
    assert set(found.rounds) == {"llm_pool"}
    assert "the other checkout" in found.skipped["llm_pool, before"]


def test_a_client_that_fails_is_skipped_with_its_error():
    target = {"url": f"http://127.0.0.1:{free_port()}/v1"}
    parameters = {"concurrency": 1, "seconds": SHORT}
    task = {"client": "httpx", "work": "calls", "loop": "asyncio", "target": target}
    with pytest.raises(Failed, match="ConnectError"):
        work({**task, "parameters": parameters})
