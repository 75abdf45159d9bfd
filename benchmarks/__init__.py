"""Measure what a call costs: ``python -m benchmarks``, or one tool by ``python -m benchmarks.NAME``."""

from __future__ import annotations

import os
import sys

if checkout := os.environ.get("BENCHMARK_CHECKOUT"):
    sys.path.insert(0, checkout)  # its llm_pool is measured: see ``workloads.with_before``
