"""DNS lookups through aiodns (c-ares), which sends the queries itself instead of calling ``getaddrinfo``."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

import aiodns
import pycares
from aiohappyeyeballs import AddrInfoType

from ..loops.process import after_fork

__all__ = ["look_up"]

NO_SUCH_NAME = {
    aiodns.error.ARES_EBADNAME,
    aiodns.error.ARES_ENODATA,
    aiodns.error.ARES_ENONAME,
    aiodns.error.ARES_ENOTFOUND,
}


def look_up(host: str, port: int) -> list[AddrInfoType]:
    """Return the addresses of ``host`` in the form of ``socket.getaddrinfo``. Blocks the calling thread.

    Raises ``socket.gaierror``, as ``socket.getaddrinfo`` does.
    """
    try:
        # Use a new loop: c-ares reads /etc/hosts on the thread of the loop, which would block connections.
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            found = runner.run(_query(host, port))
    except (aiodns.error.DNSError, pycares.AresError, RuntimeError) as error:
        # Remove the traceback: the DNS cache keeps the error, and would keep the frames too.
        raise _as_gaierror(error) from error.with_traceback(None)
    return [
        (node.family, node.socktype, node.protocol, "", (node.addr[0].decode("ascii"), *node.addr[1:]))
        for node in found.nodes
    ]


async def _query(host: str, port: int) -> pycares.AddrInfoResult:
    # Use a new resolver for each query, with an empty c-ares cache: only ``Resolver`` caches results.
    async with aiodns.DNSResolver() as resolver:
        return await resolver.getaddrinfo(host, port=port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)


def _as_gaierror(error: Exception) -> socket.gaierror:
    if isinstance(error, aiodns.error.DNSError) and error.args[0] in NO_SUCH_NAME:
        return socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return socket.gaierror(socket.EAI_AGAIN, f"Temporary failure in name resolution ({error.args[-1]})")


@after_fork
def _replace_shutdown_manager() -> None:
    # pycares closes resolvers on a thread. A forked child has no such thread, and pycares starts no new one.
    with suppress(AttributeError):  # a later version of pycares can be without this attribute
        pycares._shutdown_manager = pycares._ChannelShutdownManager()
