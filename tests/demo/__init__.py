"""The top-level folder ``demo_project``."""
