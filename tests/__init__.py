"""Tests in the shape of the package: ``llm_pool/x/y.py`` is tested in ``tests/x/test_y.py``."""
