"""Makes TLS contexts, and describes why handshakes failed."""

from __future__ import annotations

import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from llm_pool.exceptions import TLSFailed, reason

from ..config import TLS

__all__ = ["build_context", "describe", "server_name"]

MAX_SESSIONS = 100  # sessions kept for resumption; limited, since callers choose the origins

# Other versions leak about 6 KiB at each read of a session: https://github.com/python/cpython/issues/116810
CAN_RESUME = sys.version_info >= (3, 13, 1) or (3, 12, 8) <= sys.version_info < (3, 13)


def build_context(config: TLS, *, http2: bool) -> ssl.SSLContext:
    """Return an SSL context for client connections. With ``http2``, ALPN offers h2 before http/1.1.

    If ``config.context`` is set, it is returned unchanged. Otherwise this function reads files: call it on a
    thread without an event loop. Raises TLSFailed if a file cannot be used; the message names the setting.
    """
    if config.context is not None:
        return config.context
    with _naming_setting("ca_file", config.ca_file):
        context = ssl.create_default_context(cafile=config.ca_file)
    if not config.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if config.client_cert is not None:
        given = (config.client_cert,) if isinstance(config.client_cert, str) else config.client_cert
        certificate, key, password = (*given, None, None)[:3]
        with _naming_setting("client_cert", certificate):
            # Give OpenSSL an empty password rather than None, for which it would ask on the terminal.
            context.load_cert_chain(certificate, key, password or "")
    if CAN_RESUME:
        context.sslobject_class = _resuming_ssl_object()
    context.set_alpn_protocols(["h2", "http/1.1"] if http2 else ["http/1.1"])
    return context


def server_name(host: str) -> str:
    """Return the name that the server's certificate must have: ``host`` without a final dot or IPv6 zone."""
    return host.partition("%")[0].rstrip(".")


def describe(error: Exception) -> str:
    """Return in words why a TLS handshake failed, or why a PEM file could not be used.

    Omits the file names and line numbers of the ssl module.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate was refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return (error.reason or "no valid PEM").replace("_", " ").lower()
    if isinstance(error, ConnectionError):
        return "the connection was closed during the handshake"
    return reason(error)


def _resuming_ssl_object() -> type[ssl.SSLObject]:
    """Return an ``SSLObject`` class that resumes the last session with a server (RFC 8446, section 2.2).

    asyncio has no argument for a session, but it makes its connections from the context's
    ``sslobject_class``. Each thread has its own sessions: OpenSSL replaces a connection's session whenever
    the server sends a new ticket, and another thread must not read the session at the same time.
    """
    latest: dict[tuple[int, str | None], ssl.SSLObject] = {}

    class ResumingSSLObject(ssl.SSLObject):
        handshake_started = False

        def do_handshake(self) -> None:
            key = (threading.get_ident(), self.server_hostname)
            last = latest.get(key)
            if not self.handshake_started and last is not None and (session := last.session) is not None:
                self.session = session
            self.handshake_started = True
            super().do_handshake()
            if len(latest) >= MAX_SESSIONS:
                latest.clear()
            latest[key] = self

    return ResumingSSLObject


@contextmanager
def _naming_setting(setting: str, path: str | None) -> Iterator[None]:
    """Replace an OSError or ValueError of the ``with`` block by a TLSFailed that names setting and file."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise TLSFailed(f"the TLS setting {setting} ({path}) cannot be used: {describe(error)}") from error
