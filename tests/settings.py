"""The Django settings of the tests. Nothing listens on port 9 (discard): no test reaches a provider."""

from __future__ import annotations

SECRET_KEY = "tests"
INSTALLED_APPS = ["django.contrib.contenttypes", "llm_pool"]
DATABASES: dict[str, dict[str, str]] = {}
ROOT_URLCONF = "tests.urls"
USE_TZ = True
LLM_POOL = {
    "default": {
        "BASE_URL": "http://127.0.0.1:9/v1",
        "API_KEY": "test-key",
        "MODEL": "test-model",
    },
}
