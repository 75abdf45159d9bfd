"""``llm_pool.calling``: calls to a model through ``LLMPool``, sync and async, whole and streamed."""
