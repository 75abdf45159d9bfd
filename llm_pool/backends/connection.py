"""A connection of the pool that sends through another library's client with at most one connection."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from llm_pool.backends.transfer import Transfer
from llm_pool.engine.connection import Connection, Owner
from llm_pool.engine.exchange import Exchange
from llm_pool.engine.loops.host_loop import HostLoop
from llm_pool.engine.request import Request
from llm_pool.exceptions import ConnectFailed, PoolClosed, ReadFailed, copy_of

__all__ = ["BackendConnection", "LibraryClient"]

logger = logging.getLogger("llm_pool.engine")


class LibraryClient(Protocol):
    """The methods of another library's client that the pool uses. All run on the client's host loop."""

    async def send(self, transfer: Transfer) -> None:
        """Send the request of ``transfer``, and report the whole response to ``transfer``.

        If the call fails, raises an LLMPoolError in place of the library's error.
        """

    async def aclose(self) -> None:
        """Close the client and its connection."""


class BackendConnection(Connection):
    """A connection that sends through another library's client.

    Carries up to ``max_streams`` calls at a time over HTTP/2, or one at a time over HTTP/1.1. ``max_streams``
    is 1 if HTTP/2 is not possible. The client connects when the first call is sent. Other calls wait until
    the protocol is known. If it is HTTP/1.1, all calls but one return to the pool's queue.
    """

    def __init__(self, host_loop: HostLoop, owner: Owner, client: LibraryClient, max_streams: int) -> None:
        super().__init__(host_loop, owner)
        self.capacity = self._max_streams = max_streams
        self.announced = False
        self._client = client
        self._transfers: set[Transfer] = set()
        self._closing = False
        self._is_protocol_known = max_streams == 1
        self._dial_lock = asyncio.Lock()
        self._dial_lock_holder: Transfer | None = None
        self._dial_error: ConnectFailed | None = None

    # For the pool

    def start(self, request: Request) -> Exchange:
        """See ``Connection.start``."""
        if self._closing:
            exchange = Exchange(self.host_loop, _NoCarrier(), request)
            exchange.unsent = True
            exchange.on_error(ReadFailed(f"the connection to {request.origin} was closed"))
            return exchange
        transfer = Transfer(self, request)
        self._transfers.add(transfer)
        return transfer.exchange

    def close(self) -> None:
        """See ``Connection.close``. ``closed`` becomes True later, when the library's client has closed."""
        if not self._closing:
            self._closing = True
            self.host_loop.run_before_end(self._close())
            for transfer in list(self._transfers):
                transfer.abort(PoolClosed("the pool was closed during the call"))

    def abort(self) -> None:
        """See ``Connection.abort``. The same as ``close``: a library's client never waits for the server."""
        self.close()

    async def _close(self) -> None:
        try:
            # Wait for the tasks first: the client cannot close a connection that a task is still dialing.
            if tasks := [transfer.task for transfer in self._transfers]:
                await asyncio.wait(tasks)
            await self._client.aclose()
        except Exception as error:  # noqa: BLE001  the connection is lost in any case
            logger.debug("a client failed to close: %r", error)
        finally:
            self.connection_lost(None)

    def __repr__(self) -> str:
        state = "closed" if self.closed else "in use" if self._transfers else "idle"
        return f"<BackendConnection {self._client} {state}>"

    # For the transfers

    async def send(self, transfer: Transfer) -> None:
        """Send the request of ``transfer`` through the library's client.

        Until the protocol is known, one call at a time is sent, and the others wait. With HTTP/1.1 all
        but one of them return to the pool's queue. Raises an LLMPoolError if the call fails.
        """
        if self._is_protocol_known:
            await self._send_or_refuse(transfer)
            return
        transfer.start_dial_timeout()
        await self._dial_lock.acquire()
        self._dial_lock_holder = transfer
        try:
            await self._send_with_lock(transfer)
        except ConnectFailed as error:
            self._dial_error = error
            raise
        finally:
            self._release_dial_lock(transfer)

    async def _send_with_lock(self, transfer: Transfer) -> None:
        if self._dial_error is not None:
            raise copy_of(self._dial_error)
        if self._is_protocol_known:
            self._release_dial_lock(transfer)
        await self._send_or_refuse(transfer)

    async def _send_or_refuse(self, transfer: Transfer) -> None:
        # The ledger may have assigned several calls to this connection before the protocol was known.
        if self._is_protocol_known and len(self._transfers) > self.capacity:
            transfer.refuse_for_http1()
        else:
            await self._client.send(transfer)

    def set_protocol(self, transfer: Transfer, *, http2: bool) -> None:
        """Set ``capacity`` to ``max_streams`` if the client uses HTTP/2 (``http2``), otherwise to 1.

        Called when the client begins to send ``transfer``. Calls that wait for the protocol then continue.
        """
        capacity = self._max_streams if http2 else 1
        if not self._is_protocol_known or capacity != self.capacity:
            self._is_protocol_known = True
            self.capacity = capacity
            if self.entry is not None:
                self.owner.resized(self.entry, capacity)
        self._release_dial_lock(transfer)

    def _release_dial_lock(self, transfer: Transfer) -> None:
        if self._dial_lock_holder is transfer:
            self._dial_lock_holder = None
            self._dial_lock.release()

    def dialed(self, seconds: float) -> None:
        """Report to the owner that the library's client has connected, which took ``seconds``."""
        if self.entry is not None:
            self.owner.dialed(self.entry, seconds)

    def dial_failed(self, error: ConnectFailed) -> None:
        """Report to the owner that the library's client could not connect."""
        if self.entry is not None:
            self.owner.dial_failed(self.entry, error)

    def due(self) -> None:
        """Report to the owner that only the last bytes of a call's response are missing."""
        if self.entry is not None:
            self.owner.due(self.entry)

    def release(self, *, reusable: bool) -> None:
        """Report to the owner that a call has ended.

        ``reusable``: whether the connection can carry another call.
        """
        if self.entry is not None:
            self.owner.released(self.entry, reusable=reusable, hint=None)

    def remove(self, transfer: Transfer) -> None:
        """Remove a transfer whose task has ended."""
        self._transfers.discard(transfer)


class _NoCarrier:
    """The ``Carrier`` of an exchange that failed before its request was sent. All methods do nothing."""

    has_room = False

    def watch(self, exchange: Exchange) -> None: ...
    def send_body(self, exchange: Exchange, data: bytes) -> None: ...
    def end_body(self, exchange: Exchange) -> None: ...
    def pause(self, exchange: Exchange) -> None: ...
    def resume(self, exchange: Exchange) -> None: ...
    def cancel(self, exchange: Exchange) -> None: ...
