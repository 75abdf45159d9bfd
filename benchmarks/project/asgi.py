"""The ASGI application for uvicorn."""

from __future__ import annotations

import os

from llm_pool.asgi import get_asgi_application

os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.project.settings"
application = get_asgi_application()
