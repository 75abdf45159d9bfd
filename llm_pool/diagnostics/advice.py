"""Makes the finding for a failed dial: what went wrong, and advice.

The advice depends on the part of the dial that failed and on the cause of the error, not on a message.
"""

from __future__ import annotations

import errno
import socket
import ssl
from typing import NamedTuple

from llm_pool.conf.settings import PoolSettings
from llm_pool.diagnostics.dial import DialResult
from llm_pool.diagnostics.report import Finding, Level, sentence
from llm_pool.engine.config import Origin
from llm_pool.engine.dialer.proxy import proxy_for
from llm_pool.engine.tls_alerts import client_cert_refusal
from llm_pool.exceptions import ConnectTimeout, ProxyFailed

__all__ = ["CLIENT_CERT", "dial_failure"]


class _Advice(NamedTuple):
    code: str
    text: str


CERTIFICATES = {  # by OpenSSL's X509_V_ERR_* code
    9: _Advice(
        "tls.not_yet_valid", "Set this machine's clock; if it is right, the server's certificate is not."
    ),
    10: _Advice(
        "tls.expired",
        "The server's owner has to renew its certificate. If it is not expired, set this machine's clock.",
    ),
    18: _Advice(
        "tls.untrusted",
        "If this server is yours, give the path of its certificate as TLS['ca_file'] of {place}.",
    ),
    62: _Advice(
        "tls.wrong_name",
        "Set BASE_URL of {place} to a URL with a name of the certificate. If the name is right, "
        "another server answers there: check DNS and proxies.",
    ),
}
CERTIFICATES |= {64: CERTIFICATES[62]}
UNTRUSTED = _Advice(
    "tls.untrusted",
    "If your company's proxy or your own authority signed it, give that authority's certificate "
    "(a PEM file) as TLS['ca_file'] of {place}.",
)
HANDSHAKE = _Advice(
    "tls.failed",
    "Check that the port of BASE_URL in {place} speaks TLS (https://), and that no proxy is in between.",
)
CLIENT_CERT = _Advice(
    "tls.client_cert",
    "Give the certificate and the key that the server's owner has issued to you as TLS['client_cert'] of "
    "{place}. If they are there, check that they have not expired and are meant for this server.",
)
FILES = _Advice("tls.files", "Correct that file, or its path, so that this process can read it.")
NO_NAME = _Advice(
    "dns.no_such_name",
    "Check for a typo in {address}. A private name needs a private resolver.",
)
NO_PUBLIC_NAME = _Advice(
    "dns.no_such_name",
    "The name is the provider's own: this machine has no network, or its resolver has no public names.",
)
NO_RESOLVER = _Advice(
    "dns.unavailable",
    "The resolver does not answer: check this machine's network, and /etc/resolv.conf.",
)
SILENT = _Advice(
    "tcp.no_answer",
    "Packets are dropped on the way: let the firewall or security group allow this address and port, or "
    "set PROXY of {place} if this network needs one.",
)
REFUSED = _Advice(
    "tcp.refused", "Nothing is listening there: start the server, or correct host and port in {address}."
)
UNREACHABLE = _Advice(
    "tcp.unreachable",
    "There is no route: check this machine's network, VPN and firewall, or the container's network.",
)
NO_SOCKET_FILE = _Advice(
    "tcp.no_socket", "Check that the server runs and that UDS of {place} is the path it listens on."
)
TCP_FAILED = _Advice("tcp.failed", "Check BASE_URL and PROXY of {place}, and whatever is in between.")
TUNNEL = _Advice("tunnel.failed", "Check {address}, and its user and password.")
NO_TLS_ANSWER = _Advice(
    "tls.no_answer",
    "The server accepts the connection and sends nothing: check that BASE_URL of {place} is a TLS port.",
)
NO_DNS_ANSWER = _Advice("dns.no_answer", NO_RESOLVER.text)
NO_TUNNEL_ANSWER = _Advice("tunnel.no_answer", "The proxy is overloaded or has no way out: ask its operator.")
TIMEOUTS = {"dns": NO_DNS_ANSWER, "tcp": SILENT, "tunnel": NO_TUNNEL_ANSWER, "tls": NO_TLS_ANSWER}
SYSTEM = {
    errno.ECONNREFUSED: REFUSED,
    errno.ENETUNREACH: UNREACHABLE,
    errno.EHOSTUNREACH: UNREACHABLE,
    errno.ETIMEDOUT: SILENT,
    errno.ENOENT: NO_SOCKET_FILE,
}


def dial_failure(settings: PoolSettings, origin: Origin, dialed: DialResult) -> Finding:
    """Return the finding for a failed dial to ``origin``. ``dialed`` is the result of that dial."""
    assert dialed.error is not None and dialed.failed_in is not None
    advice = _advice(dialed.error, dialed.failed_in)
    if dialed.failed_in == "tls" and "tls" not in dialed.steps.seconds:
        advice = FILES  # the handshake has not begun
    place = f"LLM_POOL[{settings.alias!r}]"
    address = _proxy_setting(settings, origin) or _base_url_setting(settings)
    if advice is NO_NAME and address is None:
        advice = NO_PUBLIC_NAME
    text = sentence(dialed.error)
    if isinstance(dialed.error, ConnectTimeout):
        text = f"{text.rstrip('.')}: {_WAITED_FOR[dialed.failed_in]}."
    action = advice.text.format(place=place, address=address or f"BASE_URL of {place}")
    return Finding(advice.code, Level.ERROR, text, action)


def _proxy_setting(settings: PoolSettings, origin: Origin) -> str | None:
    """Return where the proxy's URL is set, in words; None if the dial uses no proxy.

    Returns "PROXY of LLM_POOL['default']" or the name of an environment variable; "the proxy's URL" if that
    URL is invalid.
    """
    try:
        proxy = None if settings.pool.uds else proxy_for(origin, settings.pool.proxy)
    except ProxyFailed:
        return "the proxy's URL"
    if proxy is None:
        return None
    return proxy.variable or f"PROXY of LLM_POOL[{settings.alias!r}]"


def _base_url_setting(settings: PoolSettings) -> str | None:
    """Return where BASE_URL is set, in words; None if BASE_URL is the provider's own URL.

    Returns "BASE_URL of LLM_POOL['default']" or the name of an environment variable.
    """
    if settings.base_url == settings.provider.base_url:
        return None
    if "BASE_URL" in settings.explicit_keys:
        return f"BASE_URL of LLM_POOL[{settings.alias!r}]"
    return settings.provider.base_url_env


_WAITED_FOR = {
    "dns": "the name service did not answer",
    "tcp": "the address did not answer",
    "tunnel": "the proxy opened no tunnel",
    "tls": "the TLS handshake did not finish",
}


def _advice(error: Exception, step: str) -> _Advice:
    cause = error.__cause__
    if isinstance(error, ConnectTimeout):
        return TIMEOUTS[step]
    match step:
        case "dns":
            temporary = isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_AGAIN
            return NO_RESOLVER if temporary else NO_NAME
        case "tls":
            if isinstance(cause, ssl.SSLCertVerificationError):
                return CERTIFICATES.get(cause.verify_code, UNTRUSTED)
            return HANDSHAKE if client_cert_refusal(error) is None else CLIENT_CERT
        case "tunnel":
            return TUNNEL
    number = cause.errno if isinstance(cause, OSError) else None
    return SYSTEM.get(number, TCP_FAILED) if number is not None else TCP_FAILED
