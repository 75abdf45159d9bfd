"""``llm_pool.engine``, module by module; behaviour over real connections is in ``tests/scenarios``."""
