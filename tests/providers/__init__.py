"""``llm_pool.providers``: request bodies, parsed answers and errors, without a connection."""
