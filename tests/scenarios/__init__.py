"""Behaviour of the whole engine over real connections, by scenario number."""
