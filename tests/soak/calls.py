"""The calls of every kind that callers make; each answer is checked against its request."""

from __future__ import annotations

import asyncio
import gc
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llm_pool.engine.head import RequestHead
from llm_pool.engine.request import Request
from tests.soak.interrupted import interrupted
from tests.soak.server import UNREQUESTED

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from llm_pool.calling.pool import LLMPool
    from llm_pool.engine.config import Origin
    from llm_pool.engine.exchange import Exchange
    from llm_pool.engine.pool import Pool
    from tests.soak.record import Call, Record

__all__ = ["AsyncCalls", "Place", "SyncCalls"]

TARGET = "/anything"
MAX_UPLOAD_PIECES = 12
UPLOAD_PIECE = b"u" * 40_000
MAX_INTERRUPT = 0.05
"""Seconds within which a call is interrupted."""


@dataclass(frozen=True)
class Place:
    """Where calls may go.

    ``engine``   the engine's pool
    ``origins``  the servers that it may call
    ``service``  the LLMPool on it; None if there is none
    """

    engine: Pool
    origins: list[Origin]
    service: LLMPool | None = None


class _Calls:
    """What ``AsyncCalls`` and ``SyncCalls`` have in common."""

    def __init__(self, places: list[Place], record: Record, rng: random.Random) -> None:
        self.record, self.rng = record, rng
        self._places = places
        self._services = [place.service for place in places if place.service is not None]

    def _service(self) -> LLMPool:
        return self.rng.choice(self._services)

    def _request(self, call: Call, body: bytes | None) -> tuple[Pool, Request]:
        place = self.rng.choice(self._places)
        origin = self.rng.choice(place.origins)
        host = f"{origin.host}:{origin.port}"
        framing = ("Transfer-Encoding", "chunked") if body is None else ("Content-Length", str(len(body)))
        headers = [("Host", host), framing, ("X-Call", call.token)]
        if body is not None and self.rng.random() < 0.2:
            headers.append(("Idempotency-Key", call.token))
            call.may_repeat = True
        lines = [(name.encode(), value.encode()) for name, value in headers]
        timeouts = place.engine.config.timeouts
        return place.engine, Request(RequestHead(origin, b"POST", TARGET.encode(), lines), body, timeouts)

    def _body(self) -> bytes:
        return b"b" * int(self.rng.paretovariate(0.4) % 100_000)

    def _pieces(self) -> int:
        return self.rng.randrange(MAX_UPLOAD_PIECES)

    # Checks.

    def _check(self, call: Call, headers: Mapping[str, str], status: int, body: bytes, sent: int) -> None:
        """Record a violation unless this is the complete response to the call's request."""
        token = headers.get("x-call")
        if token == UNREQUESTED:
            # It came while the request was sent: a client cannot distinguish it from the right response.
            call.outcome = "unasked answer, taken for its own"
            return
        call.outcome = f"result {status}" if status != 200 else "result"
        if token != call.token:
            self.record.violation(f"{call.kind!r} {call.token} was given the answer to {token}")
        if status != 200 or "x-lie" in headers:
            return
        length = int(headers["x-length"])
        expected = (call.token.encode() * (1 + length // len(call.token)))[:length]
        if body != expected:
            self.record.violation(f"{call.kind!r}: a body of {length} bytes came as {len(body)} others")
        if int(headers["x-received"]) != sent:
            self.record.violation(f"{call.kind!r}: {sent} bytes were sent, {headers['x-received']} came")

    def _check_head(self, call: Call, headers: Mapping[str, str]) -> None:
        if headers.get("x-call") not in (call.token, UNREQUESTED):
            self.record.violation(
                f"{call.kind!r} {call.token} was given the answer to {headers.get('x-call')}"
            )

    def _check_text(self, call: Call, text: str) -> None:
        if text != call.token:
            self.record.violation(f"{call.kind!r}: the text is {text!r}, not {call.token!r}")

    def _check_end(self, call: Call, stream: Any, *, closed: bool) -> None:
        """Check a stream that ended without an error: it has its completion, unless it was closed."""
        if stream.completion is not None:
            self._check_text(call, stream.completion.text)
        elif closed:
            call.outcome = "closed by another thread"
        else:
            self.record.violation(f"{call.kind!r} ended with neither a completion nor an error")

    def _close_soon(self, close: Any) -> threading.Timer:
        timer = threading.Timer(self.rng.random() * 0.1, close)
        timer.start()
        return timer


class AsyncCalls(_Calls):
    """Calls made by tasks, on any loop."""

    async def any(self) -> None:
        """Make one call, of a random kind."""
        kinds = (
            self.complete, self.stream, self.stream_half, self.stream_abandoned, self.stream_closed_elsewhere,
            self.httpx, self.httpx_upload, self.httpx_half, self.httpx_abandoned,
            self.fetch, self.open_half, self.open_upload,
        )  # fmt: skip
        await self.rng.choice(kinds)()

    async def complete(self) -> None:
        with self.record.call("acomplete") as call:
            self._check_text(call, (await self._service().acomplete(call.token)).text)

    async def stream(self) -> None:
        with self.record.call("astream") as call:
            stream = self._service().astream(call.token)
            async for _ in stream:
                await asyncio.sleep(0)
            self._check_end(call, stream, closed=False)

    async def stream_half(self) -> None:
        with self.record.call("astream, half read") as call:
            async with self._service().astream(call.token) as stream:
                for _ in range(self.rng.randrange(4)):
                    await anext(stream, None)
            call.outcome = "left"

    async def stream_abandoned(self) -> None:
        with self.record.call("astream, abandoned") as call:
            await anext(self._service().astream(call.token), None)
            call.outcome = "left"
        self._collect()

    async def stream_closed_elsewhere(self) -> None:
        with self.record.call("astream, closed by a thread") as call:
            stream = self._service().astream(call.token)
            timer = self._close_soon(stream.close)
            try:
                async for _ in stream:
                    await asyncio.sleep(0.01)
                self._check_end(call, stream, closed=True)
            finally:
                timer.cancel()

    async def httpx(self) -> None:
        with self.record.call("aclient") as call:
            body = self._body()
            reply = await self._service().aclient.post(TARGET, content=body, headers={"x-call": call.token})
            self._check(call, reply.headers, reply.status_code, reply.content, len(body))

    async def httpx_upload(self) -> None:
        with self.record.call("aclient, streamed upload") as call:
            pieces = self._pieces()

            async def upload() -> AsyncIterator[bytes]:
                for _ in range(pieces):
                    await asyncio.sleep(0)
                    yield UPLOAD_PIECE

            reply = await self._service().aclient.post(
                TARGET, content=upload(), headers={"x-call": call.token}
            )
            self._check(call, reply.headers, reply.status_code, reply.content, pieces * len(UPLOAD_PIECE))

    async def httpx_half(self) -> None:
        with self.record.call("aclient, half read") as call:
            client = self._service().aclient
            async with client.stream("POST", TARGET, headers={"x-call": call.token}) as reply:
                self._check_head(call, reply.headers)
                await anext(reply.aiter_bytes(), b"")
            call.outcome = "left"

    async def httpx_abandoned(self) -> None:
        with self.record.call("aclient, abandoned") as call:
            client = self._service().aclient
            request = client.build_request("POST", TARGET, headers={"x-call": call.token})
            self._check_head(call, (await client.send(request, stream=True)).headers)
            call.outcome = "left"
        self._collect()

    async def fetch(self) -> None:
        with self.record.call("fetch") as call:
            body = self._body()
            pool, request = self._request(call, body)
            response = await pool.fetch(request)
            self._check(call, _mapping(response.headers), response.status, response.body, len(body))

    async def open_half(self) -> None:
        with self.record.call("open, half read") as call:
            pool, request = self._request(call, b"")
            exchange = await pool.open(request)
            try:
                await exchange.host_loop.arun(exchange.read)
                call.outcome = "left"
            finally:
                exchange.close_threadsafe()

    async def open_upload(self) -> None:
        with self.record.call("open, streamed upload") as call:
            pool, request = self._request(call, None)
            exchange = await pool.open(request)
            try:
                pieces = self._pieces()
                for _ in range(pieces):
                    if not await exchange.host_loop.arun(exchange.write, UPLOAD_PIECE):
                        break
                await exchange.host_loop.arun(exchange.finish)
                await exchange.host_loop.arun(exchange.head)
                response = await exchange.host_loop.arun(exchange.read_all)
                size = pieces * len(UPLOAD_PIECE)
                self._check(call, _mapping(response.headers), response.status, response.body, size)
            finally:
                exchange.close_threadsafe()

    def _collect(self) -> None:
        if self.rng.random() < 0.1:
            gc.collect()  # abandoned streams may be part of a cycle


class SyncCalls(_Calls):
    """Calls made by threads."""

    def any(self) -> None:
        """Make one call, of a random kind."""
        kinds = (
            self.complete, self.stream, self.stream_half, self.stream_abandoned, self.stream_closed_elsewhere,
            self.httpx, self.httpx_upload, self.httpx_abandoned, self.fetch, self.open_half,
            self.complete_interrupted, self.stream_interrupted, self.httpx_interrupted,
        )  # fmt: skip
        self.rng.choice(kinds)()

    def complete(self) -> None:
        with self.record.call("complete") as call:
            self._check_text(call, self._service().complete(call.token).text)

    def stream(self) -> None:
        with self.record.call("stream") as call:
            stream = self._service().stream(call.token)
            for _ in stream:
                pass
            self._check_end(call, stream, closed=False)

    def stream_half(self) -> None:
        with self.record.call("stream, half read") as call:
            with self._service().stream(call.token) as stream:
                for _ in range(self.rng.randrange(4)):
                    next(stream, None)
            call.outcome = "left"

    def stream_abandoned(self) -> None:
        with self.record.call("stream, abandoned") as call:
            next(self._service().stream(call.token), None)
            call.outcome = "left"

    def stream_closed_elsewhere(self) -> None:
        with self.record.call("stream, closed by a thread") as call:
            stream = self._service().stream(call.token)
            timer = self._close_soon(stream.close)
            try:
                for _ in stream:
                    pass
                self._check_end(call, stream, closed=True)
            finally:
                timer.cancel()

    def httpx(self) -> None:
        with self.record.call("client") as call:
            body = self._body()
            reply = self._service().client.post(TARGET, content=body, headers={"x-call": call.token})
            self._check(call, reply.headers, reply.status_code, reply.content, len(body))

    def httpx_upload(self) -> None:
        with self.record.call("client, streamed upload") as call:
            pieces = self._pieces()

            def upload() -> Iterator[bytes]:
                for _ in range(pieces):
                    yield UPLOAD_PIECE

            reply = self._service().client.post(TARGET, content=upload(), headers={"x-call": call.token})
            self._check(call, reply.headers, reply.status_code, reply.content, pieces * len(UPLOAD_PIECE))

    def httpx_abandoned(self) -> None:
        with self.record.call("client, abandoned") as call:
            client = self._service().client
            request = client.build_request("POST", TARGET, headers={"x-call": call.token})
            self._check_head(call, client.send(request, stream=True).headers)
            call.outcome = "left"

    def fetch(self) -> None:
        with self.record.call("fetch_sync") as call:
            body = self._body()
            pool, request = self._request(call, body)
            response = pool.fetch_sync(request)
            self._check(call, _mapping(response.headers), response.status, response.body, len(body))

    def open_half(self) -> None:
        with self.record.call("open_sync, half read") as call:
            pool, request = self._request(call, b"")
            exchange: Exchange = pool.open_sync(request)
            try:
                exchange.host_loop.run(exchange.read)
                call.outcome = "left"
            finally:
                exchange.close_threadsafe()

    # In a thread of its own, which is interrupted at a random moment.

    def complete_interrupted(self) -> None:
        with self.record.call("complete, interrupted") as call:
            self._interrupt(call, lambda service: service.complete(call.token).text)

    def stream_interrupted(self) -> None:
        with self.record.call("stream, interrupted") as call:
            self._interrupt(call, lambda service: "".join(chunk.text for chunk in service.stream(call.token)))

    def httpx_interrupted(self) -> None:
        with self.record.call("client, interrupted") as call:
            headers = {"x-call": call.token}
            self._interrupt(
                call, lambda service: service.client.post(TARGET, headers=headers).headers["x-call"]
            )

    def _interrupt(self, call: Call, function: Callable[[LLMPool], str]) -> None:
        service = self._service()
        text = interrupted(lambda: function(service), self.rng.random() * MAX_INTERRUPT)
        if text is None:
            call.outcome = "interrupted"
        elif text != UNREQUESTED:
            self._check_text(call, text)


def _mapping(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}
