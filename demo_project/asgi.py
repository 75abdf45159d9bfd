"""The ASGI application. A project changes only the import of ``get_asgi_application``."""

from __future__ import annotations

import os

from llm_pool.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "demo_project.settings")

application = get_asgi_application()
