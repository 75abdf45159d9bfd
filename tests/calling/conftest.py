"""Fixtures of the tests of calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm_pool.calling.record import CallRecord, observe, unobserve

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def records() -> Iterator[list[CallRecord]]:
    """A list to which each call's record is added when the call ends."""
    ended: list[CallRecord] = []
    observe(ended.append)
    yield ended
    unobserve(ended.append)
