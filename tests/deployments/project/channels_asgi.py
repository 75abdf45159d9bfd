"""The ASGI application of a project with Channels. With ROUTER_OUTERMOST it is wrapped in the wrong order."""

from __future__ import annotations

import os
from typing import Any

from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.routing import ProtocolTypeRouter

from llm_pool import pool
from llm_pool.asgi import LLMPoolASGI, get_asgi_application
from llm_pool.engine.loops import portal


class Chat(AsyncJsonWebsocketConsumer):
    """Sends whether it runs on the server loop, then each token of the answer."""

    async def receive_json(self, content: Any, **_: Any) -> None:
        await self.send_json({"on_server_loop": portal.is_on_server_loop()})
        async for chunk in pool.astream(content["prompt"]):
            await self.send_json({"text": chunk.text})


router = ProtocolTypeRouter({"http": get_asgi_application(), "websocket": Chat.as_asgi()})
application = router if "ROUTER_OUTERMOST" in os.environ else LLMPoolASGI(router)
