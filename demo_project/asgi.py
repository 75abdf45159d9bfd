"""The ASGI application. The import is all that a project changes."""

from __future__ import annotations

import os

from llm_pool.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "demo_project.settings")

application = get_asgi_application()
