"""Behaviour of the whole engine over real connections, by the numbers of ``docs/scenarios.md``."""
