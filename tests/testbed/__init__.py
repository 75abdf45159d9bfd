"""Tests of the top-level folder ``testbed``."""
