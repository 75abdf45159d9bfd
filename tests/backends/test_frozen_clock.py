"""Calls while a test freezes the time, on every engine."""

from __future__ import annotations

import asyncio
import threading

import freezegun
import pytest
import time_machine

from llm_pool.exceptions import PoolTimeout, ReadTimeout, TotalTimeout
from tests.backends.servers import by_path, gated
from tests.fixtures.scripts import run_script

LATEST_END = 15.0  # seconds, far longer than the timeouts of these tests

FREEZERS = {
    "freezegun": lambda: freezegun.freeze_time("2024-01-01"),
    "freezegun, ticking": lambda: freezegun.freeze_time("2024-01-01", tick=True),
    "freezegun, real asyncio": lambda: freezegun.freeze_time("2024-01-01", real_asyncio=True),
    "time-machine": lambda: time_machine.travel("2024-01-01", tick=False),
}


@pytest.fixture(params=FREEZERS)
def freeze(request):
    return FREEZERS[request.param]


def within_limit(function):
    """Return the result of ``function()``, or its error. Fails if it takes longer than ``LATEST_END``."""
    results = []

    def run() -> None:
        try:
            results.append(function())
        except Exception as error:  # noqa: BLE001 - the test looks at it
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(LATEST_END)
    assert results, "it hangs"
    return results[0]


def test_calls_are_answered(server, configure, freeze):
    """Scenario 56: sync and async, on a new connection and on an idle one."""
    pool = configure(server)
    with freeze():
        for _ in range(2):
            assert within_limit(lambda: pool.request("GET", "/x")).status_code == 200
            assert within_limit(lambda: asyncio.run(pool.arequest("GET", "/x"))).status_code == 200
    assert server.connections_accepted == 1


@pytest.mark.parametrize(
    ("timeouts", "error"),
    [
        ({"read": 0.2}, ReadTimeout),
        ({"read": None, "total": 0.2}, TotalTimeout),
        ({"pool": 0.2}, PoolTimeout),
    ],
)
def test_a_timeout_ends_a_call(serve, play, configure, freeze, timeouts, error):
    """Scenario 56: the timeout of a silent server, of the whole call, and of a full pool."""
    server = serve(play(by_path(slow=gated())))
    pool = configure(server, LIMITS={"max_connections": 1}, TIMEOUTS=timeouts)
    holder = None
    if "pool" in timeouts:
        holder = threading.Thread(target=pool.request, args=("GET", "/slow"))
        holder.start()
        server.wait_requests()
    try:
        with freeze():
            assert isinstance(within_limit(lambda: pool.request("GET", "/slow")), error)
    finally:
        server.gate("go").open()
    if holder is not None:
        holder.join()


IMPORT = """
import sys, time, freezegun
with freezegun.freeze_time("2024-01-01"):
    from llm_pool.engine.clock import monotonic
    began = monotonic()
    while monotonic() == began:
        pass
    print(began < time.monotonic() - 1e8)  # the frozen clock has the seconds since 1970
"""


@pytest.mark.kinds(["native-http1"])
@pytest.mark.usefixtures("kind")
def test_the_clock_runs_if_the_package_is_imported_while_time_is_frozen():
    """Scenario 56: as in a test that imports what it tests."""
    assert run_script(IMPORT) == "True\n"
