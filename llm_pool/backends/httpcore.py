"""Makes connections through httpcore. Each uses its own ``httpx.AsyncHTTPTransport``, for one connection."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping
from typing import Any

import anyio._backends._asyncio  # noqa: F401  or httpcore would import it during a call
import h2.connection  # noqa: F401  (likewise)
import httpcore
import httpx

from llm_pool.backends.connection import LibraryClient
from llm_pool.backends.dialer import BackendDialer, Descriptor
from llm_pool.backends.errors import (
    connect_error,
    disconnect_error,
    protocol_error,
    proxy_tls_error,
    request_error,
    tls_error,
    tunnel_error,
)
from llm_pool.backends.network import FrameTracker, ReportingBackend
from llm_pool.backends.transfer import Transfer
from llm_pool.engine.config import Origin
from llm_pool.engine.dialer.proxy import Proxy
from llm_pool.exceptions import LLMPoolError, TLSFailed
from llm_pool.redaction import without_frames

__all__ = ["HTTPCoreDialer"]

# Stored at import. Mocks and instrumentation that replace the method later intercept a call before the call
# enters the pool. They must not intercept the call again here.
_handle_request = httpcore.AsyncConnectionPool.handle_async_request

_hpack_logger = logging.getLogger("hpack.hpack")
if _hpack_logger.level == logging.NOTSET:
    _hpack_logger.setLevel(logging.INFO)  # its debug messages contain every header, keys included

ONE_CONNECTION = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=None)

# Stages of a call, with the names that httpcore's trace uses; TUNNEL and PROXY_TLS are names of this module.
# In TUNNEL the head of a CONNECT request is sent, in PROXY_TLS the handshake is with the proxy.
CONNECT = ("connect_tcp", "connect_unix_socket")
TUNNEL, PROXY_TLS, START_TLS, SEND_HEAD = "tunnel", "proxy_tls", "start_tls", "send_request_headers"


class HTTPCoreDialer(BackendDialer):
    """Makes connections that use httpx transports, and so httpcore."""

    def _make_client(
        self,
        origin: Origin,
        context: ssl.SSLContext | None,
        proxy: Proxy | None,
        proxy_context: ssl.SSLContext | None,
    ) -> LibraryClient:
        if origin.tls_name is not None and proxy is not None:
            raise TLSFailed(
                f"no TLS connection to {origin}: through a proxy httpcore ignores sni_hostname; "
                "set ENGINE to 'native'"
            )
        http2 = self._config.http2
        transport = httpx.AsyncHTTPTransport(
            # httpx needs a context even without TLS. Its default would load the CA certificates.
            verify=context or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            trust_env=False,
            http1=http2 != "prior-knowledge",
            http2=bool(http2),
            limits=ONE_CONNECTION,
            proxy=(
                None
                if proxy is None
                else httpx.Proxy(proxy.url, headers=_decoded(proxy), ssl_context=proxy_context)
            ),
            uds=self._config.uds,
        )
        return _Client(self, transport, origin, proxy, self._config.uds)


class _Client:
    """A ``LibraryClient`` that sends through the httpcore pool of one httpx transport."""

    def __init__(
        self,
        dialer: HTTPCoreDialer,
        transport: httpx.AsyncHTTPTransport,
        origin: Origin,
        proxy: Proxy | None,
        uds: str | None,
    ) -> None:
        self._dialer = dialer
        self._pool = transport._pool
        self._pool._network_backend = ReportingBackend(self._pool._network_backend, self._on_received)
        self._receiving: dict[int, Transfer] = {}  # by the number of the HTTP/2 stream; 0 over HTTP/1.1
        self._frames = FrameTracker()
        self._http2 = False
        self._origin = origin
        self._proxy = proxy
        self._uds = uds
        self._descriptor: Descriptor | None = None
        self._stream: httpcore.AsyncNetworkStream | None = None  # of the last response

    def __repr__(self) -> str:
        return "httpcore"

    async def send(self, transfer: Transfer) -> None:
        """See ``LibraryClient.send``."""
        trace = _Trace(self, transfer)
        try:
            await self._close_if_unread()
            response = await _handle_request(self._pool, _build_request(transfer, trace))
            self._stream = response.extensions["network_stream"]
            try:
                transfer.on_head(
                    response.status,
                    response.extensions.get("reason_phrase", b""),
                    response.extensions["http_version"],
                    list(response.headers),
                )
                async for data in response.aiter_stream():
                    await transfer.on_data(data)
            finally:
                await response.aclose()
            transfer.surplus = _has_surplus(response)
        except Exception as error:  # noqa: BLE001  every error is translated
            raise self._translate(error, transfer, trace.stage) from without_frames(error)
        finally:
            self._receiving.pop(trace.stream_number, None)
            # httpcore does not close the socket of a call that is cancelled during the TLS handshake.
            if trace.stage in (PROXY_TLS, START_TLS) and trace.stream is not None:
                await trace.stream.aclose()

    async def aclose(self) -> None:
        """See ``LibraryClient.aclose``."""
        await self._pool.aclose()

    @property
    def uses_tls_to_proxy(self) -> bool:
        """Whether the first TLS handshake is with a proxy."""
        return self._proxy is not None and self._proxy.scheme == "https"

    async def _close_if_unread(self) -> None:
        """Close the connection if it is idle and its socket has unread input. httpcore then dials again.

        httpcore itself looks at the socket only over HTTP/1.1.
        """
        if self._stream is None or not self._stream.get_extra_info("is_readable"):
            return
        for connection in self._pool.connections:
            if connection.is_idle():
                await connection.aclose()

    def on_connected(self, stream: httpcore.AsyncNetworkStream) -> None:
        """Register the socket of ``stream``, which httpcore has opened."""
        self._descriptor = self._dialer.track_socket(stream.get_extra_info("socket"))
        self._frames = FrameTracker()

    def on_send_start(self, transfer: Transfer, stream_number: int, *, http2: bool) -> None:
        """Report received bytes to ``transfer``: over HTTP/2, those of the stream with this number."""
        self._http2 = http2
        self._receiving[stream_number] = transfer

    def _on_received(self, data: bytes) -> None:
        for number in self._frames.streams_in(data) if self._http2 else {0}:
            if data and (transfer := self._receiving.get(number)):
                transfer.on_received(len(data))

    def _translate(self, error: Exception, transfer: Transfer, stage: str) -> LLMPoolError:
        match error:
            case LLMPoolError():
                return error
            case httpcore.ProxyError():
                return tunnel_error(self._origin, self._proxy, f"it answered {str(error)!r}")
            case httpcore.LocalProtocolError():
                return request_error(error)
            case (
                httpcore.RemoteProtocolError() | ValueError() | LookupError()  # the last two: no status
            ) if stage == SEND_HEAD and not _is_early_close(error):
                return protocol_error(transfer.exchange, error)
        if stage == SEND_HEAD:
            return disconnect_error(transfer.exchange, error)
        return self._dial_error(error, stage)

    def _dial_error(self, error: Exception, stage: str) -> LLMPoolError:
        if stage == TUNNEL:
            not_http = isinstance(error, httpcore.RemoteProtocolError) and not _is_early_close(error)
            why = "it answered something that is not HTTP" if not_http else "it closed the connection"
            return tunnel_error(self._origin, self._proxy, why)
        if stage == PROXY_TLS and self._proxy is not None:
            return proxy_tls_error(error, self._proxy)
        translated = connect_error(error, self._origin, self._proxy, self._uds)
        if stage == START_TLS and not isinstance(translated, TLSFailed):
            return tls_error(error, self._origin)
        return translated


class _Trace:
    """A trace function for one request of httpcore. It reports the stages of the request to the transfer.

    httpcore calls the function with names such as "http11.send_request_headers.started".

    ``stage``          the last stage that has started: ``TUNNEL``, ``PROXY_TLS``, ``START_TLS``,
                       ``SEND_HEAD`` or one of ``CONNECT``; "" before the first
    ``stream``         the last network stream that httpcore has opened for the request; None if there is none
    ``stream_number``  the number of the request's HTTP/2 stream; 0 over HTTP/1.1; -1 before it is known
    """

    def __init__(self, client: _Client, transfer: Transfer) -> None:
        self.stage = ""
        self.stream: httpcore.AsyncNetworkStream | None = None
        self.stream_number = -1
        self._client = client
        self._transfer = transfer

    async def __call__(self, name: str, info: Mapping[str, Any]) -> None:
        layer, stage, moment = name.split(".")
        if moment == "started":
            self._on_start(layer, stage, info)
        elif moment == "complete" and stage in CONNECT:
            self.stream = info["return_value"]
            self._client.on_connected(info["return_value"])

    def _on_start(self, layer: str, stage: str, info: Mapping[str, Any]) -> None:
        if stage in CONNECT:
            self._transfer.on_dial_start()
        if stage == SEND_HEAD and info["request"].method == b"CONNECT":
            stage = TUNNEL
        if stage == START_TLS and self.stage in CONNECT and self._client.uses_tls_to_proxy:
            stage = PROXY_TLS
        if stage == SEND_HEAD:
            self.stream_number = info.get("stream_id", 0)
            self._client.on_send_start(self._transfer, self.stream_number, http2=layer == "http2")
            self._transfer.on_send_start(http2=layer == "http2")
        if stage in (TUNNEL, PROXY_TLS, START_TLS, SEND_HEAD, *CONNECT):
            self.stage = stage


def _build_request(transfer: Transfer, trace: _Trace) -> httpcore.Request:
    request = transfer.request
    scheme, host, port, tls_name = request.origin
    return httpcore.Request(
        request.head.method,
        httpcore.URL(scheme=scheme.encode(), host=host.encode(), port=port, target=request.head.target),
        headers=request.head.framed(request.body),
        content=transfer.upload.pieces() if transfer.upload.has_body else None,
        extensions={"trace": trace, "sni_hostname": tls_name},
    )


def _has_surplus(response: httpcore.Response) -> bool:
    """Return whether bytes have arrived after the end of an HTTP/1.1 response.

    httpcore would return them as the next response.
    """
    state = getattr(response.stream._stream._connection, "_h11_state", None)  # type: ignore[union-attr]
    if state is None:
        return False  # HTTP/2
    tls: ssl.SSLObject | None = response.extensions["network_stream"].get_extra_info("ssl_object")
    return bool(state.trailing_data[0]) or (tls is not None and _has_record(tls))


def _has_record(tls: ssl.SSLObject) -> bool:
    """Return whether a TLS connection has received bytes, or its end, that were not read."""
    try:
        tls.read(1)
    except ssl.SSLWantReadError:
        return False
    return True


def _decoded(proxy: Proxy) -> list[tuple[str, str]]:
    return [(name.decode(), value.decode()) for name, value in proxy.headers]


def _is_early_close(error: Exception) -> bool:
    """Return whether ``error`` means that the server or the proxy closed the connection.

    Otherwise the server or the proxy sent something that is not HTTP.
    """
    # httpcore raises the same class for both; only the message differs.
    return "disconnected" in str(error) or "closed connection" in str(error)
