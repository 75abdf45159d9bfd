"""``llm_pool.status``: the status page, its history, its access rules, and the health checks."""
