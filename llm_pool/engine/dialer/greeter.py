"""What speaks first on a new transport, until it is known what will be spoken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..connection import Connection

__all__ = ["Greeter"]


class Greeter(asyncio.Protocol):
    """Hands the transport over to the connection that speaks what TLS agreed on (ALPN, RFC 7301).

    It does so the moment the handshake is over: an HTTP/2 server may send its settings right behind it.
    """

    def __init__(self, choose: Callable[[str | None], Connection]) -> None:
        self._choose = choose
        self.connection: Connection | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        tls = transport.get_extra_info("ssl_object")
        self.connection = self._choose(tls.selected_alpn_protocol() if tls is not None else None)
        transport.set_protocol(self.connection)
        self.connection.connection_made(transport)
