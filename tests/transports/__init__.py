"""``llm_pool.transports``: httpx clients on a pool."""
