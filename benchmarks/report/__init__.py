"""A run told: in the terminal, as JSON, as plots and as ``docs/benchmarks.md``."""
