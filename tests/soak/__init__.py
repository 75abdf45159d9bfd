"""Callers of every kind against servers that misbehave at random (``make soak``)."""
