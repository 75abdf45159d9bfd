"""Measure what a call costs: ``python -m benchmarks``, or one tool by ``python -m benchmarks.NAME``."""
