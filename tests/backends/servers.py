"""Behaviours of a server, each written once and run over HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

from h2.settings import SettingCodes

from testbed.behaviours import EVENTS, JSON
from testbed.chat import chat_event, usage
from testbed.http2 import http2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from testbed import Script, ServerConnection
    from testbed.http2 import Stream

__all__ = ["Behaviour", "Exchange", "answer", "by_path", "gated", "model", "over_http1", "over_http2"]


class Exchange(Protocol):
    """A request that the server has received, and methods to answer it."""

    target: str
    body: bytes

    async def head(self, status: int = 200, headers: Mapping[str, str] | None = None) -> None: ...
    async def data(self, data: bytes) -> None: ...
    async def end(self) -> None: ...
    async def cut(self) -> None: ...
    async def hold(self) -> None: ...
    async def wait_for(self, gate: str) -> None: ...


Behaviour = Callable[[Any], Awaitable[None]]


class _OverHTTP1:
    def __init__(self, conn: ServerConnection, target: str, body: bytes) -> None:
        self.conn, self.target, self.body = conn, target, body

    async def head(self, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        await self.conn.send_head(status, {**(headers or {}), "Transfer-Encoding": "chunked"})

    async def data(self, data: bytes) -> None:
        await self.conn.send_chunk(data)

    async def end(self) -> None:
        await self.conn.end_chunks()

    async def cut(self) -> None:
        await self.conn.close()

    async def hold(self) -> None:
        await self.conn.hold()

    async def wait_for(self, gate: str) -> None:
        await self.conn.wait_for(gate)


class _OverHTTP2:
    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.target, self.body = stream.request.target, stream.request.body

    async def head(self, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        await self.stream.head(status, {name.lower(): value for name, value in (headers or {}).items()})

    async def data(self, data: bytes) -> None:
        await self.stream.data(data)

    async def end(self) -> None:
        await self.stream.data(b"", end=True)

    async def cut(self) -> None:
        await self.stream.peer.conn.close()

    async def hold(self) -> None:
        await self.stream.until(lambda: False)

    async def wait_for(self, gate: str) -> None:
        await self.stream.wait_for(gate)


def over_http1(behaviour: Behaviour) -> Script:
    """The script of an HTTP/1.1 server: it reads each request to its end, then runs ``behaviour``."""

    async def script(conn: ServerConnection) -> None:
        request = await conn.read_request()
        await behaviour(_OverHTTP1(conn, request.target, request.body))

    return script


def over_http2(behaviour: Behaviour) -> Script:
    """The script of an HTTP/2 server: it runs ``behaviour`` on each stream.

    It announces 100 streams: until a server announces a number, httpcore sends one request at a time.
    """

    async def reply(stream: Stream) -> None:
        await stream.body()
        await behaviour(_OverHTTP2(stream))

    return http2(reply, settings={SettingCodes.MAX_CONCURRENT_STREAMS: 100})


async def answer(exchange: Exchange) -> None:
    """Answer with the target and the size of the request, as JSON."""
    await exchange.head(headers=JSON)
    await exchange.data(json.dumps({"target": exchange.target, "size": len(exchange.body)}).encode())
    await exchange.end()


def gated(gate: str = "go") -> Behaviour:
    """Wait for the gate, then ``answer``."""

    async def behaviour(exchange: Exchange) -> None:
        await exchange.wait_for(gate)
        await answer(exchange)

    return behaviour


def by_path(**by_target: Behaviour) -> Behaviour:
    """Choose the behaviour by the last part of the request's path; the default is ``answer``."""

    async def behaviour(exchange: Exchange) -> None:
        await by_target.get(exchange.target.rsplit("/", 1)[-1], answer)(exchange)

    return behaviour


async def model(exchange: Exchange) -> None:
    """Answer with a chat completion, or with a stream of "one", "two", "three".

    For the prompt "gated" each token waits for the gate "token".
    """
    request = json.loads(exchange.body)
    if not request.get("stream"):
        await exchange.head(headers=JSON)
        await exchange.data(_completion("Hello!"))
    else:
        await exchange.head(headers=EVENTS)
        for token in ("one", "two", "three"):
            if request["messages"][-1]["content"] == "gated":
                await exchange.wait_for("token")
            await exchange.data(chat_event({"content": token}))
        await exchange.data(chat_event({}, finish_reason="stop") + b"data: [DONE]\n\n")
    await exchange.end()


def _completion(text: str) -> bytes:
    message = {"role": "assistant", "content": text}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    value = {"id": "chatcmpl-1", "model": "test-model", "choices": choices, "usage": usage(1)}
    return json.dumps(value).encode()
