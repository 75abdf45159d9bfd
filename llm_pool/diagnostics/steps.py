"""The steps of connecting to the provider: name, TCP, tunnel, TLS, and what is spoken there."""

from __future__ import annotations

from dataclasses import asdict

from llm_pool.conf import PoolSettings
from llm_pool.diagnostics.advice import dial_failure
from llm_pool.diagnostics.dial import DialResult, Session
from llm_pool.diagnostics.report import Finding, Level, Step
from llm_pool.engine.config import Origin
from llm_pool.engine.dialer.proxy import proxy_for

__all__ = ["connecting_steps", "http2_step"]

SLOW = {"dns": 0.5, "tcp": 0.5, "tunnel": 1.0, "tls": 1.0}
"""Seconds from which a step is worth a warning."""
DAYS_LEFT = 14
"""Days before its end from which a certificate should have been renewed."""
LABELS = {"dns": "DNS", "tcp": "TCP", "tunnel": "the proxy's tunnel", "tls": "TLS"}


def connecting_steps(settings: PoolSettings, origin: Origin, tried: DialResult) -> list[Step]:
    """One step for each part of the dial; those after a failure were not reached, nor those before one of
    the settings, which comes before the dial.
    """
    names = ["dns", "tcp", "tls"]
    if "tunnel" in (tried.failed_in, *tried.steps.seconds):
        names.insert(2, "tunnel")
    ahead = names.index(tried.failed_in) if tried.failed_in is not None else len(names)
    dialed = tried.error is None or bool(tried.steps.seconds)
    steps = []
    for number, name in enumerate(names):
        seconds = tried.steps.seconds.get(name)
        if number == ahead:
            steps.append(Step(name, (dial_failure(settings, origin, tried),), seconds))
        elif number > ahead or not dialed:
            steps.append(_skipped(name, "not reached"))
        else:
            steps.append(_reached(settings, origin, tried, name))
    return steps


def _reached(settings: PoolSettings, origin: Origin, tried: DialResult, name: str) -> Step:
    seconds = tried.steps.seconds.get(name)
    slow = () if seconds is None or seconds < SLOW[name] else (_slow(name, seconds),)
    match name:
        case "dns":
            if settings.pool.uds is not None:
                return _skipped(name, "a Unix domain socket needs no name")
            proxy = proxy_for(origin, settings.pool.proxy)
            found = _resolved(proxy.host if proxy else origin.host, tried.steps.addresses)
            return Step(name, (found, *slow), seconds, {"addresses": tried.steps.addresses})
        case "tcp":
            where = settings.pool.uds or tried.peer
            found = Finding("tcp.connected", Level.OK, f"connected to {where}" if where else "connected")
            return Step(name, (found, *slow), seconds, {"peer": where})
        case "tunnel":
            found = Finding("tunnel.open", Level.OK, f"the proxy opened a tunnel to {origin}")
            return Step(name, (found, *slow), seconds)
    if tried.session is None:
        return _skipped(name, "BASE_URL begins with http://")
    return Step(name, (*_certificate(tried.session), *slow), seconds, asdict(tried.session))


def _resolved(host: str, addresses: list[str]) -> Finding:
    if addresses == [host]:
        return Finding("dns.address", Level.OK, f"{host} is an address, and needs no look-up")
    return Finding("dns.found", Level.OK, f"{host} is {', '.join(addresses)}")


def _slow(name: str, seconds: float) -> Finding:
    return Finding(
        f"{name}.slow",
        Level.WARNING,
        f"{LABELS[name]} took {seconds:.1f} s, and every new connection pays for it.",
        "Keep connections longer (LIMITS['keepalive_expiry'], LIMITS['min_connections']), and see "
        "what makes the way slow.",
    )


def _certificate(session: Session) -> list[Finding]:
    spoken = f"{session.version}, ALPN {session.alpn or 'none'}"
    if session.days_left is None:
        return [
            Finding(
                "tls.unverified",
                Level.WARNING,
                f"{spoken}; the certificate was not verified: TLS['verify'] is off.",
                "Leave TLS['verify'] out, and name an authority of your own as TLS['ca_file'].",
            )
        ]
    found = [
        Finding(
            "tls.agreed",
            Level.OK,
            f"{spoken}; certificate by {session.issuer}, good for {session.days_left} days",
        ),
    ]
    if session.days_left < DAYS_LEFT:
        found.append(
            Finding(
                "tls.expires_soon",
                Level.WARNING,
                f"The certificate ends in {session.days_left} days.",
                "Its owner should renew it now: on its last day every new connection fails.",
            )
        )
    return found


def http2_step(settings: PoolSettings, tried: DialResult) -> Step:
    """Whether HTTP/2 is spoken, and why."""
    streams = settings.pool.limits.max_streams_per_connection
    spoken = Finding("http2.spoken", Level.OK, f"spoken: up to {streams} calls at a time on a connection")
    if settings.engine == "aiohttp":
        return _http11("the engine 'aiohttp' has no HTTP/2", "Set ENGINE to 'native' to have it.")
    if settings.pool.http2 == "prior-knowledge":
        return Step("http2", (spoken,), facts={"spoken": True})
    if not settings.pool.http2:
        return _http11("HTTP2 is off in the settings", "Leave HTTP2 out to have it.")
    if tried.session is None:
        return _http11(
            "HTTP/2 cannot be negotiated without TLS",
            "Set HTTP2 to 'prior-knowledge' if the server speaks it so.",
        )
    if tried.session.alpn == "h2":
        return Step("http2", (spoken,), facts={"spoken": True})
    return _http11(
        f"the server chose {tried.session.alpn or 'nothing'} by ALPN",
        "Nothing to do, but for LIMITS['max_connections']: each call at a time needs its own connection.",
    )


def _http11(why: str, advice: str) -> Step:
    text = f"not spoken: {why}; a connection carries one call at a time"
    return Step("http2", (Finding("http2.not_spoken", Level.NOTE, text, advice),), facts={"spoken": False})


def _skipped(name: str, why: str) -> Step:
    return Step(name, (Finding(f"{name}.skipped", Level.SKIPPED, why),))
