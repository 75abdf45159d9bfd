"""Settings of the demo. ``LLM_POOL`` at the end is what a project adds to its own settings.

Environment variables choose the provider. Without a provider's variables ``python -m demo_project`` starts a
model server on this machine, and sets the variables to its address (see ``upstream/launcher.py``).
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

BASE_DIR = Path(__file__).resolve().parent.parent

DEBUG = True
SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY") or secrets.token_urlsafe(50)
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]"]

INSTALLED_APPS = [
    "django.contrib.staticfiles",
    "demo_project",  # before llm_pool: its templates/llm_pool/status.html extends the one of the same name
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

# The name of the demo's own model server, for the pages; empty if a provider answers.
DEMO_UPSTREAM = os.environ.get("DEMO_UPSTREAM_NAME", "")
# The round trip in seconds that the relay adds in front of the pool "far"; 0 without a relay.
DEMO_ROUND_TRIP = float(os.environ.get("DEMO_ROUND_TRIP", "0"))
# The URL of the counts that the demo's own model server keeps; empty if a provider answers.
DEMO_COUNTS_URL = os.environ.get("DEMO_COUNTS_URL", "")


def provider_settings(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return a pool's ``PROVIDER``, ``BASE_URL``, ``API_KEY`` and ``MODEL``.

    OpenAI's variables come before Anthropic's; the launcher sets OpenAI's for the demo's own model server.
    """
    openai = environ.get("OPENAI_API_KEY") or environ.get("OPENAI_BASE_URL")
    if environ.get("ANTHROPIC_API_KEY") and not openai:
        return {
            "PROVIDER": "anthropic",
            "BASE_URL": environ.get("ANTHROPIC_BASE_URL") or "https://api.anthropic.com",
            "API_KEY": environ["ANTHROPIC_API_KEY"],
            "MODEL": environ.get("ANTHROPIC_MODEL") or "claude-haiku-4-5",
        }
    return {
        "PROVIDER": "openai",
        "BASE_URL": environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1",
        "API_KEY": environ.get("OPENAI_API_KEY") or "none needed",
        "MODEL": environ.get("OPENAI_MODEL") or "gpt-4o-mini",
    }


_pool: dict[str, Any] = {
    **provider_settings(os.environ),
    "LIMITS": {"max_connections": 20},  # few, so that some dozens of users fill the pool and wait
    "TIMEOUTS": {"pool": 60.0, "read": 300.0},  # seconds; a model that reasons can be silent for minutes
}
LLM_POOL: dict[str, dict[str, Any]] = {
    "default": _pool,
    # The same model behind a relay that simulates distance: the agent page compares both.
    "far": {**_pool, "BASE_URL": os.environ.get("DEMO_FAR_URL") or _pool["BASE_URL"]},
}
