"""Recognizes that a server requires or refuses a client certificate.

In TLS 1.2 the refusal ends the handshake. In TLS 1.3 the client's side of the handshake ends before the
server has checked the client's certificate (RFC 8446, section 2). The refusal then arrives as an alert in
place of the response.
"""

from __future__ import annotations

import ssl

from llm_pool.exceptions import TLSFailed
from llm_pool.redaction import without_frames

from .config import Origin

__all__ = ["client_cert_error", "client_cert_refusal"]

# The alerts about a certificate (RFC 8446, section 6.2), as the ends of OpenSSL's names for them. A server
# sends them about the client's certificate: that is the only one that it gets.
REQUIRED = "CERTIFICATE_REQUIRED"
REFUSED = (
    "ACCESS_DENIED",
    "BAD_CERTIFICATE",
    "CERTIFICATE_EXPIRED",
    "CERTIFICATE_REVOKED",
    "CERTIFICATE_UNKNOWN",
    "UNKNOWN_CA",
    "UNSUPPORTED_CERTIFICATE",
)


def client_cert_refusal(error: BaseException | None) -> str | None:
    """Return a clause that says that the server requires or refuses a client certificate, and what to do.

    Return None if neither ``error`` nor an exception behind it is the alert of such a server.
    """
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__  # httpcore raises some from None: only a context
    alert = "" if error is None else (error.reason or "").partition("_ALERT_")[2]
    if alert == REQUIRED:
        return "the server requires a client certificate: set client_cert in TLS"
    if alert in REFUSED:
        why = alert.replace("_", " ").lower()
        return f"the server refused the client certificate, or requires one ({why}): check client_cert in TLS"
    return None


def client_cert_error(error: Exception | None, origin: Origin) -> TLSFailed | None:
    """Return the error for a connection to ``origin`` that was lost, without a response, with ``error``.

    Return None if the server did not refuse the client's certificate. Otherwise the server has processed no
    request of this connection.
    """
    refusal = client_cert_refusal(error)
    if error is None or refusal is None:
        return None
    failed = TLSFailed(f"no TLS connection to {origin}: {refusal}")
    failed.__cause__ = without_frames(error)
    return failed
