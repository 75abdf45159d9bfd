"""An HTTP/1.1 server that mostly responds correctly, and at random has one of many faults."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from testbed import ClientGone, ScriptedServer
from testbed.behaviours import EVENTS, JSON
from testbed.chat import chat_event, usage

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Iterator

    from testbed import ReceivedRequest, ServerConnection
    from tests.soak.record import Record

__all__ = ["UNREQUESTED", "Answer", "SoakServer", "answer_to", "client_may_have_gone", "play_http11"]

UNREQUESTED = "unasked"
"""The token of a response that belongs to no request."""
MAX_PAUSE = 0.08
"""The longest pause before a correct response or a piece of it, in seconds."""
READ_PAUSE = 1.0
"""Seconds for which a server reads nothing: longer than the write timeout of the pools."""


class SoakServer(ScriptedServer):
    """A server with random faults, chosen by ``rng``; while ``calm`` is true it has none.

    It keeps no requests and no ended connections, since a soak may run for hours.
    """

    def __init__(self, play: Play, record: Record, rng: random.Random, **options: Any) -> None:
        super().__init__(
            lambda conn: play(self, conn), before_handshake=self._pause_before_handshake, **options
        )
        self.record, self.rng = record, rng
        self.calm = False
        self.opened: Callable[[], None] = lambda: None
        """Called for each new connection."""

    async def _pause_before_handshake(self) -> None:
        self.opened()
        if self._tls and not self.calm and self.rng.random() < 0.05:
            self.record.fault("slow handshake")
            await asyncio.sleep(self.rng.random())

    def _request_came(self, request: ReceivedRequest) -> None:
        pass

    def _connection_ended(self, connection: ServerConnection) -> None:
        super()._connection_ended(connection)
        self.connections[:] = self._open
        self.disconnects.clear()
        self.handshake_failures.clear()


if TYPE_CHECKING:
    Play = Callable[[SoakServer, ServerConnection], Awaitable[None]]
    Fault = Callable[["Turn"], Awaitable[None]]


# Answers.


@dataclass
class Answer:
    """A correct answer.

    ``headers``  ``x-call`` is the token of its request, ``x-length`` the length of its body, ``x-received``
                 that of the request's body
    ``pieces``   the body in pieces
    ``status``   of the response
    """

    headers: dict[str, str]
    pieces: list[bytes]
    status: int = 200

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)


def answer_to(target: str, headers: dict[str, str], body: bytes, rng: random.Random) -> tuple[str, Answer]:
    """The token of a request, and its correct answer.

    It is a chat completion, streamed if the request asks for that; on other paths, the token, repeated.
    """
    if not target.endswith("/chat/completions"):
        token = headers["x-call"]
        full_body = token.encode() * (1 + int(rng.paretovariate(0.5)) % 4000)
        cuts = sorted(rng.randrange(len(full_body)) for _ in range(rng.randrange(4)))
        pieces = [full_body[a:b] for a, b in zip([0, *cuts], [*cuts, len(full_body)], strict=True) if a < b]
        length = {"x-length": str(len(full_body)), "x-received": str(len(body))}
        return token, Answer({"x-call": token, **length}, pieces)
    call = json.loads(body)
    token = call["messages"][-1]["content"]
    if not call.get("stream"):
        choice = {"index": 0, "message": {"role": "assistant", "content": token}, "finish_reason": "stop"}
        value = {"id": "1", "model": "m", "choices": [choice], "usage": usage(1)}
        return token, Answer({"x-call": token, **JSON}, [json.dumps(value).encode()])
    words = [chat_event({"content": letter}) for letter in token]
    ending = [chat_event({}, finish_reason="stop"), b"data: [DONE]\n\n"]
    return token, Answer({"x-call": token, **EVENTS}, [*words, *ending])


# HTTP/1.1.


@dataclass
class Turn:
    """One request on a connection.

    ``server``   the server
    ``conn``     the server's end of the connection
    ``request``  the request; its body is b"" until ``read_body``
    ``answer``   the correct answer; empty until ``read_body``
    """

    server: SoakServer
    conn: ServerConnection
    request: ReceivedRequest
    answer: Answer = field(default_factory=lambda: Answer({}, []))

    async def pause(self) -> None:
        if self.server.rng.random() < 0.5:
            await asyncio.sleep(self.server.rng.random() * MAX_PAUSE)

    async def read_body(self) -> None:
        """Read the body of the request, and make the correct answer."""
        body = await self.conn.read_body(self.request)
        headers = self.request.headers
        token, self.answer = answer_to(self.request.target, headers, body, self.server.rng)
        if "x-call" not in headers:
            self.server.record.arrived(token)
        await self.pause()


async def play_http11(server: SoakServer, conn: ServerConnection) -> None:
    """Serve one request, with or without a fault, or have a fault while the connection is idle."""
    request = await _next_request(server, conn)
    rng = server.rng
    token = request.headers.get("x-call")
    if token is not None:
        server.record.arrived(token)
    name = "none" if server.calm else rng.choices(list(_FAULTS), [odds for odds, _ in _FAULTS.values()])[0]
    server.record.fault(name)
    with client_may_have_gone():
        await _FAULTS[name][1](Turn(server, conn, request))


async def _next_request(server: SoakServer, conn: ServerConnection) -> ReceivedRequest:
    rng = server.rng
    if server.calm or rng.random() > 0.15:
        return await conn.read_head()
    try:
        async with asyncio.timeout(rng.random() * MAX_PAUSE):
            return await conn.read_head()
    except TimeoutError:
        name = rng.choice(list(_IDLE_FAULTS))
        server.record.fault(name)
        with client_may_have_gone():
            await _IDLE_FAULTS[name](conn)
        raise ClientGone from None


@contextlib.contextmanager
def client_may_have_gone() -> Iterator[None]:
    """Raise ClientGone in place of an OSError, such as that of a reset on a closed socket."""
    try:
        yield
    except OSError as error:
        raise ClientGone from error


async def _pause_reading(conn: ServerConnection) -> None:
    """Read nothing from the kernel for a while. Then read again: the client's FIN must be noticed."""
    conn.pause_reading()
    await asyncio.sleep(READ_PAUSE)
    conn.resume_reading()
    await conn.hold()


async def _idle_fin(conn: ServerConnection) -> None:
    await conn.eof()
    await conn.hold()


async def _idle_garbage(conn: ServerConnection) -> None:
    await conn.send(b"\x15\x03\x01\x00\x02\x01\x00")
    await conn.hold()


async def _idle_answer(conn: ServerConnection) -> None:
    await conn.respond(200, {"x-call": UNREQUESTED}, b"{}")
    await conn.hold()


async def _no_fault(turn: Turn) -> None:
    await turn.read_body()
    answer = turn.answer
    if len(answer.pieces) == 1 or turn.server.rng.random() < 0.3:
        await turn.conn.respond(answer.status, answer.headers, answer.body)
        return
    await turn.conn.send_head(answer.status, {**answer.headers, "Transfer-Encoding": "chunked"})
    for piece in answer.pieces:
        await turn.pause()
        await turn.conn.send_chunk(piece)
    await turn.conn.end_chunks()


async def _error_status(turn: Turn) -> None:
    await turn.read_body()
    status = turn.server.rng.choice((400, 401, 404, 429, 500, 503))
    await turn.conn.respond(
        status, {"x-call": turn.answer.headers["x-call"]}, b'{"error": {"message": "no"}}'
    )


async def _close_announced(turn: Turn) -> None:
    await turn.read_body()
    await turn.conn.respond(200, {**turn.answer.headers, "Connection": "close"}, turn.answer.body)
    await turn.conn.close()


async def _close_unannounced(turn: Turn) -> None:
    await turn.read_body()
    await turn.conn.respond(200, turn.answer.headers, turn.answer.body)
    await turn.conn.close()


async def _until_close(turn: Turn) -> None:
    await turn.read_body()
    await turn.conn.send_head(200, turn.answer.headers, "1.0")
    await turn.conn.send(turn.answer.body)
    await turn.conn.close()


async def _brief_keep_alive(turn: Turn) -> None:
    await turn.read_body()
    await turn.conn.respond(200, {**turn.answer.headers, "Keep-Alive": "timeout=1"}, turn.answer.body)


async def _interim(turn: Turn) -> None:
    await turn.conn.send_head(100)
    await turn.conn.send_head(103, {"Link": "</x>"})
    await _no_fault(turn)


async def _early_answer(turn: Turn) -> None:
    await turn.conn.respond(413, {"x-call": turn.request.headers.get("x-call", UNREQUESTED)})
    await _pause_reading(turn.conn)


async def _reset(turn: Turn) -> None:
    await turn.pause()
    await turn.conn.reset()


async def _close(turn: Turn) -> None:
    await turn.pause()
    await turn.conn.close()


async def _stall(turn: Turn) -> None:
    await turn.conn.hold()


async def _stop_reading(turn: Turn) -> None:
    await _pause_reading(turn.conn)


async def _stall_in_head(turn: Turn) -> None:
    await turn.conn.send(b"HTTP/1.1 200 OK\r\nContent-")
    await turn.conn.hold()


async def _send_partial_body(turn: Turn) -> None:
    """Send a response whose body is not complete, with a Content-Length or in chunks."""
    await turn.read_body()
    body = turn.answer.body
    if turn.server.rng.random() < 0.5:
        await turn.conn.send_head(200, {**turn.answer.headers, "Content-Length": str(len(body) + 1)})
        await turn.conn.send(body)
    else:
        await turn.conn.send_head(200, {**turn.answer.headers, "Transfer-Encoding": "chunked"})
        await turn.conn.send_chunk(body[: 1 + len(body) // 2])
    await turn.pause()


async def _stall_in_body(turn: Turn) -> None:
    await _send_partial_body(turn)
    await turn.conn.hold()


async def _truncate(turn: Turn) -> None:
    await _send_partial_body(turn)
    await turn.conn.close()


async def _reset_in_body(turn: Turn) -> None:
    await _send_partial_body(turn)
    await turn.conn.reset()


async def _surplus(turn: Turn) -> None:
    await turn.read_body()
    await turn.conn.respond(200, turn.answer.headers, turn.answer.body)
    await turn.conn.send(b"surplus")


async def _short_length(turn: Turn) -> None:
    """Send more bytes than the Content-Length says."""
    await turn.read_body()
    body = turn.answer.body
    length = str(turn.server.rng.randrange(len(body)))
    await turn.conn.respond(200, {**turn.answer.headers, "x-lie": "1", "Content-Length": length}, body)


async def _two_lengths(turn: Turn) -> None:
    await turn.read_body()
    lines = "".join(f"{name}: {value}\r\n" for name, value in turn.answer.headers.items())
    head = f"HTTP/1.1 200 OK\r\n{lines}Content-Length: 3\r\nContent-Length: 5\r\n\r\n"
    await turn.conn.send(head.encode() + b"12345")
    await turn.conn.hold()


async def _garbage(turn: Turn) -> None:
    await turn.conn.send(turn.server.rng.randbytes(200))
    await turn.conn.close()


async def _bad_chunk(turn: Turn) -> None:
    await turn.read_body()
    await turn.conn.send_head(200, {**turn.answer.headers, "Transfer-Encoding": "chunked"})
    await turn.conn.send(b"xyz\r\nnot a chunk\r\n")
    await turn.conn.hold()


async def _endless_head(turn: Turn) -> None:
    await turn.conn.send(b"HTTP/1.1 200 OK\r\n")
    for _ in range(1000):
        await turn.conn.send(b"X-Filler: " + b"x" * 4000 + b"\r\n")
        await asyncio.sleep(0)
    await turn.conn.hold()


async def _compressed(turn: Turn) -> None:
    await turn.read_body()
    await turn.conn.respond(
        200, {**turn.answer.headers, "Content-Encoding": "gzip", "x-lie": "1"}, b"\x1f\x8bno"
    )


_IDLE_FAULTS: dict[str, Callable[[ServerConnection], Awaitable[None]]] = {
    "idle: FIN": _idle_fin,
    "idle: close": lambda conn: conn.close(),
    "idle: RST": lambda conn: conn.reset(),
    "idle: garbage": _idle_garbage,
    "idle: an answer": _idle_answer,
}
_FAULTS: dict[str, tuple[float, Fault]] = {
    "none": (40, _no_fault),
    "error status": (3, _error_status),
    "Connection: close": (3, _close_announced),
    "closes unsaid": (3, _close_unannounced),
    "body until close": (2, _until_close),
    "Keep-Alive: timeout=1": (2, _brief_keep_alive),
    "1xx first": (3, _interim),
    "answers early": (2, _early_answer),
    "reset": (2, _reset),
    "close": (2, _close),
    "stall": (1, _stall),
    "reads no more": (1, _stop_reading),
    "stall in head": (1, _stall_in_head),
    "stall in body": (1, _stall_in_body),
    "truncate": (2, _truncate),
    "reset in body": (2, _reset_in_body),
    "surplus bytes": (2, _surplus),
    "length too short": (2, _short_length),
    "two lengths": (2, _two_lengths),
    "garbage": (2, _garbage),
    "bad chunk": (2, _bad_chunk),
    "endless head": (1, _endless_head),
    "compressed": (1, _compressed),
}
