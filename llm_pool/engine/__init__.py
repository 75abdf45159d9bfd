"""The engine: pooled HTTP connections, without Django and without httpx. Its entry point is ``pool.Pool``.

Nothing is imported here: reading the settings alone must not load the whole engine.
"""
