"""The Django settings of a deployed project. Tests pass the rest in the environment, as JSON."""

from __future__ import annotations

import json
import os

SECRET_KEY = "tests"
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = ["llm_pool"]
MIDDLEWARE = json.loads(os.environ["MIDDLEWARE"])
ROOT_URLCONF = "tests.urls"
USE_TZ = True
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
LLM_POOL = {"default": json.loads(os.environ["LLM_POOL"])}
