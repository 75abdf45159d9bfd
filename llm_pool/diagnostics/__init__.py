"""Checks every step between this process and the provider, and reports what was found and what to do."""

from __future__ import annotations

from llm_pool.diagnostics.report import CheckReport, Finding, Level, Step, Verdict
from llm_pool.diagnostics.run import run_checks
from llm_pool.diagnostics.sizing import Sizing

__all__ = ["CheckReport", "Finding", "Level", "Sizing", "Step", "Verdict", "run_checks"]
