"""``llm_pool.backends``: each test runs on every engine (native, aiohttp, httpcore)."""
