"""When a process begins to record what its page shows."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import llm_pool.urls  # noqa: F401  as a project with the page has it
from llm_pool import pools
from llm_pool.engine.stats.listeners import stats_listeners
from llm_pool.status.recorder import Recorder, recorder
from tests.fixtures.internals import recorder_thread, replace_recorder_thread
from tests.fixtures.model import model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_django.fixtures import SettingsWrapper

    from testbed import ScriptedServer

PATIENCE = 5.0  # seconds


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Set when a recorder of its own, which hears the news, has begun."""
    event = threading.Event()
    replace_recorder_thread(monkeypatch, event.set)
    fresh = Recorder()
    stats_listeners.append(fresh.pool_changed)
    yield event
    stats_listeners.remove(fresh.pool_changed)


@pytest.fixture
def server(serve: Callable[..., ScriptedServer], settings: SettingsWrapper) -> ScriptedServer:
    """Where the default pool goes. Its answers wait at the gate "head"."""
    server = serve(model)
    pool = {"BASE_URL": f"{server.url}/v1", "API_KEY": "", "MODEL": "m", "PROXY": ""}
    settings.LLM_POOL = {"default": pool}
    server.gate("token").open()
    return server


BODY: dict[str, Any] = {"stream": True, "messages": [{"role": "user", "content": "hi"}]}


def test_the_page_hears_the_news() -> None:
    assert recorder.pool_changed in stats_listeners


def test_it_begins_with_the_first_call_though_that_has_not_ended_and_is_a_clients(
    begun: threading.Event, server: ScriptedServer
) -> None:
    server.gate("head").shut()
    caller = threading.Thread(target=lambda: pools["default"].client.post("/chat/completions", json=BODY))
    caller.start()
    assert begun.wait(PATIENCE)
    server.gate("head").open()
    caller.join()


def test_news_of_a_pool_that_nobody_calls_begin_nothing(
    monkeypatch: pytest.MonkeyPatch, server: ScriptedServer
) -> None:
    begun = threading.Event()
    replace_recorder_thread(monkeypatch, begun.set)
    fresh, unused = Recorder(), pools["default"].stats()
    fresh.pool_changed("default", unused, None)
    called = replace(unused, requests=1)
    fresh.pool_changed("default", called, called)
    assert recorder_thread(fresh) is None
    fresh.pool_changed("default", called, unused)
    assert begun.wait(PATIENCE)
