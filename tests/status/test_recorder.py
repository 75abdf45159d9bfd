"""When a process starts to record its history, and that it starts only once."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import llm_pool.urls  # noqa: F401  as in a project with the page
from llm_pool import pools
from llm_pool.engine.stats.listeners import stats_listeners
from llm_pool.status import recorder as recorder_module
from llm_pool.status.recorder import Recorder, recorder
from tests.fixtures.internals import (
    claim_recording,
    may_end_recording,
    recorder_lock,
    recorder_thread,
    recorder_work,
    replace_recorder_lock,
    replace_recorder_thread,
)
from tests.fixtures.model import model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_django.fixtures import SettingsWrapper

    from testbed import ScriptedServer

WAIT_SECONDS = 5.0


@pytest.fixture
def recording_started(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """An event that is set when a new recorder, registered for stats, starts."""
    event = threading.Event()
    replace_recorder_thread(monkeypatch, event.set)
    fresh = Recorder()
    stats_listeners.append(fresh.pool_changed)
    yield event
    stats_listeners.remove(fresh.pool_changed)


@pytest.fixture
def server(serve: Callable[..., ScriptedServer], settings: SettingsWrapper) -> ScriptedServer:
    """The server of the default pool. Its streams wait at the gate "head"."""
    server = serve(model)
    pool = {"BASE_URL": f"{server.url}/v1", "API_KEY": "", "MODEL": "m", "PROXY": ""}
    settings.LLM_POOL = {"default": pool}
    server.gate("token").open()
    return server


BODY: dict[str, Any] = {"stream": True, "messages": [{"role": "user", "content": "hi"}]}


def test_the_page_registers_its_recorder_for_stats() -> None:
    assert recorder.pool_changed in stats_listeners


def test_recording_starts_while_the_first_call_runs_even_through_a_client(
    recording_started: threading.Event, server: ScriptedServer
) -> None:
    server.gate("head").shut()
    caller = threading.Thread(target=lambda: pools["default"].client.post("/chat/completions", json=BODY))
    caller.start()
    assert recording_started.wait(WAIT_SECONDS)
    server.gate("head").open()
    caller.join()


def test_stats_of_a_pool_without_new_calls_start_no_recording(
    monkeypatch: pytest.MonkeyPatch, server: ScriptedServer
) -> None:
    started: list[Any] = []
    monkeypatch.setattr(recorder_module, "start_thread", lambda run, **_: started.append(run))
    fresh, unused = Recorder(), pools["default"].stats()
    fresh.pool_changed("default", unused, None)
    called = replace(unused, requests=1)
    fresh.pool_changed("default", called, called)
    assert recorder_work(fresh) not in started
    fresh.pool_changed("default", called, unused)
    assert recorder_work(fresh) in started


def test_attend_takes_no_lock(recording_started: threading.Event) -> None:
    """It runs on callers' threads, where an interrupt could leave a lock acquired."""
    fresh = Recorder()
    with recorder_lock(fresh):
        fresh.attend()
        assert recording_started.wait(WAIT_SECONDS)


def test_only_one_thread_records() -> None:
    fresh = Recorder()
    assert claim_recording(fresh)
    assert not claim_recording(fresh)


def test_recording_continues_if_a_call_comes_as_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """``attend`` starts no thread while there is one, so that one must not end now."""
    fresh, started = Recorder(), []
    monkeypatch.setattr(recorder_module, "start_thread", lambda run, **_: started.append(run))
    assert claim_recording(fresh)

    class CallBefore:
        """A lock. A call comes just before it is acquired."""

        def __enter__(self) -> None:
            fresh.attend()

        def __exit__(self, *_: object) -> None: ...

    replace_recorder_lock(monkeypatch, fresh, CallBefore())
    assert not may_end_recording(fresh)
    assert recorder_thread(fresh) is threading.current_thread()
    assert started == []
