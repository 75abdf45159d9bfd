"""Look-ups through aiodns, which asks the name servers by itself."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

import aiodns
import pycares
from aiohappyeyeballs import AddrInfoType

from ..loops.portal import after_fork

__all__ = ["look_up"]

NO_SUCH_NAME = {
    aiodns.error.ARES_EBADNAME,
    aiodns.error.ARES_ENODATA,
    aiodns.error.ARES_ENONAME,
    aiodns.error.ARES_ENOTFOUND,
}


def look_up(host: str, port: int) -> list[AddrInfoType]:
    """The addresses of ``host``. Blocks, and raises ``socket.gaierror``, as the system's resolver does."""
    try:
        # A loop of its own, and none that connections live on: c-ares reads /etc/hosts as it asks.
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            found = runner.run(_ask(host, port))
    except (aiodns.error.DNSError, pycares.AresError, RuntimeError) as error:
        raise _as_systems(error) from error.with_traceback(None)  # the cache would keep its frames
    return [
        (node.family, node.socktype, node.protocol, "", (node.addr[0].decode("ascii"), *node.addr[1:]))
        for node in found.nodes
    ]


async def _ask(host: str, port: int) -> pycares.AddrInfoResult:
    # A resolver for each question: c-ares keeps answers as long as DNS says, whatever our cache has dropped.
    async with aiodns.DNSResolver() as resolver:
        return await resolver.getaddrinfo(host, port=port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)


def _as_systems(error: Exception) -> socket.gaierror:
    if isinstance(error, aiodns.error.DNSError) and error.args[0] in NO_SUCH_NAME:
        return socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return socket.gaierror(socket.EAI_AGAIN, f"Temporary failure in name resolution ({error.args[-1]})")


@after_fork
def _forget_parents_thread() -> None:
    # pycares closes resolvers on a thread, and does not notice that a fork's child has none.
    with suppress(AttributeError):  # of a later pycares
        pycares._shutdown_manager = pycares._ChannelShutdownManager()
