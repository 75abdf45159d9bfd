"""The top-level folder ``benchmarks``: that its commands run and that their reports are right."""
