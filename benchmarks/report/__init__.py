"""The report of a run: in the terminal, as JSON, as plots and as ``docs/benchmarks.md``."""
