"""The cost of a call from a thread without an event loop: how often it wakes the portal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tests.fixtures.internals import count_selects

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from llm_pool.calling.pool import LLMPool
    from testbed import ScriptedServer

CALLS = 20
STEPS = 3 if sys.version_info >= (3, 12) else 4
"""Steps of the loop: the call is posted, its task begins (on 3.11 one step later), the answer, its task."""


def test_a_call_wakes_the_portal_no_more_often_than_it_must(
    chat_server: ScriptedServer, configure: Callable[..., LLMPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = configure(chat_server)
    pool.complete("hello")
    selects = count_selects(monkeypatch)
    for _ in range(CALLS):
        pool.complete("hello")
    assert len(selects) <= CALLS * STEPS + 5  # timers wake it too
