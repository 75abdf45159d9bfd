"""Django's ASGI application with the lifespan protocol, which Django does not handle.

In ``asgi.py``: ``from llm_pool.asgi import get_asgi_application``. No other line changes.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, cast

from django.apps import apps
from django.core.asgi import get_asgi_application as django_asgi_application

import llm_pool.calling.pool  # noqa: F401  a later import would block the event loop
from llm_pool.apps import LLMPoolConfig
from llm_pool.engine.loops import portal

__all__ = ["LLMPoolASGI", "get_asgi_application"]

logger = logging.getLogger("llm_pool.asgi")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


def get_asgi_application() -> LLMPoolASGI:
    """Return Django's ASGI application, wrapped in an ``LLMPoolASGI``.

    Use this function in ``asgi.py`` instead of Django's function of the same name.
    """
    return LLMPoolASGI(cast(Application, django_asgi_application()))


class LLMPoolASGI:
    """Wraps Django's ASGI application. Handles the lifespan events, and adopts the server's event loop.

    The adopted loop hosts connections. If the server sends no lifespan events (Daphne), the loop is adopted
    at the first request.
    """

    def __init__(self, application: Application) -> None:
        self.application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        portal.adopt_server_loop()
        await self.application(scope, receive, send)


async def _lifespan(receive: Receive, send: Send) -> None:
    """Handle the server's startup and shutdown events. An error is logged, and sent to the server.

    See https://asgi.readthedocs.io/en/latest/specs/lifespan.html
    """
    config = cast(LLMPoolConfig, apps.get_app_config("llm_pool"))
    await receive()
    try:
        await config.startup()
    except Exception as error:
        logger.exception("llm_pool could not start")
        await send({"type": "lifespan.startup.failed", "message": str(error)})
        return
    await send({"type": "lifespan.startup.complete"})
    await receive()
    try:
        await config.shutdown()
    except Exception as error:
        logger.exception("llm_pool could not shut down")
        await send({"type": "lifespan.shutdown.failed", "message": str(error)})
        return
    await send({"type": "lifespan.shutdown.complete"})
