"""The content of the page: the history of this process, and the merged history of all workers."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from django.core import signing
from django.core.cache import caches

from llm_pool import pools
from llm_pool.exceptions import ConnectFailed
from llm_pool.status.overview import merge, overview, quantile
from llm_pool.status.snapshot import HISTORY, TICK_SECONDS, History
from llm_pool.status.workers import KEPT_SECONDS, SLOTS, Slot, others, shared_cache
from testbed.chat import chat_completion
from testbed.ports import refused_port
from tests.fixtures.internals import worker_key

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_django.fixtures import SettingsWrapper

    from testbed import ScriptedServer

NOW = 1000 * TICK_SECONDS + 1.0  # seconds of a monotonic clock, in the middle of a tick


@pytest.fixture
def server(serve: Callable[..., ScriptedServer], settings: SettingsWrapper) -> ScriptedServer:
    """The server of the default pool."""
    server = serve(chat_completion("Hello!"))
    pool = {"BASE_URL": f"{server.url}/v1", "API_KEY": "secret", "MODEL": "m", "PROXY": ""}
    settings.LLM_POOL = {"default": pool}
    return server


@pytest.fixture
def shared(settings: SettingsWrapper, tmp_path: Path) -> Any:
    """A cache that processes share."""
    backend = "django.core.cache.backends.filebased.FileBasedCache"
    settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": str(tmp_path)}}
    return caches["default"]


def others_in(cache: Any) -> list[dict[str, Any]]:
    """The workers in the cache, without this process, whose recorder may write there too."""
    return others(cache, os.getpid())


def test_each_tick_has_the_calls_made_in_it(server: ScriptedServer) -> None:
    history = History()
    pools["default"].complete("one")
    history.record(NOW)
    pools["default"].complete("two")
    pools["default"].complete("three")
    history.record(NOW + TICK_SECONDS)
    (shown,) = merge([history.snapshot()], NOW + TICK_SECONDS)["pools"]
    series = shown["series"]
    assert series["requests"][-2:] == [1 / TICK_SECONDS, 2 / TICK_SECONDS]
    assert series["reused"][-2:] == [0, 2 / TICK_SECONDS]
    assert series["requests"][:-2] == [None] * (HISTORY - 2)
    assert series["total_p50"][-1] > 0
    assert shown["now"]["requests"] == len(server.requests) == 3


def test_counters_start_again_after_new_settings(server: ScriptedServer, settings: SettingsWrapper) -> None:
    history = History()
    pools["default"].complete("one")
    history.record(NOW)
    settings.LLM_POOL = {"default": dict(settings.LLM_POOL["default"])}
    pools["default"].complete("two")
    history.record(NOW + TICK_SECONDS)
    (shown,) = merge([history.snapshot()], NOW + TICK_SECONDS)["pools"]
    assert shown["series"]["requests"][-2:] == [1 / TICK_SECONDS, 1 / TICK_SECONDS]


def test_the_history_is_bounded(server: ScriptedServer) -> None:
    history = History()
    pools["default"].complete("one")
    for number in range(HISTORY + 10):
        history.record(NOW + number * TICK_SECONDS)
    assert len(history.snapshot()["pools"]["default"]["ticks"]) == HISTORY


def test_a_snapshot_is_json_without_keys_and_prompts(server: ScriptedServer) -> None:
    history = History()
    pools["default"].complete("a question")
    history.record(NOW)
    text = json.dumps(history.snapshot())
    assert server.url in text
    assert "secret" not in text
    assert "a question" not in text


def test_numbers_of_two_workers_are_summed_and_ages_are_not(server: ScriptedServer) -> None:
    history = History()
    pools["default"].complete("one")
    history.record(NOW)
    one = json.loads(json.dumps(history.snapshot()))
    one["pools"]["default"]["now"].update(longest_wait=1.0, closed={"expired": 1, "lost": 2})
    two = json.loads(json.dumps({**one, "worker": 7}))
    two["pools"]["default"]["now"].update(longest_wait=2.0, closed={"lost": 3}, in_use=50)
    whole = merge([one, two], NOW)
    (shown,) = whole["pools"]
    assert shown["now"]["max_connections"] == 200
    assert shown["now"]["utilization"] == 0.25
    assert shown["now"]["longest_wait"] == 2.0
    assert shown["now"]["closed"] == {"expired": 1, "lost": 5}
    assert shown["series"]["requests"][-1] == 2 / TICK_SECONDS
    assert {each["worker"] for each in shown["connections"]} == {7, one["worker"]}
    assert len(whole["workers"]) == 2


@pytest.mark.parametrize("engine", ["native", "httpcore", "aiohttp"])
def test_a_pool_is_unreachable_from_a_failed_dial_until_one_succeeds(
    server: ScriptedServer, settings: SettingsWrapper, engine: str
) -> None:
    settings.LLM_POOL = {"default": {**settings.LLM_POOL["default"], "ENGINE": engine}}
    history = History()

    def unreachable(tick: int) -> bool:
        history.record(NOW + tick * TICK_SECONDS)
        (shown,) = merge([history.snapshot()], NOW)["pools"]
        return bool(shown["now"]["unreachable"])

    with refused_port() as port, pytest.raises(ConnectFailed):
        pools["default"].client.get(f"http://127.0.0.1:{port}/")
    assert unreachable(0)
    assert unreachable(1)
    pools["default"].complete("one")
    assert not unreachable(2)
    pools["default"].drain(5.0)
    assert pools["default"].stats().connections == 0
    assert not unreachable(3)


@pytest.mark.parametrize(
    ("failed_at", "open_now", "unreachable"), [(2.0, 0, True), (2.0, 1, False), (0.5, 0, False)]
)
def test_the_last_dial_of_two_workers_counts_while_none_has_a_connection(
    server: ScriptedServer, failed_at: float, open_now: int, unreachable: bool
) -> None:
    pools["default"].complete("one")
    history = History()
    one = json.loads(json.dumps(history.snapshot()))
    one["pools"]["default"]["now"].update(dialed_at=1.0, dial_failed_at=0.0, connections=0)
    two = json.loads(json.dumps({**one, "worker": 7}))
    two["pools"]["default"]["now"].update(dialed_at=0.0, dial_failed_at=failed_at, connections=open_now)
    (shown,) = merge([one, two], NOW)["pools"]
    assert shown["now"]["unreachable"] == unreachable


@pytest.mark.parametrize(
    ("counts", "fraction", "seconds"),
    [
        ({}, 0.5, None),
        ({0: 10}, 0.5, 0.0005),  # half of the bucket up to 1 ms
        ({6: 4}, 1.0, 0.1),  # the bucket from 50 to 100 ms
        ({6: 4}, 0.25, 0.0625),
        ({0: 50, 9: 50}, 0.5, 0.001),
        ({0: 50, 9: 50}, 0.75, 0.75),  # half of the bucket from 0.5 to 1 s
        ({17: 3}, 0.5, 250.0),  # longer than all bounds
    ],
)
def test_a_percentile_lies_within_its_bucket(
    counts: dict[int, int], fraction: float, seconds: float | None
) -> None:
    assert quantile(Counter(counts), fraction) == pytest.approx(seconds)


def test_without_a_shared_cache_the_page_shows_one_process(server: ScriptedServer) -> None:
    pools["default"].complete("one")
    shown = overview()
    assert shown["scope"] == "process"
    assert [each["worker"] for each in shown["workers"]] == [os.getpid()]


def test_a_shared_cache_shows_the_other_workers(server: ScriptedServer, shared: Any) -> None:
    pools["default"].complete("one")
    other = {**History().snapshot(), "worker": 7}
    Slot().publish(other)
    Slot().publish({**other, "worker": 8})
    shown = overview()
    assert shown["scope"] == "machine"
    assert {each["worker"] for each in shown["workers"]} == {7, 8, os.getpid()}


def test_a_worker_that_writes_again_keeps_its_slot(shared: Any) -> None:
    slot = Slot()
    slot.publish({"worker": 7, "beat": 1})
    slot.publish({"worker": 7, "beat": 2})
    assert others_in(shared) == [{"worker": 7, "beat": 2}]


def test_a_worker_whose_slot_is_taken_gets_a_new_one(shared: Any) -> None:
    slot = Slot()
    slot.publish({"worker": 7})
    shared.clear()
    Slot().publish({"worker": 8})
    slot.publish({"worker": 7})
    assert {each["worker"] for each in others_in(shared)} == {7, 8}


def test_a_killed_worker_disappears(shared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    slot = Slot()
    slot.publish({"worker": 7})
    slot.publish({"worker": 7})
    later = time.time() + KEPT_SECONDS + 1
    monkeypatch.setattr(time, "time", lambda: later)
    assert others_in(shared) == []


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "no signature",
        b"\0",
        7,
        [],
        '{"worker": 7}',
        pytest.param(signing.dumps({"worker": 7}, key="another"), id="another key"),
    ],
)
def test_an_entry_that_no_worker_has_written_is_deleted(
    entry: Any, server: ScriptedServer, shared: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The page shows the others, and the entry's slot can be used again."""
    pools["default"].complete("one")
    keys = [worker_key(number) for number in range(SLOTS - 2)]  # the two are for this worker and for 8
    for key in keys:
        shared.set(key, entry, None)
    Slot().publish({**History().snapshot(), "worker": 8})
    shown = overview()
    assert shown["scope"] == "machine"
    assert {each["worker"] for each in shown["workers"]} == {8, os.getpid()}
    assert f"no worker of this project has written the cache's entry {keys[0]}" in caplog.text
    assert entry not in shared.get_many(keys).values()
    Slot().publish({**History().snapshot(), "worker": 9})
    assert {each["worker"] for each in overview()["workers"]} == {8, 9, os.getpid()}


def test_a_worker_whose_entry_was_overwritten_gets_another_slot(shared: Any) -> None:
    slot = Slot()
    slot.publish({"worker": 7, "beat": 1})
    shared.set(worker_key(0), "not a snapshot", None)
    slot.publish({"worker": 7, "beat": 2})
    assert others_in(shared) == [{"worker": 7, "beat": 2}]


class BrokenCache:
    """A cache whose server is down."""

    def __init__(self, *_: object) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        def fail(*_: object, **__: object) -> None:
            raise ConnectionError("no cache here")

        return fail

    def close(self) -> None:
        pass


def test_a_failing_cache_is_logged_once_and_the_page_shows_one_process(
    settings: SettingsWrapper, caplog: pytest.LogCaptureFixture
) -> None:
    settings.CACHES = {"default": {"BACKEND": "tests.status.test_overview.BrokenCache"}}
    assert shared_cache() is not None
    slot = Slot()
    with caplog.at_level(logging.ERROR, "llm_pool.status"):
        slot.publish({"worker": 7})
        slot.publish({"worker": 7})
    here = threading.get_ident()  # not the thread of this process's recorder
    assert len([record for record in caplog.records if record.thread == here]) == 1
    assert overview()["scope"] == "unreachable"
