"""Stock httpx: ``httpx.AsyncHTTPTransport`` and the ``httpcore`` beneath it, a connection at a time."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

import anyio._backends._asyncio  # noqa: F401  httpcore would import it in the middle of a call
import h2.connection  # noqa: F401  and this
import httpcore
import httpx

from llm_pool.backends.connection import LibraryClient
from llm_pool.backends.dialer import BackendDialer, Descriptor
from llm_pool.backends.errors import broken_off, connect_failure, invalid_response, tls_failure
from llm_pool.backends.transfer import Transfer
from llm_pool.engine.config import Origin
from llm_pool.engine.dialer.proxy import Proxy
from llm_pool.exceptions import InvalidRequest, LLMPoolError, ProxyFailed, TLSFailed
from llm_pool.redaction import without_frames

__all__ = ["HTTPCoreDialer"]

# Mocks and instrumentation hook into httpx and httpcore, and have seen the call on its way in:
# a second time, from a context that is nobody's, would be once too often.
_handle = httpcore.AsyncConnectionPool.handle_async_request

ONE = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=None)
CONNECTS = ("connect_tcp", "connect_unix_socket")
TUNNELS, STARTS_TLS, SENDS = "tunnel", "start_tls", "send_request_headers"


class HTTPCoreDialer(BackendDialer):
    """Gives connections that are stock transports of httpx's."""

    def _client(self, origin: Origin, context: ssl.SSLContext | None, proxy: Proxy | None) -> LibraryClient:
        http2 = self._config.http2
        transport = httpx.AsyncHTTPTransport(
            # A context is asked for even where no TLS is spoken; an empty one costs nothing.
            verify=context or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            trust_env=False,
            http1=http2 != "prior-knowledge",
            http2=bool(http2),
            limits=ONE,
            proxy=None if proxy is None else httpx.Proxy(f"http://{proxy}", headers=_decoded(proxy)),
            uds=self._config.uds,
        )
        return _Client(self, transport, origin, proxy, self._config.uds)


class _Client:
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
        self._origin = origin
        self._proxy = proxy
        self._uds = uds
        self._descriptor: Descriptor | None = None

    def __repr__(self) -> str:
        return "httpcore"

    async def send(self, transfer: Transfer) -> None:
        """See ``LibraryClient.send``."""
        stages = _Stages(self, transfer)
        try:
            response = await _handle(self._pool, _to_httpcore(transfer, stages))
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
        except Exception as error:  # noqa: BLE001  whatever it is, it becomes one of ours
            raise self._explain(error, transfer, stages.last) from without_frames(error)
        finally:
            # httpcore lets go of a connection whose caller leaves in the middle of the TLS handshake.
            if stages.last == STARTS_TLS and stages.stream is not None:
                await stages.stream.aclose()

    async def aclose(self) -> None:
        """See ``LibraryClient.aclose``."""
        await self._pool.aclose()

    def opened(self, stream: httpcore.AsyncNetworkStream) -> None:
        """A connection was made."""
        self._descriptor = self._dialer.opened(stream.get_extra_info("socket"))

    def _explain(self, error: Exception, transfer: Transfer, stage: str) -> LLMPoolError:
        match error:
            case LLMPoolError():
                return error
            case httpcore.ProxyError():
                return self._no_tunnel(f"it answered {str(error)!r}")
            case httpcore.LocalProtocolError():
                return InvalidRequest(f"the request cannot be sent as it is: {error}")
            case httpcore.RemoteProtocolError() if stage == SENDS and not _is_cut(error):
                return invalid_response(transfer.exchange, error)
        return broken_off(transfer.exchange, error) if stage == SENDS else self._not_connected(error, stage)

    def _not_connected(self, error: Exception, stage: str) -> LLMPoolError:
        if stage == TUNNELS:
            babble = isinstance(error, httpcore.RemoteProtocolError) and not _is_cut(error)
            return self._no_tunnel("it answered what is no HTTP" if babble else "it closed the connection")
        failure = connect_failure(error, self._origin, self._proxy, self._uds)
        if stage == STARTS_TLS and not isinstance(failure, TLSFailed):
            return tls_failure(error, self._origin)
        return failure

    def _no_tunnel(self, why: str) -> ProxyFailed:
        return ProxyFailed(f"the proxy {self._proxy} opened no tunnel to {self._origin}: {why}")


class _Stages:
    """Follows a call by httpcore's trace: what it does, told as it begins and as it ends."""

    def __init__(self, client: _Client, transfer: Transfer) -> None:
        self.last = ""
        self.stream: httpcore.AsyncNetworkStream | None = None
        self._client = client
        self._call = transfer

    async def __call__(self, name: str, info: Mapping[str, Any]) -> None:
        layer, stage, moment = name.split(".")
        if moment == "started":
            self._started(layer, stage, info)
        elif moment == "complete" and stage in CONNECTS:
            self.stream = info["return_value"]
            self._client.opened(info["return_value"])

    def _started(self, layer: str, stage: str, info: Mapping[str, Any]) -> None:
        if stage in CONNECTS:
            self._call.dials()
        if stage == SENDS and info["request"].method == b"CONNECT":
            stage = TUNNELS
        if stage == SENDS:
            self._call.is_sent(http2=layer == "http2")
        if stage in (TUNNELS, STARTS_TLS, SENDS, *CONNECTS):
            self.last = stage


def _to_httpcore(transfer: Transfer, stages: _Stages) -> httpcore.Request:
    request = transfer.request
    scheme, host, port = request.origin
    return httpcore.Request(
        request.method,
        httpcore.URL(scheme=scheme.encode(), host=host.encode(), port=port, target=request.target),
        headers=request.headers,
        content=transfer.upload.pieces() if transfer.upload.exists else None,
        extensions={"trace": stages},
    )


def _decoded(proxy: Proxy) -> list[tuple[str, str]]:
    return [(name.decode(), value.decode()) for name, value in proxy.headers]


def _is_cut(error: httpcore.RemoteProtocolError) -> bool:
    """httpcore tells an end that came too early from bytes that are no HTTP by its words only."""
    return "disconnected" in str(error) or "closed connection" in str(error)
