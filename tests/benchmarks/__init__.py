"""The top-level folder ``benchmarks``: its commands run, and their reports are right."""
