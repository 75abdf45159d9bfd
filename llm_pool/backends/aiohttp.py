"""aiohttp: a ``ClientSession`` and its ``TCPConnector`` for each connection."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.connector import NEEDS_CLEANUP_CLOSED
from multidict import CIMultiDict
from yarl import URL

from llm_pool.backends.connection import LibraryClient
from llm_pool.backends.dialer import BackendDialer, Descriptor
from llm_pool.backends.errors import broken_off, connect_failure, invalid_response
from llm_pool.backends.transfer import Transfer
from llm_pool.engine.config import Origin
from llm_pool.engine.dialer.proxy import Proxy
from llm_pool.engine.dialer.resolver import Resolver
from llm_pool.engine.dialer.tls import server_name
from llm_pool.engine.request import Headers
from llm_pool.exceptions import InvalidRequest, LLMPoolError, ProxyFailed, TLSFailed
from llm_pool.redaction import without_frames

if TYPE_CHECKING:
    from types import SimpleNamespace

    from aiohttp.client_proto import ResponseHandler

__all__ = ["AiohttpDialer"]

MAX_LINE = 64 * 1024  # bytes of a status line or header
NEVER = 10 * 365 * 86400.0  # seconds: it is the ledger that ends idle connections
ADDED_BY_ITSELF = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
ADDED_ANYWAY = b"transfer-encoding"  # where no length is given
NO_TIMEOUTS = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None)


class AiohttpDialer(BackendDialer):
    """Gives connections that are sessions of aiohttp's. Their names are looked up in one DNS cache."""

    def _client(self, origin: Origin, context: ssl.SSLContext | None, proxy: Proxy | None) -> LibraryClient:
        if self._config.uds is not None and context is not None:
            raise TLSFailed(f"no TLS connection to {origin}: aiohttp speaks none over a Unix domain socket")
        return _Client(self, origin, context, proxy)

    def connector(self, opened: Callable[[ResponseHandler], None]) -> aiohttp.BaseConnector:
        """A connector for one connection; ``opened`` hears of each that it makes."""
        if self._config.uds is not None:
            return _UnixConnector(opened, path=self._config.uds, limit=1, keepalive_timeout=NEVER)
        return _TCPConnector(
            opened,
            limit=1,
            keepalive_timeout=NEVER,
            enable_cleanup_closed=NEEDS_CLEANUP_CLOSED,
            resolver=_Names(self._resolver),
            use_dns_cache=False,
        )

    def forget(self, host: str, port: int) -> None:
        """No connection could be made to the addresses of ``host``."""
        self._resolver.forget(host, port)

    @property
    def uds(self) -> str | None:
        """The path of the Unix domain socket in the place of every origin, if any."""
        return self._config.uds


class _Client:
    def __init__(
        self, dialer: AiohttpDialer, origin: Origin, context: ssl.SSLContext | None, proxy: Proxy | None
    ) -> None:
        self._dialer = dialer
        self._origin = origin
        self._proxy = proxy
        self._descriptor: Descriptor | None = None
        self._session = aiohttp.ClientSession(
            connector=dialer.connector(self._opened),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=ADDED_BY_ITSELF,
            timeout=NO_TIMEOUTS,
            trace_configs=[_trace()],
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
        )
        # aiohttp sends a GET or PUT again when a reused connection breaks; here the pool decides that.
        self._session._retry_connection = False
        self._options: dict[str, Any] = {"allow_redirects": False, "ssl": context or True}
        self._to_proxy: Headers = []
        if context is not None:
            self._options["server_hostname"] = server_name(origin.host)
        if proxy is not None:
            self._options["proxy"] = f"http://{proxy}"
            if context is not None:
                self._options["proxy_headers"] = _decoded(proxy.headers)
            else:
                self._to_proxy = proxy.headers

    def __repr__(self) -> str:
        return "aiohttp"

    async def send(self, transfer: Transfer) -> None:
        """See ``LibraryClient.send``."""
        try:
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
                if transfer.upload.whole:
                    response.release()
            finally:
                response.close()
        except Exception as error:  # noqa: BLE001  whatever it is, it becomes one of ours
            # Its repr would have what was sent, the key with it.
            cause = None if isinstance(error, aiohttp.ClientResponseError) else without_frames(error)
            raise self._explain(error, transfer) from cause

    async def aclose(self) -> None:
        """See ``LibraryClient.aclose``."""
        await self._session.close()

    async def _request(self, transfer: Transfer) -> aiohttp.ClientResponse:
        request = transfer.request
        headers = [pair for pair in request.headers if pair[0].lower() != ADDED_ANYWAY]
        return await self._session.request(
            request.method.decode("ascii"),
            URL(f"{self._origin}{request.target.decode('ascii')}", encoded=True),
            headers=_decoded(headers + self._to_proxy),
            data=transfer.upload.pieces() if transfer.upload.exists else None,
            trace_request_ctx=transfer,
            **self._options,
        )

    def _opened(self, protocol: ResponseHandler) -> None:
        assert protocol.transport is not None
        self._descriptor = self._dialer.opened(protocol.transport.get_extra_info("socket"))

    def _explain(self, error: Exception, transfer: Transfer) -> LLMPoolError:
        match error:
            case LLMPoolError():
                return error
            case aiohttp.ClientConnectorError():
                return self._not_connected(error)
            case aiohttp.ClientError() if transfer.is_dialing and self._proxy is not None:
                return self._no_tunnel(error)
            case aiohttp.ClientResponseError():
                return invalid_response(transfer.exchange, Exception(error.message))
            case aiohttp.InvalidURL() | UnicodeError() | ValueError():
                return InvalidRequest(f"the request cannot be sent as it is: {error}")
        return broken_off(transfer.exchange, error)

    def _not_connected(self, error: aiohttp.ClientConnectorError) -> LLMPoolError:
        stop = self._proxy or self._origin
        self._dialer.forget(stop.host, stop.port)
        cause = getattr(error, "certificate_error", error.os_error)
        return connect_failure(cause, self._origin, self._proxy, self._dialer.uds)

    def _no_tunnel(self, error: aiohttp.ClientError) -> ProxyFailed:
        match error:
            case aiohttp.ClientHttpProxyError():
                why = f"it answered '{error.status} {error.message}'"
            case aiohttp.ClientResponseError():
                why = "it answered what is no HTTP"
            case _:
                why = "it closed the connection"
        return ProxyFailed(f"the proxy {self._proxy} opened no tunnel to {self._origin}: {why}")


class _Names(AbstractResolver):
    """The engine's DNS cache for a connector of aiohttp's; each connector's own would know one name."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """See aiohttp. Raises DNSFailed, which goes through to the call."""
        return [
            ResolveResult(
                hostname=host,
                host=address[0],
                port=port,
                family=found,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for found, _, protocol, _, address in await self._resolver.resolve(host, port)
        ]

    async def close(self) -> None:
        """The cache belongs to the pool."""


class _Announcing(aiohttp.BaseConnector):
    """Tells of each connection that it makes."""

    def __init__(self, opened: Callable[[ResponseHandler], None], **options: Any) -> None:
        super().__init__(**options)
        self._opened = opened

    async def _create_connection(self, *args: Any) -> ResponseHandler:
        protocol = await super()._create_connection(*args)
        self._opened(protocol)
        return protocol


class _TCPConnector(_Announcing, aiohttp.TCPConnector):
    pass


class _UnixConnector(_Announcing, aiohttp.UnixConnector):
    pass


def _trace() -> aiohttp.TraceConfig:
    """Tells a call when it waits for a connection, and when it has one."""

    async def dials(_session: aiohttp.ClientSession, context: SimpleNamespace, _: object) -> None:
        context.trace_request_ctx.dials()

    async def is_sent(_session: aiohttp.ClientSession, context: SimpleNamespace, _: object) -> None:
        context.trace_request_ctx.is_sent(http2=False)

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_start.append(dials)
    trace.on_connection_create_end.append(is_sent)
    trace.on_connection_reuseconn.append(is_sent)
    return trace


def _decoded(headers: Headers) -> CIMultiDict[str]:
    """Raises UnicodeError for what aiohttp, which writes UTF-8, cannot send as it is."""
    return CIMultiDict((name.decode("ascii"), value.decode("utf-8")) for name, value in headers)
