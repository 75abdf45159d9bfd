"""``llm_pool.providers``: request bodies, parsed responses and errors, without a connection."""
