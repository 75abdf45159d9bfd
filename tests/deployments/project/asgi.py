"""The ASGI application, as a user writes it."""

from __future__ import annotations

from llm_pool.asgi import get_asgi_application

application = get_asgi_application()
