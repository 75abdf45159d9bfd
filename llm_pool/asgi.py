"""Django's ASGI application with the lifespan protocol, which Django does not handle.

In ``asgi.py``: ``from llm_pool.asgi import get_asgi_application``. No other line changes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, cast

from django.core.asgi import get_asgi_application as django_asgi_application

import llm_pool.calling.pool  # noqa: F401  a later import would block the event loop
from llm_pool.engine.loops import portal
from llm_pool.engine.loops.host_loop import HostLoop, running_loop
from llm_pool.providers import PROVIDERS
from llm_pool.registry import pools

__all__ = ["LLMPoolASGI", "get_asgi_application", "shutdown", "startup"]

logger = logging.getLogger("llm_pool.asgi")

DRAIN_SECONDS = 10.0

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

list(PROVIDERS.values())  # imports them, for the same reason


def get_asgi_application() -> LLMPoolASGI:
    """Return Django's ASGI application, wrapped in an ``LLMPoolASGI``.

    Use this function in ``asgi.py`` instead of Django's function of the same name.
    """
    return LLMPoolASGI(cast(Application, django_asgi_application()))


class LLMPoolASGI:
    """Wraps an ASGI application. Handles the lifespan events, and adopts the server's event loop.

    The adopted loop hosts connections. If the server sends no lifespan events (Daphne), the loop is adopted
    at the first request. The outermost application gets the lifespan events, so this class must be outermost:
    ``application = LLMPoolASGI(ProtocolTypeRouter({...}))`` with Channels.

    Adapters for serverless platforms (Mangum) send a lifespan for each invocation, or run an event loop for
    each. Then the portal hosts all connections, and they outlive the invocations: see ``_Server``.
    """

    def __init__(self, application: Application) -> None:
        self.application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        _server.adopt_loop(scope)
        await self.application(scope, receive, send)


class _Server:
    """What is known of the server that runs this process.

    ``is_lasting``    whether its event loop and its lifespan seem to last as long as the process: False once
                      an adopted loop was closed, or a lifespan has begun after another has ended
    ``has_lifespan``  whether a lifespan has begun
    ``has_ended``     whether a lifespan has ended
    ``host_loop``     the loop that the latest request has adopted; None before the first request
    """

    def __init__(self) -> None:
        self.is_lasting = True
        self.has_lifespan = False
        self.has_ended = False
        self.host_loop: HostLoop | None = None

    def adopt_loop(self, scope: Scope) -> None:
        """Adopt the running loop, on which a request with ``scope`` has come, if the server is lasting."""
        earlier = self.host_loop
        if earlier is not None and earlier.loop.is_closed():
            self.is_lasting = False
        if self.is_lasting:
            self.host_loop = portal.adopt_server_loop()
        else:
            running_loop()  # raises a clear error under trio
        # Servers that can send a lifespan add "state" to each scope.
        if earlier is None and not self.has_lifespan and "state" in scope:
            logger.warning(
                "No lifespan event has reached llm_pool: it opens no connections at the start, and drains "
                "none at the end. Make LLMPoolASGI the outermost application, as in "
                "application = LLMPoolASGI(ProtocolTypeRouter({...})), and leave the server's lifespan on."
            )


_server = _Server()


async def startup(*, adopt_loop: bool = True) -> None:
    """Make the running event loop the server loop, which hosts connections. Make and prewarm all pools.

    Call ``startup`` on the event loop of the ASGI server. If that loop does not last as long as the process,
    pass ``adopt_loop=False``: the portal then hosts the connections. Returns before the connections are open.
    Raises ``ImproperlyConfigured`` for invalid settings.
    """
    configured = pools.all()
    if adopt_loop:
        portal.adopt_server_loop()
    for pool in configured:
        await pool.aprewarm()


async def shutdown(timeout: float = DRAIN_SECONDS) -> None:
    """Wait at most ``timeout`` seconds until the calls in progress have ended, then close all pools.

    If calls take longer, log a warning; these calls fail with PoolClosed. Call ``shutdown`` on the event loop
    of the ASGI server, before that loop ends.
    """
    made = pools.made()
    drained = await asyncio.gather(*(pool.adrain(timeout) for pool in made))
    for pool, in_time in zip(made, drained, strict=True):
        if not in_time:
            logger.warning("pool %r: calls were still running after %s s", pool.alias, timeout)
    await pools.aclose_all()
    portal.release_server_loop()


async def _lifespan(receive: Receive, send: Send) -> None:
    """Handle the server's startup and shutdown events. An error is logged, and sent to the server.

    See https://asgi.readthedocs.io/en/latest/specs/lifespan.html
    """
    await receive()
    _server.has_lifespan = True
    if _server.has_ended:
        _server.is_lasting = False
    try:
        await startup(adopt_loop=_server.is_lasting)
    except Exception as error:
        logger.exception("llm_pool could not start")
        await send({"type": "lifespan.startup.failed", "message": str(error)})
        return
    await send({"type": "lifespan.startup.complete"})
    await receive()
    _server.has_ended = True
    try:
        if _server.is_lasting:
            await shutdown()
    except Exception as error:
        logger.exception("llm_pool could not shut down")
        await send({"type": "lifespan.shutdown.failed", "message": str(error)})
        return
    await send({"type": "lifespan.shutdown.complete"})
