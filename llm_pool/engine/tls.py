"""TLS contexts, built once, and what went wrong in a handshake, in words."""

from __future__ import annotations

import ssl

from .config import TLS
from .errors import TLSFailed

__all__ = ["build_context", "describe"]


def build_context(config: TLS, *, http2: bool) -> ssl.SSLContext:
    """A client context. Reads files: not for an event loop's thread. Raises TLSFailed."""
    if config.context is not None:
        return config.context
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
        if not config.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if config.client_cert is not None:
            pair = (config.client_cert,) if isinstance(config.client_cert, str) else config.client_cert
            context.load_cert_chain(*pair)
    except (OSError, ssl.SSLError) as error:
        raise TLSFailed(
            f"the TLS settings cannot be used: {error.__class__.__name__}: {error.strerror}"
        ) from error
    context.set_alpn_protocols(["h2", "http/1.1"] if http2 else ["http/1.1"])
    return context


def describe(error: ssl.SSLError) -> str:
    """The reason of a failed handshake, without the library's file names and line numbers."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate was refused: {error.verify_message}"
    return (error.reason or str(error)).replace("_", " ").lower()
