"""Chooses the proxy for an origin.

A pool without a proxy setting uses the environment: ``https_proxy`` or ``http_proxy``, by the scheme of the
origin, or else ``all_proxy``. The names can be in upper case too; a variable in lower case comes first.

The environment's proxy is not used for ``localhost``, names below it and loopback addresses, nor for the
entries of ``NO_PROXY``, each with an optional ``:port``:

``example.com``          the name and every name below it; also written ``.example.com`` or ``*.example.com``
``10.0.0.0/8``, ``::1``  networks and addresses; only a host that is an address is compared with them
``*``                    everything
"""

from __future__ import annotations

import base64
import ipaddress
import os
import re
import urllib.request
from dataclasses import dataclass, field
from importlib.util import find_spec
from urllib.parse import unquote, urlsplit

from llm_pool.exceptions import DNSFailed, ProxyFailed
from llm_pool.redaction import Hidden

from ..config import Origin, is_loopback
from ..head import Headers
from .resolver import check_host

__all__ = ["HAS_SOCKS", "Proxy", "authority", "parse_proxy", "proxy_for"]

HAS_SOCKS = find_spec("python_socks") is not None
FORM = "http://host:port, https://host:port or socks5://host:port"
DEFAULT_PORTS = {"http": 80, "https": 443, "socks5": 1080}
# With each, the proxy resolves the origin's name, as with httpx and Go. GNOME's ``all_proxy`` has ``socks``.
ALIASES = {"socks5h": "socks5", "socks": "socks5"}
MAX_SOCKS_LOGIN = 255  # bytes of the user, and of the password (RFC 1929, section 2)


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy.

    ``scheme``    "http"; "https", an HTTP proxy to which the connection uses TLS; or "socks5" (RFC 1928)
    ``host``      its name or address
    ``port``      its port
    ``login``     user and password, or None
    ``variable``  the environment variable that its URL comes from, or None
    """

    scheme: str
    host: str
    port: int
    login: tuple[str, str] | None = field(default=None, repr=False)
    variable: str | None = None

    @property
    def headers(self) -> Headers:
        """The headers that each request to an HTTP proxy carries."""
        return [] if self.login is None else [(b"Proxy-Authorization", b"Basic " + self._token)]

    @property
    def url(self) -> str:
        """Its URL, without user and password."""
        return f"{self.scheme}://{self}"

    def tunnels(self, origin: Origin) -> bool:
        """Return whether connections to ``origin`` use a tunnel. Otherwise the proxy forwards requests."""
        return self.scheme == "socks5" or origin.scheme == "https"

    def redact(self, response: bytes) -> bytes:
        """Return ``response`` with ``***`` in place of the credentials, which a proxy can repeat."""
        return response if self.login is None else response.replace(self._token, b"***")

    @property
    def _token(self) -> bytes:
        """User and password as the scheme Basic encodes them (RFC 7617, section 2)."""
        assert self.login is not None
        return base64.b64encode(":".join(self.login).encode())

    def __str__(self) -> str:
        return authority(self.host, self.port)


def proxy_for(origin: Origin, url: str | None) -> Proxy | None:
    """Return the proxy for an origin, or None to connect directly.

    ``url``  the proxy's URL; ``""`` for no proxy; None to use the proxy from the environment

    Raises ProxyFailed if the URL is not that of a proxy (see ``parse_proxy``).
    """
    variable = None
    if url is None:
        variable, url = _from_environment(origin)
    return parse_proxy(url, variable) if url else None


def parse_proxy(url: str, variable: str | None = None) -> Proxy:
    """Return the proxy for a URL ``scheme://user:password@host:port``. Only the host is required.

    The scheme is http, which is also used if there is none, https, socks5, socks5h or socks. ``variable``:
    the environment variable that the URL comes from, or None. Raises ProxyFailed if the URL has another form,
    or if the package for SOCKS is not installed. The error does not show the password.
    """
    which = f"the environment variable {variable}" if variable else "the proxy's URL"
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        scheme = ALIASES.get(parts.scheme, parts.scheme)
        host, port = parts.hostname or "", parts.port or DEFAULT_PORTS.get(scheme, 80)
        check_host(host, port)
    except (ValueError, DNSFailed):  # the message of either error can show a part of the password
        raise ProxyFailed(f"{which} is not of the form {FORM}") from None
    if scheme not in DEFAULT_PORTS:
        raise ProxyFailed(f"{which} is {scheme}://{host}, and not of the form {FORM}")
    login = None
    if parts.username is not None:
        login = Hidden(unquote(parts.username)), Hidden(unquote(parts.password or ""))
    if scheme == "socks5":
        _check_socks(which, login)
    return Proxy(scheme, host, port, login, variable)


def _check_socks(which: str, login: tuple[str, str] | None) -> None:
    if not HAS_SOCKS:
        install = 'python -m pip install "django-llm-pool[socks]"'
        raise ProxyFailed(f"{which} is a SOCKS proxy, for which a package is missing; type: {install}")
    for part in login or ():
        if not (part.isascii() and 0 < len(part) <= MAX_SOCKS_LOGIN):
            limit = f"of 1 to {MAX_SOCKS_LOGIN} ASCII characters"
            raise ProxyFailed(f"{which} needs both a user and a password, each {limit}, or neither")


def _from_environment(origin: Origin) -> tuple[str | None, str | None]:
    """Return the name and the value of the environment variable with the proxy for ``origin``.

    The value is None if no such variable is set. Both are None if ``origin`` is on a loopback host or matches
    an entry of ``NO_PROXY``.
    """
    proxies = urllib.request.getproxies_environment()
    host = origin.host.lower().rstrip(".")
    if is_loopback(host) or _is_exempt(host, origin.port, proxies.get("no", "")):
        return None, None
    variable = f"{origin.scheme if proxies.get(origin.scheme) else 'all'}_proxy"
    value = proxies.get(variable.removesuffix("_proxy"))
    return (variable if os.environ.get(variable) else variable.upper()), value


def _is_exempt(host: str, port: int, no_proxy: str) -> bool:
    address = _address(host)
    for entry in re.split(r"[\s,]+", no_proxy.lower()):
        target, only_port = _split_port(entry)
        if only_port and only_port != str(port):
            continue
        if target == "*":
            return True
        if address is not None:
            network = _network(target)
            if network is not None and address in network:
                return True
        elif (name := target.removeprefix("*").strip(".")) and f".{host}".endswith(f".{name}"):
            return True
    return False


def _split_port(entry: str) -> tuple[str, str]:
    """Split ``host:80``, ``[::1]:80`` or ``::1`` into host and port. The port is ``""`` if there is none."""
    if entry.startswith("["):
        host, _, port = entry[1:].partition("]")
        return host, port.removeprefix(":")
    return (entry, "") if entry.count(":") > 1 else (entry.partition(":")[0], entry.partition(":")[2])


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return None


def authority(host: str, port: int) -> str:
    """Return ``host:port``, with brackets around an IPv6 address (RFC 3986, section 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
