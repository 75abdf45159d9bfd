"""``pools``: looked up by alias, made once, and made again when settings change or after a fork."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

import llm_pool
from llm_pool import exceptions, pool, pools
from tests.fixtures.calls import CALLS, ask
from tests.fixtures.internals import registry_lock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llm_pool.calling.pool import LLMPool
    from testbed import ScriptedServer


def test_pools_are_found_by_alias_after_any_import_order() -> None:
    assert llm_pool.pools is pools
    assert pools["default"].alias == pool.alias == "default"
    assert list(pools) == ["default"]
    assert "default" in pools
    assert "other" not in pools


@pytest.mark.parametrize("call", CALLS)
def test_new_settings_take_effect_and_close_old_connections(
    call: str,
    configure: Callable[..., LLMPool],
    serve: Callable[..., ScriptedServer],
    upstream: ScriptedServer,
) -> None:
    """Scenario 54: for each later look-up, and for ``llm_pool.pool``."""
    other = serve(upstream.script)
    other.gate("head").open()
    other.gate("token").open()
    first = configure(upstream, MODEL="one")
    assert ask(call, first).text
    second = configure(other, MODEL="two")
    upstream.wait_until(lambda s: s.connections_open == 0)
    assert second is pools["default"] is not first
    assert ask(call, pool).text  # type: ignore[arg-type]
    assert [request.json()["model"] for request in other.requests] == ["two"]
    with pytest.raises(exceptions.PoolClosed):
        ask(call, first)
    assert len(upstream.requests) == 1


def test_calls_in_flight_fail_with_a_clear_error_when_the_settings_change(
    configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    """Scenario 54."""
    upstream.gate("token").shut()
    first = configure(upstream)
    failed: list[BaseException] = []

    def call() -> None:
        try:
            ask("stream", first)
        except exceptions.LLMPoolError as error:
            failed.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    upstream.gate("token").wait_reached()
    configure(upstream)
    thread.join(5)
    assert not thread.is_alive()
    assert [type(error) for error in failed] == [exceptions.PoolClosed]


def test_settings_may_change_while_others_call(
    configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    """Scenario 54: each call succeeds or raises PoolClosed."""
    configure(upstream)
    over = threading.Event()
    answered = threading.Event()
    wrong: list[BaseException] = []

    def caller(call: str) -> None:
        while not over.is_set():
            try:
                ask(call, pools["default"])
                answered.set()
            except exceptions.PoolClosed:
                pass
            except BaseException as error:
                wrong.append(error)
                raise

    threads = [threading.Thread(target=caller, args=(call,)) for call in CALLS]
    for thread in threads:
        thread.start()
    for count in range(1, 11):
        upstream.wait_requests(len(upstream.requests) + 1)
        configure(upstream, LIMITS={"max_connections": count, "max_keepalive_connections": 1})
    assert answered.wait(5)
    over.set()
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()
    assert wrong == []
    assert pools["default"].stats().max_connections == 10


def test_a_provider_module_that_uses_a_pool_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is imported while the settings are read: there is no pool yet, and a wait for it would never end."""
    lines = ["from llm_pool import pools", "from llm_pool.providers.openai import OpenAI", "pools['default']"]
    (tmp_path / "shy.py").write_text("\n".join([*lines, "class Shy(OpenAI): pass"]))
    monkeypatch.syspath_prepend(str(tmp_path))
    with (
        override_settings(LLM_POOL={"default": {"PROVIDER": "shy.Shy"}}),
        pytest.raises(ImproperlyConfigured, match=r"'shy.Shy' cannot be used"),
    ):
        pools["default"]


def test_an_unknown_alias_names_the_nearest() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"no pool named 'defualt'. Did you mean 'default'\?"):
        pools["defualt"]
    with (
        override_settings(LLM_POOL={"fast": {}, "good": {}}),
        pytest.raises(ImproperlyConfigured, match=r"no pool named 'default'. Available: 'fast', 'good'."),
    ):
        pools["default"]


def test_invalid_settings_raise_at_the_next_use() -> None:
    with (
        override_settings(LLM_POOL={"default": {"LIMITS": {"max_connections": 0}}}),
        pytest.raises(ImproperlyConfigured, match="max_connections"),
    ):
        pools["default"]


def test_a_closed_pool_is_made_again(configure: Callable[..., LLMPool], upstream: ScriptedServer) -> None:
    """Scenario 51: at the next look-up by alias. The old one raises PoolClosed."""
    first = configure(upstream)
    first.close()
    first.close()
    with pytest.raises(exceptions.PoolClosed):
        first.complete("hello")
    assert pools["default"].complete("hello").text


async def test_draining_replaces_connections(
    configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    """Scenario 51."""
    mine = configure(upstream)
    await mine.acomplete("hello")
    assert await mine.adrain(5.0)
    await mine.acomplete("hello")
    assert [request.connection for request in upstream.requests] == [0, 1]
    assert await asyncio.to_thread(mine.drain, 5.0)
    await mine.aclose()
    upstream.wait_until(lambda s: s.connections_open == 0)


def test_new_threads_see_one_pool(configure: Callable[..., LLMPool], upstream: ScriptedServer) -> None:
    """Scenario 53."""
    configure(upstream)
    pools.close_all()
    found: list[Any] = []
    start = threading.Barrier(20)

    def look() -> None:
        start.wait()
        found.append(pools["default"])

    threads = [threading.Thread(target=look) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1


@pytest.mark.forks
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_makes_pools_if_the_lock_was_held_at_the_fork(
    configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    """Scenario 52: another thread holds the registry's lock at the fork."""
    configure(upstream)
    pools.close_all()
    held, forked = threading.Event(), threading.Event()

    def hold() -> None:
        with registry_lock():
            held.set()
            forked.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(5)
        answered = pools["default"].complete("hello").text
        os._exit(0 if answered == "You said hello." else 1)
    forked.set()
    holder.join()
    assert os.waitpid(child, 0) == (child, 0)
    upstream.wait_until(lambda s: s.connections_open == 0)
