"""``llm_pool.diagnostics`` and its command ``llmpool_check``; ``snapshots`` holds expected outputs."""
