"""Fixtures that choose which event loop hosts a test's connections."""

from __future__ import annotations

from tests.fixtures.loops import each_loop, server_loop

__all__ = ["each_loop", "server_loop"]
