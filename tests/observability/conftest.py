"""Fixtures of the tests of stats, records, metrics and the middleware."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm_pool.calling.record import CallRecord, observe, unobserve
from tests.service.conftest import configure, secret, serve_first, upstream

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["configure", "records", "secret", "serve_first", "upstream"]


@pytest.fixture
def records() -> Iterator[list[CallRecord]]:
    """Every call that has ended since the test began."""
    ended: list[CallRecord] = []
    observe(ended.append)
    yield ended
    unobserve(ended.append)
