"""A connection of the pool's that is another library's client, limited to one connection of its own."""

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
    """What is asked of another library's client. Made, used and closed on one event loop."""

    async def send(self, transfer: Transfer) -> None:
        """Send the request and report the response to the call, to its end. Raises LLMPoolError only."""

    async def aclose(self) -> None:
        """Close its connection."""


class BackendConnection(Connection):
    """``most_streams`` calls at a time, if it turns out to speak HTTP/2, or else one.

    The client dials when it is called first. While it is not known what the server speaks, the other calls
    wait; those that an HTTP/1.1 server cannot take go back to the pool, which has learned of it by then.
    """

    def __init__(self, host_loop: HostLoop, owner: Owner, client: LibraryClient, most_streams: int) -> None:
        super().__init__(host_loop, owner)
        self.capacity = self._most_streams = most_streams
        self.announced = False
        self._client = client
        self._transfers: set[Transfer] = set()
        self._closing = False
        self._knows_protocol = most_streams == 1  # how many calls at a time
        self._turn = asyncio.Lock()
        self._has_turn: Transfer | None = None
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
        """See ``Connection.close``. It has ended when the client has closed."""
        if not self._closing:
            self._closing = True
            self.host_loop.run_before_end(self._close())
            for transfer in list(self._transfers):
                transfer.stop(PoolClosed("the pool was closed during the call"))

    def abort(self) -> None:
        """See ``Connection.abort``: these clients do not wait for the peer when they close."""
        self.close()

    async def _close(self) -> None:
        try:
            if tasks := [transfer.task for transfer in self._transfers]:
                await asyncio.wait(
                    tasks
                )  # a connection that is being dialed is not the client's to close yet
            await self._client.aclose()
        except Exception as error:  # noqa: BLE001  it is closed all the same
            logger.debug("a client failed to close: %r", error)
        finally:
            self.connection_lost(None)

    def __repr__(self) -> str:
        state = "closed" if self.closed else "in use" if self._transfers else "idle"
        return f"<BackendConnection {self._client} {state}>"

    # For the calls

    async def carry(self, transfer: Transfer) -> None:
        """Send a call; while it is not known how many the connection carries, one at a time."""
        if self._knows_protocol:
            await self._send(transfer)
            return
        transfer.awaits_dial()
        await self._turn.acquire()
        self._has_turn = transfer
        try:
            await self._enter(transfer)
        except ConnectFailed as error:
            self._dial_error = error
            raise
        finally:
            self._pass_turn(transfer)

    async def _enter(self, transfer: Transfer) -> None:
        if self._dial_error is not None:
            raise copy_of(self._dial_error)
        if self._knows_protocol:
            self._pass_turn(transfer)
        await self._send(transfer)

    async def _send(self, transfer: Transfer) -> None:
        """The pool may have chosen this connection before it learned what is spoken there."""
        if self._knows_protocol and len(self._transfers) > self.capacity:
            transfer.refuse()
        else:
            await self._client.send(transfer)

    def speaks(self, transfer: Transfer, *, http2: bool) -> None:
        """The client has a connection for ``transfer``, and this is what is spoken there."""
        capacity = self._most_streams if http2 else 1
        if not self._knows_protocol or capacity != self.capacity:
            self._knows_protocol = True
            self.capacity = capacity
            if self.entry is not None:
                self.owner.resized(self.entry, capacity)
        self._pass_turn(transfer)

    def _pass_turn(self, transfer: Transfer) -> None:
        if self._has_turn is transfer:
            self._has_turn = None
            self._turn.release()

    def dialed(self, seconds: float) -> None:
        """The client has made a connection, in so long."""
        if self.entry is not None:
            self.owner.dialed(self.entry, seconds)

    def dial_failed(self, error: ConnectFailed) -> None:
        """The client could make no connection."""
        if self.entry is not None:
            self.owner.dial_failed(self.entry, error)

    def expect(self) -> None:
        """A call is as good as over."""
        if self.entry is not None:
            self.owner.due(self.entry)

    def free(self, *, reusable: bool) -> None:
        """A call is over."""
        if self.entry is not None:
            self.owner.released(self.entry, reusable=reusable, hint=None)

    def forget(self, transfer: Transfer) -> None:
        """The task of a call has ended."""
        self._transfers.discard(transfer)


class _NoCarrier:
    """The carrier of an exchange that has failed before it began."""

    has_room = False

    def watch(self, exchange: Exchange, *, writing: bool) -> None: ...
    def unwatch(self, exchange: Exchange) -> None: ...
    def send_body(self, exchange: Exchange, data: bytes) -> None: ...
    def end_body(self, exchange: Exchange) -> None: ...
    def pause(self, exchange: Exchange) -> None: ...
    def resume(self, exchange: Exchange) -> None: ...
    def cancel(self, exchange: Exchange) -> None: ...
