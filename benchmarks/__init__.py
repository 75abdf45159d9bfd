"""What a call costs. Run one with ``python -m benchmarks.NAME``."""
