"""The homes of connections, for tests that must hold on each; and pools as views see them."""

from __future__ import annotations

from tests.fixtures.homes import each_home, server_loop
from tests.fixtures.service import pool_to

__all__ = ["each_home", "pool_to", "server_loop"]
