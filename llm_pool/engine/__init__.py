"""The engine: pooled HTTP connections, without Django and without httpx. ``pool.Pool`` is the way in.

Nothing is imported here: who reads the settings alone does not pay for the engine's start.
"""
