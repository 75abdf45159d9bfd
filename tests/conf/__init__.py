"""``llm_pool.conf``: ``settings.LLM_POOL`` becomes frozen values, or problems with hints."""
