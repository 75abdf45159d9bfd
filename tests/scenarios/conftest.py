"""Fixtures that choose the event loop which serves a test's calls."""

from __future__ import annotations

from tests.fixtures.loops import each_loop, server_loop

__all__ = ["each_loop", "server_loop"]
