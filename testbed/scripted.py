"""A server with its own thread and event loop that plays a script on each connection, and counts events."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from testbed.board import WAIT_SECONDS, Board, Gate
from testbed.connection import ClientGone, ReceivedRequest, ServerConnection

if TYPE_CHECKING:
    import ssl

__all__ = ["Disconnect", "Script", "ScriptedServer"]

Script = Callable[[ServerConnection], Awaitable[None]]
"""What a server does on a connection. It is repeated until one side has ended the connection."""

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Disconnect:
    """A connection that the client has ended.

    ``connection``  its number
    ``reason``      "eof" (FIN) or "reset" (RST)
    """

    connection: int
    reason: str


class ScriptedServer(Board):
    """Plays ``script`` on each connection. A context manager; all methods are thread-safe.

    The counters are exact, and can be waited for: ``server.wait_until(lambda s: s.connections_open == 0)``.
    With ``tls`` it uses TLS; ``before_handshake`` (a gate's ``passage``, say) is awaited between the TCP
    accept and the TLS handshake. ``uds`` is the path of a Unix socket to listen on in place of TCP.
    """

    def __init__(
        self,
        script: Script,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        before_handshake: Callable[[], Awaitable[None]] | None = None,
        uds: str | Path | None = None,
    ) -> None:
        super().__init__()
        self.script = script
        self.host, self.port, self.uds = host, port, str(uds) if uds else None
        self.connections_accepted = 0
        self.peak_open = 0
        """The most connections that clients had open at one time, by the kernel's state at each accept."""
        self.handshakes = 0
        self.handshake_failures: list[OSError] = []
        self.requests: list[ReceivedRequest] = []
        self.disconnects: list[Disconnect] = []
        self.errors: list[Exception] = []
        """The errors of scripts; ``stop`` raises the first."""
        self.connections: list[ServerConnection] = []
        """Every connection since the start, by number."""
        self._open: set[ServerConnection] = set()
        self._tls, self._before_handshake = tls, before_handshake
        self._gates: dict[str, Gate] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._listener: socket.socket
        self._thread = threading.Thread(
            target=self._run, name=f"scripted-server-{next(_numbers)}", daemon=True
        )

    # Its address.

    @property
    def scheme(self) -> str:
        return "https" if self._tls else "http"

    @property
    def origin(self) -> tuple[str, str, int]:
        """(scheme, host, port)."""
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        """ "host:port", as in a Host header."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}"

    # Starting and stopping.

    def start(self) -> Self:
        self._listener = self._bind()
        self._listener.listen(1024)
        self._thread.start()
        self._call(self._start_accepting())
        return self

    def stop(self) -> None:
        """Abort every connection and end the thread. Raises the first error of a script. May be repeated."""
        if self._thread.is_alive():
            self._call(self._end())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(WAIT_SECONDS)
            assert not self._thread.is_alive(), f"{self} does not stop"
            self._listener.close()
            if self.uds:
                Path(self.uds).unlink(missing_ok=True)
        if self.errors:
            raise self.errors.pop(0)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.stop()
        except BaseException:
            if kind is None:
                raise

    def refuse(self) -> None:
        """Refuse new connections, and keep the open ones and the port."""
        self._call(self._refuse())

    def listen_again(self) -> None:
        """Accept connections again, after ``refuse``."""
        self._listener.listen(1024)
        self._call(self._start_accepting())

    # What happened.

    @property
    def connections_open(self) -> int:
        """The number of connections that neither side has ended."""
        return len(self._open)

    def gate(self, name: str) -> Gate:
        """The server's gate of this name. It is shut until a test opens it."""
        with self._changed:
            return self._gates.setdefault(name, Gate(name, self))

    def wait_until(self, predicate: Callable[[Self], object], timeout: float = WAIT_SECONDS) -> None:
        """Block until ``predicate(self)`` is true. Raises AssertionError after ``timeout`` seconds."""
        self.wait(lambda: predicate(self), "the server is as expected", timeout)

    async def await_until(self, predicate: Callable[[Self], object], timeout: float = WAIT_SECONDS) -> None:
        """As ``wait_until``, on the running loop."""
        await self.await_(lambda: predicate(self), "the server is as expected", timeout)

    def wait_requests(self, count: int = 1, timeout: float = WAIT_SECONDS) -> None:
        """Block until ``count`` requests have been received."""
        self.wait(lambda: len(self.requests) >= count, f"{count} requests have come", timeout)

    async def await_requests(self, count: int = 1, timeout: float = WAIT_SECONDS) -> None:
        """As ``wait_requests``, on the running loop."""
        await self.await_(lambda: len(self.requests) >= count, f"{count} requests have come", timeout)

    def __str__(self) -> str:
        return (
            f"{self.url}: {self.connections_accepted} accepted, {self.connections_open} open, "
            f"{self.peak_open} peak, {len(self.requests)} requests, {len(self.disconnects)} left by clients, "
            f"{super().__str__()}, errors: {self.errors}"
        )

    # On the server's own loop.

    def _bind(self) -> socket.socket:
        family = socket.AF_UNIX if self.uds else socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(self.uds or (self.host, self.port))
        listener.setblocking(False)
        if not self.uds:
            self.port = listener.getsockname()[1]
        return listener

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_SECONDS)

    async def _start_accepting(self) -> None:
        # Not a task in sock_accept: cancelling that while a client connects loses the connection.
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:  # the client has closed the connection
            return
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = ServerConnection(self, sock, len(self.connections))
        with self.change():
            self.connections_accepted += 1
            self.connections.append(connection)
            self._open.add(connection)
            self.peak_open = max(self.peak_open, sum(each.still_held for each in self._open))
        task = self._loop.create_task(self._play(connection, sock))
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._task_ended(task, connection, sock))

    async def _play(self, connection: ServerConnection, sock: socket.socket) -> None:
        if not await self._establish(connection, sock):
            return
        try:
            while not connection.gone:
                await self.script(connection)
                await asyncio.sleep(0)  # a script that never waits must not block the loop
        except ClientGone:
            pass
        except Exception as error:  # noqa: BLE001 - stop() raises it, in the test's own thread
            with self.change():
                self.errors.append(error)
        finally:
            connection._transport.abort()

    async def _establish(self, connection: ServerConnection, sock: socket.socket) -> bool:
        """Give the socket to the connection, after the TLS handshake if there is one; False if that fails."""
        try:
            if self._before_handshake:
                await self._before_handshake()
            await self._loop.connect_accepted_socket(
                lambda: connection, sock, ssl=self._tls, ssl_shutdown_timeout=1.0 if self._tls else None
            )
        except OSError as error:  # ssl.SSLError is one
            self._not_established(connection, sock, error)
            return False
        with self.change():
            self.handshakes += bool(self._tls)
        return True

    def _task_ended(
        self, task: asyncio.Task[None], connection: ServerConnection, sock: socket.socket
    ) -> None:
        """Close the socket of a task that was cancelled before it gave the socket to the connection."""
        self._tasks.discard(task)
        if not connection.established:
            self._not_established(connection, sock)

    def _not_established(self, connection: ServerConnection, sock: socket.socket, *errors: OSError) -> None:
        sock.close()
        with self.change():
            self._open.discard(connection)
            self.handshake_failures.extend(errors)

    async def _refuse(self) -> None:
        self._loop.remove_reader(self._listener)
        self._listener.close()
        self._listener = self._bind()  # bound and not listening: the kernel refuses

    async def _end(self) -> None:
        self._loop.remove_reader(self._listener)
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.await_forever(lambda: not self._open)

    # For the connections.

    def _request_came(self, request: ReceivedRequest) -> None:
        with self.change():
            self.requests.append(request)

    def _connection_ended(self, connection: ServerConnection) -> None:
        with self.change():
            self._open.discard(connection)
            if connection.ended_by != "server":
                self.disconnects.append(Disconnect(connection.number, connection.ended_by or ""))
