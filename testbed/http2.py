"""HTTP/2 on a ScriptedServer: ``serve(http2(answer))`` awaits ``answer(stream)`` for each request.

Frames that h2 refuses to send, because they violate the protocol, are sent by ``peer.send_frames(...)``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    PingReceived,
    RequestReceived,
    SettingsAcknowledged,
    StreamEnded,
    StreamReset,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from hyperframe.frame import Frame, GoAwayFrame, HeadersFrame, SettingsFrame

from testbed.connection import ClientGone, ReceivedRequest
from testbed.tls import NAMES, server_context

if TYPE_CHECKING:
    import ssl

    from testbed.connection import ServerConnection
    from testbed.scripted import Script
    from testbed.tls import Certificates

__all__ = ["Answer", "Peer", "Stream", "StreamGone", "frames_in", "http2", "offering_http2", "reply"]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
Answer = Callable[["Stream"], Awaitable[None]]


class StreamGone(ClientGone):
    """The client has reset the stream. This error ends the answer, and does not fail the test."""


def http2(
    answer: Answer,
    *,
    settings: Mapping[SettingCodes, int] | None = None,
    begin: Callable[[Peer], Awaitable[None]] | None = None,
    take_windows: bool = False,
    late_settings: bool = False,
) -> Script:
    """A script that sends ``settings``, awaits ``begin(peer)``, and answers each request with ``answer``.

    Streams above the announced MAX_CONCURRENT_STREAMS are refused and marked "excess". With ``take_windows``
    it sends no WINDOW_UPDATE for received data, so that the client's windows run out. With ``late_settings``
    it sends its settings only after the first requests have come.
    """

    async def script(conn: ServerConnection) -> None:
        peer = Peer(conn, answer, dict(settings or {}), take_windows=take_windows)
        await peer.run(begin, late_settings=late_settings)

    return script


def offering_http2(certificates: Certificates) -> ssl.SSLContext:
    """The SSL context of a server with a valid certificate that offers HTTP/2 and HTTP/1.1."""
    context = server_context(certificates.authority.issue_cert(*NAMES))
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def reply(status: int = 200, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
    """Read the whole request and send a response."""

    async def answer(stream: Stream) -> None:
        await stream.body()
        await stream.respond(status, body, headers)

    return answer


def frames_in(data: bytes) -> list[Frame]:
    """The complete frames in the bytes that a client has sent, without its preface."""
    view, frames = memoryview(data.removeprefix(PREFACE)), []
    while len(view) >= 9:
        frame, length = Frame.parse_frame_header(view[:9])
        if len(view) < 9 + length:
            break
        frame.parse_body(view[9 : 9 + length])
        frames.append(frame)
        view = view[9 + length :]
    return frames


class _LenientConnection(H2Connection):
    """A connection of h2 that accepts any number of streams; with ``ignores_pings`` it answers no PING."""

    ignores_pings = False

    @property
    def open_inbound_streams(self) -> int:
        return 0  # Peer counts and refuses them

    def _receive_ping_frame(self, frame: Any) -> Any:
        frames, events = super()._receive_ping_frame(frame)
        return ([], events) if self.ignores_pings else (frames, events)


class Peer:
    """The server's end of one HTTP/2 connection. ``server.wait_until`` can wait for its counters."""

    def __init__(
        self, conn: ServerConnection, answer: Answer, settings: dict[SettingCodes, int], *, take_windows: bool
    ) -> None:
        self.conn = conn
        self.server = conn.server
        self.h2 = _LenientConnection(H2Configuration(client_side=False, header_encoding="latin-1"))
        self.streams: dict[int, Stream] = {}
        """Every stream since the start, by number."""
        self.open: set[int] = set()
        self.peak = 0
        """The most streams that were open at one time, without the refused ones."""
        self.acknowledged = 0
        """The number of SETTINGS that the client has acknowledged."""
        self.pings = 0
        self.goaways: list[ConnectionTerminated] = []
        self.settings = settings
        self.take_windows = take_windows
        self._answer = answer
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Condition()

    # For answers.

    async def flush(self) -> None:
        """Send the bytes that h2 has queued."""
        if data := self.h2.data_to_send():
            await self.conn.send(data)

    async def send_frames(self, *frames: Frame | bytes) -> None:
        """Send exactly these frames, in one write; h2's state does not include them."""
        pieces = [frame if isinstance(frame, bytes) else frame.serialize() for frame in frames]
        await self.conn.send(self.h2.data_to_send() + b"".join(pieces))

    async def change_settings(self, settings: dict[SettingCodes, int]) -> None:
        """Announce other settings; return when the client has acknowledged them."""
        self.settings |= settings
        self.h2.update_settings(settings)
        before = self.acknowledged
        await self.flush()
        await self.until(lambda: self.acknowledged > before)

    async def goaway(self, last: int, code: ErrorCodes = ErrorCodes.NO_ERROR) -> None:
        """Send a GOAWAY with the last stream ``last``, and keep the connection open."""
        frame = GoAwayFrame(0)
        frame.last_stream_id, frame.error_code = last, code
        await self.send_frames(frame)

    async def until(self, predicate: Callable[[], object]) -> None:
        """Wait until the predicate is true. It is evaluated after each read from the client."""
        async with self._changed:
            await self._changed.wait_for(lambda: bool(predicate()))

    # The connection.

    async def run(
        self, begin: Callable[[Peer], Awaitable[None]] | None, *, late_settings: bool = False
    ) -> None:
        """Read until the connection has ended. Raises ClientGone then."""
        self.conn.peer = self  # type: ignore[attr-defined] # tests read it there
        self.h2.initiate_connection()
        self.h2.clear_outbound_data_buffer()  # drops h2's own SETTINGS
        self.h2.local_settings.update(self.settings)  # in force once the client has acknowledged them
        data = b""
        try:
            while late_settings and not any(isinstance(frame, HeadersFrame) for frame in frames_in(data)):
                data += await self.conn.read_some()
            await self.send_frames(SettingsFrame(0, settings=dict(self.settings)))
            if begin is not None:
                await begin(self)
            while True:
                await self._receive(data or await self.conn.read_some())
                data = b""
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _receive(self, data: bytes) -> None:
        with self.server.change():
            for event in self.h2.receive_data(data):
                self._handle(event)
        async with self._changed:
            self._changed.notify_all()
        await self.flush()

    def _handle(self, event: Any) -> None:
        match event:
            case RequestReceived():
                self._start_answer(event)
            case DataReceived(stream_id=number, data=data):
                self.streams[number].received += data
                if not self.take_windows:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, number)
            case StreamEnded(stream_id=number):
                self.streams[number].complete = True
            case StreamReset(stream_id=number) if number in self.streams:
                self.streams[number].reset_by_client = event.error_code
                self.open.discard(number)
            case SettingsAcknowledged():
                self.acknowledged += 1
            case PingReceived():
                self.pings += 1
            case ConnectionTerminated():
                self.goaways.append(event)

    def _start_answer(self, event: RequestReceived) -> None:
        stream = self.streams[event.stream_id] = Stream(self, event)
        limit = self.settings.get(SettingCodes.MAX_CONCURRENT_STREAMS)
        if limit is not None and len(self.open) >= limit:
            self.server.mark("excess")
            self.h2.reset_stream(stream.number, ErrorCodes.REFUSED_STREAM)
            return
        self.open.add(stream.number)
        self.peak = max(self.peak, len(self.open))
        self.server._request_came(stream.request)
        task = asyncio.create_task(self._play(stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _play(self, stream: Stream) -> None:
        try:
            await self._answer(stream)
        except ClientGone:
            pass
        except Exception as error:  # noqa: BLE001 - the server's stop() raises it, in the test's own thread
            with self.server.change():
                self.server.errors.append(error)


class Stream:
    """One request and its response. Its methods raise StreamGone once the client has reset it."""

    def __init__(self, peer: Peer, event: RequestReceived) -> None:
        self.peer = peer
        self.number = event.stream_id
        self.received = bytearray()
        self.complete = False
        self.reset_by_client: ErrorCodes | int | None = None
        fields = {str(name): str(value) for name, value in event.headers}
        self.fields = fields
        self.request = ReceivedRequest(fields[":method"], fields[":path"], fields, peer.conn.number, b"", b"")

    @property
    def server(self) -> Any:
        return self.peer.server

    async def body(self) -> bytes:
        """Wait for the whole body of the request; return it, and store it in ``request.body`` too."""
        await self.until(lambda: self.complete)
        self.request.body = bytes(self.received)
        return self.request.body

    async def until(self, predicate: Callable[[], object]) -> None:
        """Wait until the predicate is true, as ``Peer.until`` does."""
        await self.peer.until(lambda: predicate() or self.reset_by_client is not None)
        if self.reset_by_client is not None and not predicate():
            raise StreamGone

    async def wait_for(self, gate: str) -> None:
        """Wait at the server's gate of this name."""
        await self.peer.conn.wait_for(gate)

    async def respond(
        self, status: int = 200, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a complete response with Content-Length."""
        await self.head(status, {"content-length": str(len(body)), **(headers or {})}, end=not body)
        if body:
            await self.data(body, end=True)

    async def head(
        self, status: int = 200, headers: Mapping[str, str] | None = None, *, end: bool = False
    ) -> None:
        """Send a head; it is interim if the status is 1xx."""
        pairs: Iterable[tuple[str, str]] = [(":status", str(status)), *(headers or {}).items()]
        await self._send(lambda: self.peer.h2.send_headers(self.number, pairs, end_stream=end), end=end)

    async def trailers(self, headers: Mapping[str, str]) -> None:
        """Send trailers and end the stream."""
        await self._send(
            lambda: self.peer.h2.send_headers(self.number, headers.items(), end_stream=True), end=True
        )

    async def data(self, data: bytes, *, end: bool = False, pad: int | None = None) -> None:
        """Send a piece of the body. Waits whenever the client's windows are used up."""
        view, overhead = memoryview(data), 0 if pad is None else pad + 1
        while True:
            if view:
                await self.until(lambda: self._window() > overhead)
            window = self._window() - overhead
            piece, view = view[:window], view[window:]
            last = end and not view
            self._send_data(bytes(piece), last, pad)
            await self.peer.flush()
            if not view:
                return

    async def reset(self, code: ErrorCodes) -> None:
        """Send RST_STREAM."""
        await self._send(lambda: self.peer.h2.reset_stream(self.number, code), end=True)

    def _window(self) -> int:
        if self.reset_by_client is not None:
            return 0
        return min(self.peer.h2.local_flow_control_window(self.number), self.peer.h2.max_outbound_frame_size)

    def _send_data(self, piece: bytes, last: bool, pad: int | None) -> None:
        with self._stream_gone_if_ended():
            self.peer.h2.send_data(self.number, piece, end_stream=last, pad_length=pad)
        if last:
            self._ended()

    async def _send(self, send: Callable[[], None], *, end: bool) -> None:
        with self._stream_gone_if_ended():
            send()
        if end:
            self._ended()
        await self.peer.flush()

    @contextlib.contextmanager
    def _stream_gone_if_ended(self) -> Iterator[None]:
        """Raise StreamGone in place of h2's error, if the client has ended the stream or the connection."""
        try:
            yield
        except (ProtocolError, KeyError):
            if self.reset_by_client is None and not self.peer.goaways:
                raise
            raise StreamGone from None

    def _ended(self) -> None:
        with self.server.change():
            self.peer.open.discard(self.number)
