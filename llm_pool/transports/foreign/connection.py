"""A connection of the pool's that is another library's client, limited to one connection of its own."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from llm_pool.engine.connection import Connection, Owner
from llm_pool.engine.errors import ConnectFailed, LLMPoolError, PoolClosed, ReadFailed
from llm_pool.engine.exchange import Exchange
from llm_pool.engine.homes.home import Home
from llm_pool.engine.request import Marks, Request

from .call import Call

__all__ = ["Client", "ForeignConnection"]

logger = logging.getLogger("llm_pool.engine")


class Client(Protocol):
    """What is asked of another library's client. Made, used and closed on one event loop."""

    async def send(self, call: Call) -> None:
        """Send the request and report the response to the call, to its end. Raises LLMPoolError only."""

    async def aclose(self) -> None:
        """Close its connection."""


class ForeignConnection(Connection):
    """``most_streams`` calls at a time, if it turns out to speak HTTP/2, or else one.

    The client dials when it is called first. While it is not known what the server speaks, the other calls
    wait; those that an HTTP/1.1 server cannot take go back to the pool, which has learned of it by then.
    """

    def __init__(self, home: Home, owner: Owner, client: Client, most_streams: int) -> None:
        super().__init__(home, owner)
        self.capacity = self._most_streams = most_streams
        self.announced = False
        self._client = client
        self._calls: set[Call] = set()
        self._closing = False
        self._known = most_streams == 1  # how many calls at a time
        self._turn = asyncio.Lock()
        self._has_turn: Call | None = None
        self._failure: ConnectFailed | None = None

    # For the pool

    def start(self, request: Request, marks: Marks) -> Exchange:
        """See ``Connection.start``."""
        if self._closing:
            exchange = _never_begun(self.home, request, marks)
            exchange.unsent = True
            exchange.on_error(ReadFailed(f"the connection to {request.origin} was closed"))
            return exchange
        call = Call(self, request, marks)
        self._calls.add(call)
        return call.exchange

    def close(self) -> None:
        """See ``Connection.close``. It has ended when the client has closed."""
        if not self._closing:
            self._closing = True
            self.home.begin_goodbye(self._close())
            for call in list(self._calls):
                call.stop(PoolClosed("the pool was closed during the call"))

    def abort(self) -> None:
        """See ``Connection.abort``: these clients do not wait for the peer when they close."""
        self.close()

    async def _close(self) -> None:
        try:
            if tasks := [call.task for call in self._calls]:
                await asyncio.wait(
                    tasks
                )  # one of them may be dialing, and the client knows nothing of it yet
            await self._client.aclose()
        except Exception as error:  # noqa: BLE001  it is closed all the same
            logger.debug("a client failed to close: %r", error)
        finally:
            self.connection_lost(None)

    def __repr__(self) -> str:
        state = "closed" if self.closed else "in use" if self._calls else "idle"
        return f"<ForeignConnection {self._client} {state}>"

    # For the calls

    async def carry(self, call: Call) -> None:
        """Send a call; while it is not known how many the connection carries, one at a time."""
        if self._known:
            await self._send(call)
            return
        call.awaits_dial()
        await self._turn.acquire()
        self._has_turn = call
        try:
            await self._enter(call)
        except ConnectFailed as error:
            self._failure = error
            raise
        finally:
            self._pass_turn(call)

    async def _enter(self, call: Call) -> None:
        if self._failure is not None:
            raise _copy(self._failure)
        if self._known:
            self._pass_turn(call)
        await self._send(call)

    async def _send(self, call: Call) -> None:
        """The pool may have chosen this connection before it learned what is spoken there."""
        if self._known and len(self._calls) > self.capacity:
            call.refuse()
        else:
            await self._client.send(call)

    def speaks(self, call: Call, *, http2: bool) -> None:
        """The client has a connection for ``call``, and this is what is spoken there."""
        capacity = self._most_streams if http2 else 1
        if not self._known or capacity != self.capacity:
            self._known = True
            self.capacity = capacity
            if self.entry is not None:
                self.owner.resized(self.entry, capacity)
        self._pass_turn(call)

    def _pass_turn(self, call: Call) -> None:
        if self._has_turn is call:
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

    def forget(self, call: Call) -> None:
        """The task of a call has ended."""
        self._calls.discard(call)


class _Nothing:
    """The carrier of an exchange that never began."""

    has_room = False

    def watch(self, exchange: Exchange, *, writing: bool) -> None: ...
    def unwatch(self, exchange: Exchange) -> None: ...
    def send_body(self, exchange: Exchange, data: bytes) -> None: ...
    def end_body(self, exchange: Exchange) -> None: ...
    def pause(self, exchange: Exchange) -> None: ...
    def resume(self, exchange: Exchange) -> None: ...
    def abandon(self, exchange: Exchange) -> None: ...


def _never_begun(home: Home, request: Request, marks: Marks) -> Exchange:
    return Exchange(home, _Nothing(), request, marks)


def _copy(error: LLMPoolError) -> LLMPoolError:
    """The same for another caller: an exception keeps the trace of whoever raised it."""
    own = type(error)(str(error))
    own.__cause__ = error.__cause__
    return own
