"""A checkup: what stands between this process and its provider, step by step, and what to do about it."""

from __future__ import annotations

from llm_pool.diagnostics.report import CheckReport, Finding, Level, Step, Verdict
from llm_pool.diagnostics.run import run_checks
from llm_pool.diagnostics.sizing import Sizing

__all__ = ["CheckReport", "Finding", "Level", "Sizing", "Step", "Verdict", "run_checks"]
