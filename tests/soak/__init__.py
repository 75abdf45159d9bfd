"""Callers of every kind against servers that misbehave at random: ``python -m tests.soak``."""
