"""An HTTP/2 server with random faults, in single streams or in the whole connection."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
from h2.errors import ErrorCodes
from hyperframe.frame import GoAwayFrame

from testbed import ClientGone
from tests.soak.server import MAX_PAUSE, Answer, answer_to, client_may_have_gone

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from testbed import ServerConnection
    from tests.soak.server import SoakServer

__all__ = ["play_http2"]

MAX_STREAMS = 4
CONFIG = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")


async def play_http2(server: SoakServer, conn: ServerConnection) -> None:
    """Serve a connection until it ends."""
    peer = _Peer(server, conn)
    try:
        with client_may_have_gone():
            await peer.run()
    finally:
        for task in peer.replies:
            task.cancel()
        await asyncio.gather(*peer.replies, return_exceptions=True)


@dataclass
class _Stream:
    number: int
    target: str
    headers: dict[str, str]
    body: bytearray = field(default_factory=bytearray)


class _LenientConnection(h2.connection.H2Connection):
    """Keeps the connection open above the limit of streams: the client may not have read the limit yet."""

    @property
    def open_inbound_streams(self) -> int:
        return 0

    @property
    def has_too_many(self) -> bool:
        return super().open_inbound_streams > self.local_settings.max_concurrent_streams


class _Peer:
    def __init__(self, server: SoakServer, conn: ServerConnection) -> None:
        self.server, self.conn = server, conn
        self.h2 = _LenientConnection(CONFIG)
        self.replies: set[asyncio.Task[None]] = set()
        self._streams: dict[int, _Stream] = {}
        self._last: int | None = None  # the last stream that is served, after a GOAWAY
        self._window_changed = asyncio.Event()

    async def run(self) -> None:
        codes = h2.settings.SettingCodes
        self.h2.local_settings = h2.settings.Settings(
            client=False, initial_values={codes.MAX_CONCURRENT_STREAMS: MAX_STREAMS}
        )
        self.h2.initiate_connection()
        await self._flush()
        while True:
            for event in self.h2.receive_data(await self._read()):
                self._handle(event)
            self._window_changed.set()
            await self._flush()

    async def _read(self) -> bytes:
        rng = self.server.rng
        if self.server.calm or rng.random() > 0.03:
            return await self.conn.read_some()
        try:
            async with asyncio.timeout(rng.random() * MAX_PAUSE):
                return await self.conn.read_some()
        except TimeoutError:
            name = rng.choice(list(_ANY_TIME))
            self.server.record.fault(name)
            await _ANY_TIME[name](self)
            return b""

    async def _flush(self) -> None:
        if data := self.h2.data_to_send():
            await self.conn.send(data)

    def _handle(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived() if self.h2.has_too_many:
                self.server.record.fault("h2: one too many")
                with contextlib.suppress(h2.exceptions.StreamClosedError):  # the client has reset it already
                    self.h2.reset_stream(event.stream_id, ErrorCodes.REFUSED_STREAM)
            case h2.events.RequestReceived():
                headers = dict(event.headers)
                self._streams[event.stream_id] = _Stream(event.stream_id, headers[":path"], headers)
            case h2.events.DataReceived():
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                if stream := self._streams.get(event.stream_id):
                    stream.body += event.data
            case h2.events.StreamEnded():
                if stream := self._streams.pop(event.stream_id, None):
                    self._serve(stream)
            case h2.events.StreamReset():
                self._streams.pop(event.stream_id, None)

    def _serve(self, stream: _Stream) -> None:
        if self._last is not None and stream.number > self._last:
            return
        task = asyncio.create_task(self._reply(stream))
        self.replies.add(task)
        task.add_done_callback(self._replied)

    def _replied(self, task: asyncio.Task[None]) -> None:
        self.replies.discard(task)
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, ClientGone):
            self.server.errors.append(error)  # type: ignore[arg-type]

    async def _reply(self, stream: _Stream) -> None:
        with client_may_have_gone():
            await self._answer(stream)

    async def _answer(self, stream: _Stream) -> None:
        rng = self.server.rng
        names, odds = list(_FAULTS), [odds for odds, _ in _FAULTS.values()]
        name = "h2: none" if self.server.calm else rng.choices(names, odds)[0]
        self.server.record.fault(name)
        with contextlib.suppress(h2.exceptions.ProtocolError):  # the client has reset it
            token, answer = answer_to(stream.target, stream.headers, bytes(stream.body), rng)
            if name != "h2: refused":  # it is sent again
                self.server.record.arrived(token)
            await _FAULTS[name][1](self, stream.number, answer)

    # Answers and faults. Each takes the number of the stream and its correct answer.

    async def _refuse(self, number: int, _answer: Answer) -> None:
        self.h2.reset_stream(number, ErrorCodes.REFUSED_STREAM)
        await self._flush()

    async def _pause(self) -> None:
        if self.server.rng.random() < 0.5:
            await asyncio.sleep(self.server.rng.random() * MAX_PAUSE)

    async def _head(self, number: int, answer: Answer, *, end: bool = False) -> None:
        self.h2.send_headers(number, [(":status", str(answer.status)), *answer.headers.items()], end)
        await self._flush()

    async def _data(self, number: int, data: bytes) -> None:
        while data:
            await self._pause()
            size = min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size, len(data))
            if size <= 0:
                self._window_changed.clear()
                await self._window_changed.wait()
                continue
            padding = self.server.rng.choice((None, None, 7)) if size > 8 else None
            size -= 8 if padding is not None else 0
            self.h2.send_data(number, data[:size], pad_length=padding)
            await self._flush()
            data = data[size:]

    async def _no_fault(self, number: int, answer: Answer) -> None:
        await self._pause()
        await self._head(number, answer)
        for piece in answer.pieces:
            await self._data(number, piece)
        if self.server.rng.random() < 0.2:
            self.h2.send_headers(number, [("x-trailer", "1")], end_stream=True)
        else:
            self.h2.end_stream(number)
        await self._flush()

    async def _error_status(self, number: int, answer: Answer) -> None:
        await self._head(number, Answer({"x-call": answer.headers["x-call"]}, [], 503), end=True)

    async def _reset_stream(self, number: int, answer: Answer) -> None:
        if self.server.rng.random() < 0.5:
            await self._head(number, answer)
            await self._data(number, answer.body[:10])
        self.h2.reset_stream(number, ErrorCodes.INTERNAL_ERROR)
        await self._flush()

    async def _stall(self, number: int, answer: Answer) -> None:
        if self.server.rng.random() < 0.5:
            await self._head(number, answer)

    async def _wrong_length(self, number: int, answer: Answer) -> None:
        answer.headers |= {"content-length": str(len(answer.body) + 1)}
        await self._no_fault(number, answer)

    async def _close(self, number: int, answer: Answer) -> None:
        await self.conn.close()

    async def _reset(self, number: int, answer: Answer) -> None:
        await self.conn.reset()

    async def _garbage(self, number: int, answer: Answer) -> None:
        await self.conn.send(self.server.rng.randbytes(100))

    # Faults of the connection, at any time.

    async def _send_goaway(self) -> None:
        if self._last is None:
            self._last = self.h2.highest_inbound_stream_id
            await self.conn.send(GoAwayFrame(0, last_stream_id=self._last).serialize())

    async def _change_limit(self) -> None:
        limit = self.server.rng.randint(1, MAX_STREAMS)
        with contextlib.suppress(h2.exceptions.ProtocolError):  # the client has sent GOAWAY
            self.h2.update_settings({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: limit})

    async def _send_fin(self) -> None:
        await self.conn.close()

    async def _send_rst(self) -> None:
        await self.conn.reset()


_ANY_TIME: dict[str, Callable[[_Peer], Awaitable[None]]] = {
    "h2: GOAWAY": _Peer._send_goaway,
    "h2: other limit": _Peer._change_limit,
    "h2: FIN": _Peer._send_fin,
    "h2: RST": _Peer._send_rst,
}
_FAULTS: dict[str, tuple[float, Callable[[_Peer, int, Answer], Awaitable[None]]]] = {
    "h2: none": (40, _Peer._no_fault),
    "h2: refused": (3, _Peer._refuse),
    "h2: error status": (3, _Peer._error_status),
    "h2: stream reset": (3, _Peer._reset_stream),
    "h2: stall": (2, _Peer._stall),
    "h2: wrong length": (2, _Peer._wrong_length),
    "h2: close": (1, _Peer._close),
    "h2: reset": (1, _Peer._reset),
    "h2: garbage": (1, _Peer._garbage),
}
