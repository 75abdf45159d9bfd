"""Calls of every kind to servers that fail at random: ``python -m tests.soak``."""
