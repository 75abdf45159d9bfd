"""Settings of the measured project. The environment variable BENCHMARK_UPSTREAM has its upstream's URL."""

from __future__ import annotations

import os

SECRET_KEY = "benchmarks"
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = ["llm_pool"]
MIDDLEWARE: list[str] = []
ROOT_URLCONF = "benchmarks.project.urls"
DATABASES: dict[str, dict[str, str]] = {}
USE_TZ = True
UPSTREAM = os.environ["BENCHMARK_UPSTREAM"]
LLM_POOL = {
    "default": {
        "BASE_URL": UPSTREAM,
        "API_KEY": "key",
        "MODEL": "test-model",
        "LIMITS": {"max_connections": 1000},  # as many as the openai SDK opens
    }
}
