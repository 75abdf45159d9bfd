"""The demo's settings, with comments that are sent after a shorter silence."""

from __future__ import annotations

from demo_project.settings import *  # noqa: F403
from llm_pool.http import reading

reading.HEARTBEAT_SECONDS = 0.3
