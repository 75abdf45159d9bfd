"""A checkup: what stands between this process and its provider, step by step, and what to do about it."""

from __future__ import annotations

from llm_pool.checkup.report import CheckReport, Finding, Level, Step, Verdict
from llm_pool.checkup.run import checkup
from llm_pool.checkup.sizing import Sizing

__all__ = ["CheckReport", "Finding", "Level", "Sizing", "Step", "Verdict", "checkup"]
