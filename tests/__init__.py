"""The tests of ``llm_pool/x/`` are in ``tests/x/``."""
