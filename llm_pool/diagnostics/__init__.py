"""Checks of a pool: each step between this process and the provider, what was found, and what to do."""

from __future__ import annotations

from llm_pool.diagnostics.report import CheckReport, Finding, Level, Step, Verdict
from llm_pool.diagnostics.run import run_checks
from llm_pool.diagnostics.sizing import Sizing

__all__ = ["CheckReport", "Finding", "Level", "Sizing", "Step", "Verdict", "run_checks"]
