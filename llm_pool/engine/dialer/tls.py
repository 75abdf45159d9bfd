"""Makes TLS contexts, and describes why handshakes failed."""

from __future__ import annotations

import os
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llm_pool.exceptions import TLSFailed, reason

from ..config import TLS
from ..tls_alerts import client_cert_refusal

__all__ = ["TLS_CLOSE_SECONDS", "build_context", "describe", "paths_of", "server_name"]

TLS_CLOSE_SECONDS = 1.0  # how long a close waits for the server's close_notify
MAX_SESSIONS = 100  # sessions kept for resumption; limited, since callers choose the origins

# Other versions leak about 6 KiB at each read of a session: https://github.com/python/cpython/issues/116810
CAN_RESUME = sys.version_info >= (3, 13, 1) or (3, 12, 8) <= sys.version_info < (3, 13)


def build_context(config: TLS, *, http2: bool) -> ssl.SSLContext:
    """Return an SSL context for client connections. With ``http2``, ALPN offers h2 before http/1.1.

    Reads files: call it on a thread without an event loop. Raises TLSFailed if a file cannot be used; the
    message names the setting. Ignores ``config.context``.
    """
    with _naming(f"the TLS setting ca_file ({config.ca_file})"):
        context = ssl.create_default_context(cafile=config.ca_file)
    if not config.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif config.ca_file is None and not context.cert_store_stats()["x509"]:
        _require_trust_store(context)
    certificate, key, password = _client_cert(config)
    if certificate is not None:
        with _naming(f"the TLS setting client_cert ({certificate})"):
            # Give OpenSSL an empty password rather than None, for which it would ask on the terminal.
            context.load_cert_chain(certificate, key, password or "")
    if CAN_RESUME:
        context.sslobject_class = _resuming_ssl_object()
    context.set_alpn_protocols(["h2", "http/1.1"] if http2 else ["http/1.1"])
    return context


def paths_of(config: TLS) -> list[str]:
    """Return the paths of the files and directories that a context is built from. Some may not exist."""
    if config.context is not None:
        return []
    if config.ca_file is not None:
        trusted = [config.ca_file]
    else:
        file, directories = _trust_store()
        trusted = [file, *directories]
    certificate, key, _ = _client_cert(config)
    return [path for path in (*trusted, certificate, key) if path is not None]


def server_name(host: str) -> str:
    """Return the name that the server's certificate must have: ``host`` without a final dot or IPv6 zone."""
    return host.partition("%")[0].rstrip(".")


def describe(error: Exception) -> str:
    """Return in words why a TLS handshake failed, or why a PEM file could not be used.

    Omits the file names and line numbers of the ssl module.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate was refused: {error.verify_message}"
    if (refusal := client_cert_refusal(error)) is not None:
        return refusal
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


def _client_cert(config: TLS) -> tuple[str | None, str | None, str | None]:
    """Return the paths of certificate and key, and the key's password. Each is None if it is not given."""
    given = config.client_cert if isinstance(config.client_cert, tuple) else (config.client_cert,)
    certificate, key, password = (*given, None, None)[:3]
    return certificate, key, password


def _trust_store() -> tuple[str, list[str]]:
    """Return the file and the directories of the system's trust store, where OpenSSL looks for them."""
    paths = ssl.get_default_verify_paths()
    file = os.environ.get(paths.openssl_cafile_env, paths.openssl_cafile)
    directories = os.environ.get(paths.openssl_capath_env, paths.openssl_capath)
    return file, directories.split(os.pathsep)


def _require_trust_store(context: ssl.SSLContext) -> None:
    """Raise TLSFailed if the system's trust store is missing, or if it could not be read.

    OpenSSL ignores all errors when it reads that store: a broken file, or no free file descriptor. It reads
    the directories later, when it looks for a certificate.
    """
    file, directories = _trust_store()
    with _naming(f"the system's trust store ({file})"):
        if Path(file).is_file():
            context.load_verify_locations(file)
            return
    for directory in directories:
        with _naming(f"the system's trust store ({directory})"):
            if Path(directory).is_dir() and any(Path(directory).iterdir()):
                return
    places = " nor ".join([file, *directories])
    raise TLSFailed(
        f"this machine has no trust store, neither {places}: install one, or set the TLS setting ca_file"
    )


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Replace an OSError or ValueError of the ``with`` block by a TLSFailed that names file and setting."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise TLSFailed(f"{what} cannot be used: {describe(error)}") from error
