"""The homes of connections, for tests that must hold on each; and pools as views see them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm_pool.engine.homes import portal
from tests.fixtures.service import pool_to

__all__ = ["each_home", "pool_to", "server_loop"]

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def server_loop() -> AsyncIterator[None]:
    """The test's loop is the server loop: its calls are served on it."""
    portal.adopt_server_loop()
    yield
    portal.release_server_loop()


@pytest.fixture(params=["server loop", "portal"])
async def each_home(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The test runs twice: with its loop as the server loop, and with its calls served on the portal."""
    if request.param == "server loop":
        portal.adopt_server_loop()
    yield request.param
    portal.release_server_loop()
