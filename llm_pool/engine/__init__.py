"""The engine: pooled HTTP connections, without Django and without httpx. Its entry point is ``pool.Pool``.

Nothing is imported here, so that reading the settings does not load the whole engine.
"""
