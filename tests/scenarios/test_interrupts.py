"""Scenario 57: a sync caller is interrupted at every step of an operation; the next operation works."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest
from django.test import override_settings

from llm_pool import pools
from llm_pool.engine.loops import portal
from llm_pool.engine.loops.threads import hold
from testbed.behaviours import json_reply
from testbed.chat import chat_completion
from tests.fixtures.callers import AT_ONCE
from tests.fixtures.engine import request_to
from tests.scenarios.steppers import interrupted_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_pool.engine.pool import Pool
    from testbed import ScriptedServer


def interrupt_each_step(
    function: Callable[[], Any], works: Callable[[], Any], before: Callable[[], object] = lambda: None
) -> int:
    """Interrupt ``function`` at its first step, then at its second, and so on; return the number of steps.

    ``before`` is called before each, and ``works`` after each. ``works`` runs on another thread, which
    cannot acquire an RLock that the interrupted thread still holds.
    """
    step, got_there = 0, True
    while got_there:
        before()
        got_there = True  # stays True if the interrupt is raised
        with contextlib.suppress(KeyboardInterrupt):
            got_there, _ = interrupted_at(step, function)
        other = threading.Thread(target=works, daemon=True)
        other.start()
        other.join(5 * AT_ONCE)
        assert not other.is_alive(), f"hangs after an interrupt at step {step}"
        step += 1
    return step


def answers(pool: Pool, server: ScriptedServer) -> Callable[[], None]:
    """Return a function that makes a call, and asserts that it is served at once."""

    def call() -> None:
        assert pool.fetch_sync(request_to(server, pool=AT_ONCE)).status == 200

    return call


def test_the_portal_starts_after_an_interrupt_of_its_start(serve, engine_pool):
    """Scenario 26: the next call starts another portal, or uses one that was started nevertheless."""
    server = serve(json_reply())
    pool = engine_pool(max_connections=2)
    works = answers(pool, server)
    steps = interrupt_each_step(lambda: pool.fetch_sync(request_to(server)), works, before=portal.stop)
    assert steps > 10


@pytest.mark.parametrize("operation", ["stats", "connections", "drain"])
def test_a_pool_works_after_an_interrupt_of_its_operations(serve, engine_pool, operation):
    """Scenario 26: the pool's lock is free."""
    server = serve(json_reply())
    pool = engine_pool(max_connections=2)
    works = answers(pool, server)
    works()
    assert interrupt_each_step(getattr(pool, operation), works) > 3


def test_a_pool_can_be_closed_after_an_interrupt_of_its_close(serve, engine_pool):
    """Scenario 26: the second close closes it."""
    server = serve(json_reply())
    made: list[Pool] = []

    def make() -> None:
        made.append(engine_pool())
        answers(made[-1], server)()

    def close() -> None:
        made[-1].close()

    def works() -> None:
        close()
        assert made[-1].closed

    assert interrupt_each_step(close, works, before=make) > 3
    server.wait_until(lambda s: s.connections_open == 0)


def test_a_pool_of_the_settings_is_there_after_an_interrupt_of_its_first_use(serve):
    """Scenario 26: pools are made under a lock that all threads share."""
    server = serve(chat_completion("Hello!"))
    settings = {"default": {"BASE_URL": f"{server.url}/v1", "API_KEY": "k", "MODEL": "m", "PROXY": ""}}

    def works() -> None:
        assert pools["default"].complete("Hi").text == "Hello!"

    with override_settings(LLM_POOL=settings):
        assert interrupt_each_step(lambda: pools["default"], works, before=pools.close_all) > 3
        pools.close_all()


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # a generator has been interrupted
def test_a_completion_works_after_an_interrupt_of_another(serve):
    """Scenario 26: this includes interrupts while the call is counted and recorded."""
    server = serve(chat_completion("Hello!"))
    limits = {"max_connections": 1}
    settings = {
        "default": {
            "BASE_URL": f"{server.url}/v1", "API_KEY": "k", "MODEL": "m", "PROXY": "", "LIMITS": limits,
        }
    }  # fmt: skip

    def call() -> None:
        assert pools["default"].complete("Hi").text == "Hello!"

    with override_settings(LLM_POOL=settings):
        assert interrupt_each_step(call, call) > 30
        pools.close_all()


def test_real_signals_leave_a_lock_free():
    """Scenario 26: the signal of a timer can come at any bytecode."""

    class Rang(Exception):
        pass

    def ring(_number: int, _frame: object) -> None:
        raise Rang

    lock, calls, rings = threading.RLock(), 0, 0
    before = signal.signal(signal.SIGALRM, ring)
    try:
        while rings < 300:
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0002)
                while True:
                    hold(lock, lambda: None)
                    calls += 1
            except Rang:
                rings += 1
            assert not lock._is_owned()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert calls > rings
