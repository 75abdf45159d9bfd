"""TLS contexts, built once, and what went wrong in a handshake, in words."""

from __future__ import annotations

import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from llm_pool.exceptions import TLSFailed, reason

from ..config import TLS

__all__ = ["build_context", "describe", "server_name"]

MAX_SESSIONS = 100  # servers remembered; callers choose them

# Elsewhere each look at a session leaks it, some 6 KiB: https://github.com/python/cpython/issues/116810
RESUMES = sys.version_info >= (3, 13, 1) or (3, 12, 8) <= sys.version_info < (3, 13)


def build_context(config: TLS, *, http2: bool) -> ssl.SSLContext:
    """A client context. Reads files: not for an event loop's thread. Raises TLSFailed."""
    if config.context is not None:
        return config.context
    with _naming("ca_file", config.ca_file):
        context = ssl.create_default_context(cafile=config.ca_file)
    if not config.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if config.client_cert is not None:
        given = (config.client_cert,) if isinstance(config.client_cert, str) else config.client_cert
        certificate, key, password = (*given, None, None)[:3]
        with _naming("client_cert", certificate):
            # The empty password: without any, OpenSSL would ask on the terminal.
            context.load_cert_chain(certificate, key, password or "")
    if RESUMES:
        context.sslobject_class = _resuming()
    context.set_alpn_protocols(["h2", "http/1.1"] if http2 else ["http/1.1"])
    return context


def server_name(host: str) -> str:
    """The name that the server's certificate must hold: without the root's dot, without a zone."""
    return host.partition("%")[0].rstrip(".")


def describe(error: Exception) -> str:
    """The reason of a failed handshake, without the library's file names and line numbers."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate was refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return (error.reason or "no valid PEM").replace("_", " ").lower()
    if isinstance(error, ConnectionError):
        return "the connection was closed during the handshake"
    return reason(error)


def _resuming() -> type[ssl.SSLObject]:
    """TLS connections that offer the server the session of the last one to it (RFC 8446, section 2.2).

    asyncio has no argument for a session; the class of a context's connections is the way in. One thread's
    connections do not read another's session, which OpenSSL replaces whenever the server sends a new ticket.
    """
    latest: dict[tuple[int, str | None], ssl.SSLObject] = {}

    class Resuming(ssl.SSLObject):
        begun = False

        def do_handshake(self) -> None:
            key = (threading.get_ident(), self.server_hostname)
            last = latest.get(key)
            if not self.begun and last is not None and (session := last.session) is not None:
                self.session = session
            self.begun = True
            super().do_handshake()
            if len(latest) >= MAX_SESSIONS:
                latest.clear()
            latest[key] = self

    return Resuming


@contextmanager
def _naming(setting: str, path: str | None) -> Iterator[None]:
    """Say which setting's file is at fault."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise TLSFailed(f"the TLS setting {setting} ({path}) cannot be used: {describe(error)}") from error
