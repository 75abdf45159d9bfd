"""For any bytes from a server, the caller soon gets a response or one of the package's errors.

``LLM_POOL_EXAMPLES`` sets how many examples are tried (default: 200).
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import socket
from collections.abc import Callable, Coroutine, Iterator, Sequence
from fcntl import ioctl
from termios import FIONREAD
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_pool.engine.config import Origin, Timeouts
from llm_pool.engine.exchange import Exchange
from llm_pool.engine.head import RequestHead
from llm_pool.engine.http11.connection import HTTP11Connection
from llm_pool.engine.http11.keep_alive import KeepAliveHistory
from llm_pool.engine.loops.host_loop import HostLoop
from llm_pool.engine.request import Marks, Request, WholeResponse
from llm_pool.exceptions import APIError, LLMPoolError
from llm_pool.providers import PROVIDERS
from llm_pool.providers.head import Head, HeaderView

EXAMPLES = int(os.environ.get("LLM_POOL_EXAMPLES", "200"))
fuzzed = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

EVENT = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","model":"gpt-4o-2024-08-06","choices":'
COMPLETION = (
    b'{"id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000, "model": "gpt-4o-2024-08-06", '
    b'"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello!", "refusal": null}, '
    b'"logprobs": null, "finish_reason": "stop"}], "usage": {"prompt_tokens": 9, "completion_tokens": 2, '
    b'"total_tokens": 11}}'
)
COMMON = (
    b"Date: Sun, 22 Nov 2026 10:00:00 GMT\r\nContent-Type: application/json\r\nConnection: keep-alive\r\n"
    b"x-request-id: req_0123456789abcdef\r\nx-ratelimit-remaining-requests: 9999\r\nServer: cloudflare\r\n"
    b'CF-RAY: 8f0123456789abcd-FRA\r\nalt-svc: h3=":443"; ma=86400\r\n'
)


def with_length(status: bytes, body: bytes, *headers: bytes) -> bytes:
    head = b"HTTP/1.1 " + status + b"\r\n" + COMMON + b"".join(line + b"\r\n" for line in headers)
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def in_chunks(status: bytes, *pieces: bytes, trailer: bytes = b"") -> bytes:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b""))
    head = b"HTTP/1.1 " + status + b"\r\n" + COMMON + b"Transfer-Encoding: chunked\r\n\r\n"
    return head + chunks[:-2] + trailer + b"\r\n"


RECORDED = {
    "a completion": with_length(b"200 OK", COMPLETION),
    "a completion in chunks": in_chunks(b"200 OK", COMPLETION[:100], COMPLETION[100:], trailer=b"X-T: 1\r\n"),
    "a stream": in_chunks(
        b"200 OK",
        EVENT + b'[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n',
        EVENT + b'[{"index":0,"delta":{"content":"Hel"},"finish_reason":null}]}\n\n',
        EVENT + b'[{"index":0,"delta":{"content":"lo!"},"finish_reason":null}]}\n\n',
        EVENT + b'[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n',
    ),
    "an error": with_length(
        b"429 Too Many Requests",
        b'{"error": {"message": "Rate limit reached", "type": "tokens", "param": null, '
        b'"code": "rate_limit_exceeded"}}',
        b"retry-after: 20",
    ),
    "an error of a proxy": with_length(b"502 Bad Gateway", b"<html><h1>502 Bad Gateway</h1></html>"),
    "interim responses": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    + with_length(b"200 OK", COMPLETION),
    "until close": b"HTTP/1.0 200 OK\r\n" + COMMON + b"\r\n" + COMPLETION,
    "a head with LF": with_length(b"200 OK", COMPLETION).replace(b"\r\n", b"\n"),
    "folded headers": with_length(b"200 OK", COMPLETION, b"X-Folded: a", b" b", b"\tc"),
    "equal lengths": with_length(b"200 OK", COMPLETION, b"Content-Length: %d" % len(COMPLETION)),
    "length and chunked": in_chunks(b"200 OK\r\nContent-Length: 30", COMPLETION[:100], COMPLETION[100:]),
    "a compressed completion": with_length(b"200 OK", gzip.compress(COMPLETION), b"Content-Encoding: gzip"),
    "no content": b"HTTP/1.1 204 No Content\r\nKeep-Alive: timeout=5, max=100\r\n\r\n",
}
ODD = [
    b"\0", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b" ", b":", b";", b",", b"-", b"\xff", b"\xc3\x28", b"HTTP/",
    b"\n\n", b"\n ", b"\r\n\t", b" \r\n", b", ", b"\x01", b"chunked", b"Content-Encoding: gzip\r\n",
    b"0\r\n\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    b"99999999999999999999", b"FFFFFFFFFFFFFFFF\r\n", b"x" * 70_000, b"X: y\r\n" * 12_000,
]  # fmt: skip


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """A recorded response with up to six random changes."""
    data = bytearray(draw(st.sampled_from(list(RECORDED.values()))))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data)))
        end = draw(st.integers(at, min(len(data), at + 64)))
        match draw(st.sampled_from(["flip", "cut", "drop", "insert", "repeat", "move"])):
            case "flip" if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del data[at:]
            case "drop":
                del data[at:end]
            case "insert":
                data[at:at] = draw(st.sampled_from(ODD) | st.binary(max_size=8))
            case "repeat":
                data[at:at] = data[at:end] * draw(st.integers(1, 3))
            case "move":
                piece = bytes(data[at:end])
                del data[at:end]
                to = draw(st.integers(0, len(data)))
                data[to:to] = piece
    return bytes(data)


@st.composite
def segments(draw: st.DrawFn) -> list[bytes]:
    """A response from ``mutations`` in pieces, as a network may deliver it."""
    data = draw(mutations())
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    return [piece for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if (piece := data[a:b])]


METHODS = st.sampled_from([b"POST", b"POST", b"GET", b"HEAD"])


class Owner:
    """Records the events of a connection in ``heard``: ``reusable`` for a release, None for its end."""

    def __init__(self) -> None:
        self.heard: list[bool | None] = []

    def released(self, entry: Any, *, reusable: bool, hint: float | None) -> None:
        assert hint is None or hint >= 0
        self.heard.append(reusable)

    def lost(self, entry: Any) -> None:
        self.heard.append(None)

    def due(self, entry: Any) -> None:
        raise AssertionError("no exchange is left satisfied here")

    def resized(self, entry: Any, capacity: int) -> None:
        raise AssertionError("not in HTTP/1.1")

    def retired(self, entry: Any, reason: str) -> None:
        raise AssertionError("not in HTTP/1.1")


class Wire:
    """A connection of the engine on one end of a socket pair, and the test on the other."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.owner = Owner()
        self.connection = HTTP11Connection(HostLoop(loop), self.owner, KeepAliveHistory())
        self.connection.entry = object()  # type: ignore[assignment]
        self._loop = loop
        self._ours, self._theirs = socket.socketpair()

    async def __aenter__(self) -> Wire:
        self._ours.setblocking(False)
        self._theirs.setblocking(False)
        await self._loop.create_connection(lambda: self.connection, sock=self._ours)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.connection.abort()
        self._theirs.close()
        await until(lambda: self.connection.closed)

    def start(self, method: bytes) -> Exchange:
        request = Request(RequestHead(ORIGIN, method, b"/", [(b"Host", b"llm.test")]), timeouts=TIMEOUTS)
        return self.connection.start(request)

    async def has_read_all(self) -> bool:
        """Wait until the connection has read all bytes sent to it. False if it has closed because of them."""
        transport = self.connection.transport
        assert transport is not None

        def unread() -> bool:
            size = bytes(4)
            return not transport.is_closing() and ioctl(self._ours.fileno(), FIONREAD, size) != bytes(4)

        await until(lambda: not unread())
        return not transport.is_closing()

    async def send(self, pieces: list[bytes]) -> None:
        """Send each piece as a separate segment, until the client closes."""
        for piece in pieces:
            try:
                await self._loop.sock_sendall(self._theirs, piece)
            except OSError:
                return  # the client has closed
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    def end(self) -> None:
        self._theirs.close()


ORIGIN = Origin("http", "llm.test", 80)
TIMEOUTS = Timeouts(read=0.02)
WAIT_SECONDS = 5.0


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.001)


async def whole_or_closed(exchange: Exchange, reading: asyncio.Future[WholeResponse]) -> WholeResponse | None:
    """Wait for the response; after an error of the package close the exchange, and return None."""
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            whole = await reading
    except LLMPoolError:
        exchange.close()
        return None
    assert 200 <= whole.status <= 999
    return whole


async def read_whole(exchange: Exchange) -> WholeResponse:
    await exchange.head()
    return await exchange.read_all()


async def read_in_pieces(exchange: Exchange) -> WholeResponse:
    await exchange.head()
    pieces = []
    while data := await exchange.read():
        pieces.append(data)
    return WholeResponse(exchange.status, exchange.headers, b"".join(pieces), exchange.marks)


async def close_after_head(exchange: Exchange) -> WholeResponse:
    await exchange.head()
    exchange.close()
    return WholeResponse(exchange.status, exchange.headers, b"", exchange.marks)


READERS = st.sampled_from([read_whole, read_in_pieces, close_after_head])


@pytest.fixture(scope="module")
def run() -> Iterator[Callable[[Coroutine[Any, Any, None]], None]]:
    """Run a coroutine; an error in a callback of its loop fails the test."""
    escaped: list[dict[str, Any]] = []
    with asyncio.Runner() as runner:
        runner.get_loop().set_exception_handler(lambda _, context: escaped.append(context))

        def run(coroutine: Coroutine[Any, Any, None]) -> None:
            runner.run(coroutine)
            assert not escaped, escaped.pop()

        yield run


@fuzzed
@given(pieces=segments(), method=METHODS, read=READERS, ends=st.booleans())
def test_any_bytes_are_a_response_or_an_error_of_ours(
    run: Any, pieces: list[bytes], method: bytes, read: Any, ends: bool
) -> None:
    """Scenario 40: no other exception and no hang; the connection is released exactly once."""

    async def example() -> None:
        async with Wire(asyncio.get_running_loop()) as wire:
            exchange = wire.start(method)
            reading = asyncio.ensure_future(read(exchange))
            await wire.send(pieces)
            if ends:
                wire.end()
            whole = await whole_or_closed(exchange, reading)
            if whole is not None:
                parse_as_provider(whole)
            await until(lambda: wire.owner.heard)
        assert wire.owner.heard in ([True, None], [False, None])

    run(example())


@fuzzed
@given(pieces=segments(), method=METHODS, read=READERS)
def test_a_connection_that_serves_again_has_nothing_left_of_the_last_response(
    run: Any, pieces: list[bytes], method: bytes, read: Any
) -> None:
    """Scenario 29: the next caller gets exactly the next response."""

    async def example() -> None:
        async with Wire(asyncio.get_running_loop()) as wire:
            exchange = wire.start(method)
            reading = asyncio.ensure_future(read(exchange))
            await wire.send(pieces)
            with contextlib.suppress(LLMPoolError):
                await reading
            exchange.close()
            await until(lambda: wire.owner.heard)
            if wire.owner.heard != [True] or not await wire.has_read_all():
                return
            reading = asyncio.ensure_future(read_whole(wire.start(b"POST")))
            await wire.send([with_length(b"201 Created", b"the next response")])
            whole = await reading
            assert (whole.status, whole.body) == (201, b"the next response")

    run(example())


@fuzzed
@given(
    body=mutations(), sizes=st.lists(st.integers(1, 200), max_size=8), status=st.sampled_from([200, 401, 529])
)
def test_any_body_is_an_answer_or_an_error_of_ours(body: bytes, sizes: list[int], status: int) -> None:
    """Scenario 40: here the provider parses a random body, without HTTP."""
    body = body.partition(b"\r\n\r\n")[2] or body
    parse_as_provider(
        WholeResponse(status, [(b"content-type", b"application/json")], body, Marks(0.0)), sizes
    )


def parse_as_provider(whole: WholeResponse, sizes: Sequence[int] = ()) -> None:
    """Parse a response as a provider does: as a completion and as a stream, or as an error."""
    provider = PROVIDERS["openai"]()
    head = Head(whole.status, HeaderView(whole.headers))
    if not 200 <= whole.status < 300:
        assert isinstance(provider.error_from_response(head, whole.body), APIError)
        return
    with contextlib.suppress(LLMPoolError):
        provider.parse_completion(head, whole.body)
    with contextlib.suppress(LLMPoolError):
        reader = provider.stream_reader(head)
        rest = whole.body
        for size in sizes:
            reader.feed(rest[:size])
            rest = rest[size:]
        reader.feed(rest)
        reader.end()
        reader.completion()
