"""Settings of the demo. Where the answers come from is told by the environment (see ``launcher``)."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

from demo_project.provider import pool_settings

BASE_DIR = Path(__file__).resolve().parent.parent

DEBUG = True
SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY") or secrets.token_urlsafe(50)
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]"]

INSTALLED_APPS = [
    "django.contrib.staticfiles",
    "demo_project",  # before the next one, whose templates it extends under their own names
    "llm_pool",
]
MIDDLEWARE = [
    "llm_pool.middleware.PoolMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "demo_project.urls"
ASGI_APPLICATION = "demo_project.asgi.application"
WSGI_APPLICATION = "demo_project.wsgi.application"
TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "demo_project.views.upstream",
            ]
        },
    }
]
DATABASES: dict[str, Any] = {}
STATIC_URL = "static/"
USE_TZ = True

# What the demo's own upstream is called on the pages; the launcher sets it, and a provider has none.
DEMO_UPSTREAM = os.environ.get("DEMO_UPSTREAM_NAME", "")
# The round trip that the relay in front of "far" charges, in seconds; 0 where there is no relay.
DEMO_ROUND_TRIP = float(os.environ.get("DEMO_ROUND_TRIP", "0"))
# Where the upstream tells what has reached it; a provider does not.
DEMO_COUNTS_URL = os.environ.get("DEMO_COUNTS_URL", "")

_provider: dict[str, Any] = {
    **pool_settings(os.environ),
    # Few, so that some dozens of users can be seen to fill the pool and to wait.
    "LIMITS": {"max_connections": 20},
    "TIMEOUTS": {"pool": 60.0},
}
LLM_POOL: dict[str, dict[str, Any]] = {
    "default": _provider,
    # The same upstream behind a relay that plays distance; see the agent page.
    "far": {**_provider, "BASE_URL": os.environ.get("DEMO_FAR_URL") or _provider["BASE_URL"]},
}
