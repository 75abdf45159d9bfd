"""The homes of connections, for tests that must hold on each; and pools as views see them."""

from __future__ import annotations

from tests.fixtures.loops import each_loop, server_loop
from tests.fixtures.service import pool_to

__all__ = ["each_loop", "pool_to", "server_loop"]
