"""The steps of connecting to the provider: DNS, TCP, tunnel, TLS and HTTP/2."""

from __future__ import annotations

from dataclasses import asdict

from llm_pool.conf.settings import PoolSettings
from llm_pool.diagnostics.advice import dial_failure
from llm_pool.diagnostics.dial import DialResult, Session
from llm_pool.diagnostics.report import Finding, Level, Step
from llm_pool.engine.config import Origin
from llm_pool.engine.dialer.proxy import proxy_for

__all__ = ["connecting_steps", "http2_step"]

SLOW = {"dns": 0.5, "tcp": 0.5, "tunnel": 1.0, "tls": 1.0}
"""In seconds. A step that takes this long or longer gets a warning."""
DAYS_LEFT = 14
"""A certificate that expires in fewer days gets a warning."""
LABELS = {"dns": "DNS", "tcp": "TCP", "tunnel": "the proxy's tunnel", "tls": "TLS"}


def connecting_steps(settings: PoolSettings, origin: Origin, dialed: DialResult) -> list[Step]:
    """Return one step for each part of the dial: "dns", "tcp", "tls", and "tunnel" if a tunnel was tried.

    The parts after a failed part are reported as not reached. If the dial failed before any part began, as
    with an invalid setting, ``dialed.failed_in`` is the part that the error belongs to, and all other parts
    are reported as not reached.
    """
    names = ["dns", "tcp", "tls"]
    if "tunnel" in (dialed.failed_in, *dialed.steps.seconds):
        names.insert(2, "tunnel")
    failed_at = names.index(dialed.failed_in) if dialed.failed_in is not None else len(names)
    has_begun = dialed.error is None or bool(dialed.steps.seconds)
    steps = []
    for number, name in enumerate(names):
        seconds = dialed.steps.seconds.get(name)
        if number == failed_at:
            steps.append(Step(name, (dial_failure(settings, origin, dialed),), seconds))
        elif number > failed_at or not has_begun:
            steps.append(_skipped(name, "not reached"))
        else:
            steps.append(_reached(settings, origin, dialed, name))
    return steps


def _reached(settings: PoolSettings, origin: Origin, dialed: DialResult, name: str) -> Step:
    seconds = dialed.steps.seconds.get(name)
    slow = () if seconds is None or seconds < SLOW[name] else (_slow(name, seconds),)
    match name:
        case "dns":
            if settings.pool.uds is not None:
                return _skipped(name, "a Unix domain socket needs no name")
            proxy = proxy_for(origin, settings.pool.proxy)
            found = _resolved(proxy.host if proxy else origin.host, dialed.steps.addresses)
            return Step(name, (found, *slow), seconds, {"addresses": dialed.steps.addresses})
        case "tcp":
            where = settings.pool.uds or dialed.peer
            found = Finding("tcp.connected", Level.OK, f"connected to {where}" if where else "connected")
            return Step(name, (found, *slow), seconds, {"peer": where})
        case "tunnel":
            proxy = proxy_for(origin, settings.pool.proxy)
            opened = f"the proxy opened a tunnel to {origin}"
            if proxy is not None and not proxy.tunnels(origin):
                opened = f"TLS to the proxy {proxy}, which forwards the requests"
            found = Finding("tunnel.open", Level.OK, opened)
            return Step(name, (found, *slow), seconds)
    if dialed.session is None:
        return _skipped(name, "BASE_URL begins with http://")
    return Step(name, (*_certificate(dialed.session), *slow), seconds, asdict(dialed.session))


def _resolved(host: str, addresses: list[str]) -> Finding:
    if addresses == [host]:
        return Finding("dns.address", Level.OK, f"{host} is an address, and needs no look-up")
    return Finding("dns.found", Level.OK, f"{host} is {', '.join(addresses)}")


def _slow(name: str, seconds: float) -> Finding:
    return Finding(
        f"{name}.slow",
        Level.WARNING,
        f"{LABELS[name]} took {seconds:.1f} s, as it will for every new connection.",
        "Keep connections longer (LIMITS['keepalive_expiry'], LIMITS['min_connections']), and find out "
        "what is slow on the way.",
    )


def _certificate(session: Session) -> list[Finding]:
    agreed = f"{session.version}, ALPN {session.alpn or 'none'}"
    if session.days_left is None:
        return [
            Finding(
                "tls.unverified",
                Level.WARNING,
                f"{agreed}; the certificate was not verified: TLS['verify'] is off.",
                "Leave TLS['verify'] out, and give your own authority's certificate as TLS['ca_file'].",
            )
        ]
    found = [
        Finding(
            "tls.agreed",
            Level.OK,
            f"{agreed}; certificate by {session.issuer}, good for {session.days_left} days",
        ),
    ]
    if session.days_left < DAYS_LEFT:
        found.append(
            Finding(
                "tls.expires_soon",
                Level.WARNING,
                f"The certificate expires in {session.days_left} days.",
                "Its owner should renew it now: after its last day every new connection fails.",
            )
        )
    return found


def http2_step(settings: PoolSettings, dialed: DialResult) -> Step:
    """Return the step "http2": whether calls use HTTP/2, and the reason if they do not.

    The fact "spoken" is True or False. ``dialed`` is the result of a dial with the pool's settings.
    """
    streams = settings.pool.limits.max_streams_per_connection
    spoken = Finding("http2.spoken", Level.OK, f"spoken: up to {streams} calls at a time on a connection")
    if settings.engine == "aiohttp":
        return _http11_only("the engine 'aiohttp' has no HTTP/2", "Set ENGINE to 'native' to have it.")
    if settings.pool.http2 == "prior-knowledge":
        return Step("http2", (spoken,), facts={"spoken": True})
    if not settings.pool.http2:
        return _http11_only("HTTP2 is off in the settings", "Leave HTTP2 out to have it.")
    if dialed.session is None:
        return _http11_only(
            "HTTP/2 cannot be negotiated without TLS",
            "Set HTTP2 to 'prior-knowledge' if the server speaks HTTP/2 without TLS.",
        )
    if dialed.session.alpn == "h2":
        return Step("http2", (spoken,), facts={"spoken": True})
    return _http11_only(
        f"the server chose {dialed.session.alpn or 'nothing'} by ALPN",
        "Nothing to do, but set LIMITS['max_connections'] for it: each call needs a connection of its own.",
    )


def _http11_only(reason: str, advice: str) -> Step:
    text = f"not spoken: {reason}; a connection carries one call at a time"
    return Step("http2", (Finding("http2.not_spoken", Level.NOTE, text, advice),), facts={"spoken": False})


def _skipped(name: str, reason: str) -> Step:
    return Step(name, (Finding(f"{name}.skipped", Level.SKIPPED, reason),))
