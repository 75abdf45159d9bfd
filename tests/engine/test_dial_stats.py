"""Counts of failed dials, and the message of the last one."""

from __future__ import annotations

import threading
import weakref

from llm_pool.engine.config import Origin
from llm_pool.engine.stats.stats import Tally
from llm_pool.exceptions import ConnectFailed

HERE, THERE = Origin("http", "here.test", 80), Origin("http", "there.test", 80)


def failed(tally: Tally, origin: Origin) -> weakref.ref[ConnectFailed]:
    error = ConnectFailed("refused")
    tally.dial_failed(origin, error)
    return weakref.ref(error)


def test_the_message_of_a_failed_dial_is_kept_and_not_the_error() -> None:
    """The error's traceback would keep the objects of the dial: transport, TLS buffers, connection."""
    tally = Tally(threading.Lock())
    assert failed(tally, HERE)() is None
    assert (tally.dial_failure, tally.dial_failures) == ("refused", {"ConnectFailed": 1})


def test_a_failure_is_reported_until_a_dial_to_the_same_origin_succeeds() -> None:
    tally = Tally(threading.Lock())
    failed(tally, HERE)
    tally.dialed(THERE, 0.1)
    assert tally.dial_failure == "refused"
    tally.dialed(HERE, 0.1)
    assert tally.dial_failure is None
    assert tally.dial_failures == {"ConnectFailed": 1}
