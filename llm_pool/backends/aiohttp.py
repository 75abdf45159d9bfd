"""Makes connections through aiohttp. Each uses its own ``ClientSession`` and its own connector."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from multidict import CIMultiDict
from yarl import URL

from llm_pool.backends.connection import LibraryClient
from llm_pool.backends.dialer import BackendDialer, Descriptor
from llm_pool.backends.errors import (
    connect_error,
    disconnect_error,
    protocol_error,
    proxy_tls_error,
    request_error,
    tunnel_error,
)
from llm_pool.backends.transfer import Transfer
from llm_pool.engine.closing import abort
from llm_pool.engine.config import Origin
from llm_pool.engine.dialer.proxy import Proxy
from llm_pool.engine.dialer.resolver import Resolver
from llm_pool.engine.dialer.tls import server_name
from llm_pool.engine.head import Headers
from llm_pool.engine.unread import unread_check
from llm_pool.exceptions import LLMPoolError, ProxyFailed, TLSFailed
from llm_pool.redaction import without_frames

if TYPE_CHECKING:
    from types import SimpleNamespace

__all__ = ["AiohttpDialer"]

MAX_LINE = 64 * 1024  # bytes of a status line or header
NO_EXPIRY = 10 * 365 * 86400.0  # seconds; practically never, since the ledger closes idle connections
AUTO_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")  # aiohttp must not add them
TRANSFER_ENCODING = b"transfer-encoding"  # aiohttp itself adds it if a body has no Content-Length
NO_TIMEOUTS = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None)


class AiohttpDialer(BackendDialer):
    """Makes connections that use aiohttp's sessions. All sessions share the DNS cache of the dialer."""

    def _make_client(
        self,
        origin: Origin,
        context: ssl.SSLContext | None,
        proxy: Proxy | None,
        proxy_context: ssl.SSLContext | None,
    ) -> LibraryClient:
        if self._config.uds is not None and context is not None:
            raise TLSFailed(f"no TLS connection to {origin}: aiohttp supports none over a Unix domain socket")
        return _Client(self, origin, context, proxy, proxy_context)

    def make_connector(
        self, on_connected: Callable[[_Protocol], None], on_received: Callable[[int], None]
    ) -> aiohttp.BaseConnector:
        """Return an aiohttp connector that holds one connection at a time.

        The connector calls ``on_connected`` with the protocol of each new connection, and ``on_received``
        with the number of bytes that a connection has received.
        """
        if self._config.uds is not None:
            return _UnixConnector(
                on_connected, on_received, path=self._config.uds, limit=1, keepalive_timeout=NO_EXPIRY
            )
        return _TCPConnector(
            on_connected,
            on_received,
            limit=1,
            keepalive_timeout=NO_EXPIRY,
            resolver=_CachedResolver(self._resolver),
            use_dns_cache=False,
        )

    def forget_addresses(self, host: str, port: int) -> None:
        """Make the cached addresses of ``host`` and ``port`` expire now. Called after a dial has failed."""
        self._resolver.forget(host, port)

    @property
    def uds(self) -> str | None:
        """The path of the Unix domain socket that replaces every origin's address, or None."""
        return self._config.uds


class _Client:
    """A ``LibraryClient`` that sends through one session of aiohttp."""

    def __init__(
        self,
        dialer: AiohttpDialer,
        origin: Origin,
        context: ssl.SSLContext | None,
        proxy: Proxy | None,
        proxy_context: ssl.SSLContext | None,
    ) -> None:
        self._dialer = dialer
        self._origin = origin
        self._proxy = proxy
        self._protocol: _Protocol | None = None
        self._transport: asyncio.Transport | None = None
        self._descriptor: Descriptor | None = None
        self._transfer: Transfer | None = None  # the call in progress
        self._session = aiohttp.ClientSession(
            connector=dialer.make_connector(self._on_connected, self._on_received),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=AUTO_HEADERS,
            timeout=NO_TIMEOUTS,
            trace_configs=[_make_trace()],
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
        )
        # Otherwise aiohttp sends a GET or PUT again if a reused connection breaks. The pool does that itself.
        self._session._retry_connection = False
        self._options: dict[str, Any] = {"allow_redirects": False, "ssl": context or proxy_context or True}
        self._proxy_headers: Headers = []
        if context is not None:
            self._options["server_hostname"] = server_name(origin.tls_name or origin.host)
        if proxy is not None:
            self._options["proxy"] = proxy.url
            if context is not None:
                self._options["proxy_headers"] = _decoded(proxy.headers)
            else:
                self._proxy_headers = proxy.headers

    def __repr__(self) -> str:
        return "aiohttp"

    async def send(self, transfer: Transfer) -> None:
        """See ``LibraryClient.send``."""
        self._transfer = transfer
        try:
            if self._protocol is not None:
                self._protocol.end_idle()
            response = await self._request(transfer)
            try:
                version = response.version or aiohttp.HttpVersion11
                transfer.on_head(
                    response.status,
                    (response.reason or "").encode("utf-8", "surrogateescape"),
                    b"HTTP/%d.%d" % (version.major, version.minor),
                    list(response.raw_headers),
                )
                async for data in response.content.iter_any():
                    await transfer.on_data(data)
                if transfer.upload.complete:
                    response.release()
                    assert self._protocol is not None
                    self._protocol.idle = True
            finally:
                response.close()
        except Exception as error:  # noqa: BLE001  every error is translated
            # A ClientResponseError contains the request's headers, and so the key: it must not be the cause.
            cause = None if isinstance(error, aiohttp.ClientResponseError) else without_frames(error)
            raise self._translate(error, transfer) from cause
        finally:
            self._transfer = None

    async def aclose(self) -> None:
        """See ``LibraryClient.aclose``."""
        self._abort()
        await self._session.close()

    async def _request(self, transfer: Transfer) -> aiohttp.ClientResponse:
        request = transfer.request
        headers = [pair for pair in request.head.framed(request.body) if pair[0].lower() != TRANSFER_ENCODING]
        return await self._session.request(
            request.head.method.decode("ascii"),
            URL(f"{self._origin}{request.head.target.decode('ascii')}", encoded=True),
            headers=_decoded(headers + self._proxy_headers),
            data=transfer.upload.pieces() if transfer.upload.has_body else None,
            trace_request_ctx=transfer,
            **self._options,
        )

    def _on_connected(self, protocol: _Protocol) -> None:
        assert protocol.transport is not None
        self._abort()
        self._protocol, self._transport = protocol, protocol.transport
        self._descriptor = self._dialer.track_socket(self._transport.get_extra_info("socket"))

    def _on_received(self, size: int) -> None:
        if self._transfer is not None:
            self._transfer.on_received(size)

    def _abort(self) -> None:
        """Close the socket of the session's last connection at once.

        aiohttp itself closes the connection of a cancelled call. But the socket then stays open until the
        server has read the whole upload, or over TLS until the server has closed the connection too.
        """
        if self._transport is not None:
            abort(self._transport)

    def _translate(self, error: Exception, transfer: Transfer) -> LLMPoolError:
        match error:
            case LLMPoolError():
                return error
            case aiohttp.ClientConnectorError():
                return self._connector_error(error)
            case aiohttp.ClientError() if transfer.is_dialing and self._proxy is not None:
                return self._tunnel_error(error)
            case aiohttp.ClientResponseError():
                return protocol_error(transfer.exchange, Exception(error.message))
            case aiohttp.InvalidURL() | UnicodeError() | ValueError():
                return request_error(error)
        return disconnect_error(transfer.exchange, error)

    def _connector_error(self, error: aiohttp.ClientConnectorError) -> LLMPoolError:
        peer = self._proxy or self._origin
        self._dialer.forget_addresses(peer.host, peer.port)
        cause = getattr(error, "certificate_error", error.os_error)
        if isinstance(cause, ssl.SSLError) and self._proxy is not None and error.host == self._proxy.host:
            return proxy_tls_error(cause, self._proxy)
        return connect_error(cause, self._origin, self._proxy, self._dialer.uds)

    def _tunnel_error(self, error: aiohttp.ClientError) -> ProxyFailed:
        match error:
            case aiohttp.ClientHttpProxyError():
                why = f"it answered '{error.status} {error.message}'"
            case aiohttp.ClientResponseError():
                why = "it answered something that is not HTTP"
            case _:
                why = "it closed the connection"
        return tunnel_error(self._origin, self._proxy, why)


class _CachedResolver(AbstractResolver):
    """Resolves names for an aiohttp connector through the pool's DNS cache.

    A connector's own DNS cache would serve one connection only.
    """

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """See ``aiohttp.abc.AbstractResolver.resolve``.

        Raises DNSFailed if the lookup fails. aiohttp passes the error on to the call.
        """
        return [
            ResolveResult(
                hostname=host,
                host=address[0],
                port=port,
                family=address_family,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address_family, _, protocol, _, address in await self._resolver.resolve(host, port)
        ]

    async def close(self) -> None:
        """Do nothing: the DNS cache belongs to the pool."""


class _Protocol(ResponseHandler):
    """aiohttp's protocol of a connection. Calls ``on_received`` with the number of bytes of each read.

    Aborts the connection if it receives bytes between two calls: aiohttp itself would return them as the
    response to the next call.

    ``idle``  whether the last call has ended and the next one has not begun
    """

    def __init__(self, on_received: Callable[[int], None], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.idle = False
        self._on_received = on_received

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._has_unread = unread_check(cast("asyncio.Transport", transport))

    def data_received(self, data: bytes) -> None:
        if self.idle and data:
            self.abort()
            return
        super().data_received(data)
        if data:  # aiohttp itself calls this with b"" to go on parsing
            self._on_received(len(data))

    def end_idle(self) -> None:
        """Begin a call. Abort the connection if its socket has unread input: aiohttp then dials again."""
        if self.is_connected() and self._has_unread():
            self.abort()
        self.idle = False


class _ReportingConnector(aiohttp.BaseConnector):
    """A connector that calls ``on_connected`` and ``on_received``; see ``AiohttpDialer.make_connector``."""

    def __init__(
        self, on_connected: Callable[[_Protocol], None], on_received: Callable[[int], None], **options: Any
    ) -> None:
        super().__init__(**options)
        self._on_connected = on_connected
        self._factory = cast("partial[ResponseHandler]", partial(_Protocol, on_received, loop=self._loop))

    async def _create_connection(self, *args: Any) -> ResponseHandler:
        protocol = await super()._create_connection(*args)
        self._on_connected(cast("_Protocol", protocol))
        return protocol


class _TCPConnector(_ReportingConnector, aiohttp.TCPConnector):
    pass


class _UnixConnector(_ReportingConnector, aiohttp.UnixConnector):
    pass


def _make_trace() -> aiohttp.TraceConfig:
    """Return an aiohttp trace. It reports the start of each dial and request to the call's ``Transfer``."""

    async def on_dial_start(_session: aiohttp.ClientSession, context: SimpleNamespace, _: object) -> None:
        context.trace_request_ctx.on_dial_start()

    async def on_send_start(_session: aiohttp.ClientSession, context: SimpleNamespace, _: object) -> None:
        context.trace_request_ctx.on_send_start(http2=False)

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_start.append(on_dial_start)
    trace.on_connection_create_end.append(on_send_start)
    trace.on_connection_reuseconn.append(on_send_start)
    return trace


def _decoded(headers: Headers) -> CIMultiDict[str]:
    """Return headers as text for aiohttp, which encodes them as UTF-8.

    Raises UnicodeError if a name is not ASCII or a value is not UTF-8.
    """
    return CIMultiDict((name.decode("ascii"), value.decode("utf-8")) for name, value in headers)
