"""System checks of ``settings.LLM_POOL`` and of the flags beside it.

==============  ==============================================================
llm_pool.E001   LLM_POOL or a pool in it is not a dict, or LLM_POOL is empty, or a pool has an invalid name
llm_pool.E002   an unknown key
llm_pool.E003   a value of the wrong type
llm_pool.E004   an invalid value
llm_pool.E006   a file of TLS certificates, or of a TLS key, that does not exist
llm_pool.E007   a setting that the ENGINE does not support, so that calls would fail
llm_pool.E008   a proxy in the environment that cannot be used, so that calls would fail
llm_pool.W001   certificates are not verified (only with ``check --deploy``)
llm_pool.W002   no API key although the server needs one, so that calls will fail
                (not an error: builds and CI runs often have no key)
llm_pool.W003   the API key is sent unencrypted to another machine (only with ``check --deploy``)
llm_pool.W004   a setting that the ENGINE ignores
llm_pool.W005   a password in LLM_POOL that Django's error reports show (only with ``check --deploy``)
==============  ==============================================================
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from django.core import checks

from llm_pool.conf.observability import cleansed, invalid_flags
from llm_pool.conf.reader import Problem
from llm_pool.conf.settings import PoolSettings, load_with_problems
from llm_pool.engine.config import is_loopback
from llm_pool.exceptions import with_article

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["check_deployment", "check_settings"]

NO_PREWARM = "it opens a connection when a call needs one, and none before"
ONLY_HTTP11 = "it speaks HTTP/1.1 only, one call on a connection at a time"
NO_SOCKS = "it supports no SOCKS proxy"
OWN_LOOKUPS = "it asks the system for each connection, and keeps no answer"
UNSUPPORTED: dict[str, dict[str, str]] = {
    "native": {},
    "httpcore": {
        "LIMITS.min_connections": NO_PREWARM,
        "DNS.ttl": OWN_LOOKUPS,
        "DNS.negative_ttl": OWN_LOOKUPS,
        "DNS.resolver": OWN_LOOKUPS,
        "PROXY": NO_SOCKS,
    },
    "aiohttp": {
        "LIMITS.min_connections": NO_PREWARM,
        "LIMITS.max_streams_per_connection": ONLY_HTTP11,
        "HTTP2": ONLY_HTTP11,
        "PROXY": NO_SOCKS,
        "UDS": "it speaks no TLS over a Unix domain socket",
    },
}
"""For each engine: the settings that it does not support, each with what the engine does instead, or why."""


def check_settings(**_: Any) -> list[checks.CheckMessage]:
    """Return errors and warnings about ``settings.LLM_POOL`` and the settings in ``FLAGS``.

    Errors: invalid settings, TLS files that do not exist, settings that the engine does not support so that
    calls would fail, and a proxy in the environment that cannot be used. Warnings: a missing API key, and
    settings that the engine ignores. A pool with an invalid setting is not checked further.
    """
    pools, problems = load_with_problems()
    messages: list[checks.CheckMessage] = [
        checks.Error(problem.message, hint=problem.hint, id=f"llm_pool.{problem.id}") for problem in problems
    ]
    for pool in _valid(pools, problems):
        messages += _warnings(pool)
    return [*messages, *_flag_errors()]


def check_deployment(**_: Any) -> list[checks.CheckMessage]:
    """Return warnings for settings that are acceptable in development, but insecure in a deployment.

    They are TLS without verification, an API key that is sent unencrypted to another machine, and passwords
    in Django's error reports.
    """
    return [message for pool in _valid(*load_with_problems()) for message in _insecure(pool)]


def _flag_errors() -> Iterator[checks.CheckMessage]:
    for name, value in invalid_flags().items():
        yield checks.Error(
            f"{name} is {with_article(value)}.", hint="Give True or False.", id="llm_pool.E003"
        )


def _valid(pools: dict[str, PoolSettings], problems: list[Problem]) -> list[PoolSettings]:
    broken = {problem.alias for problem in problems}
    return [pool for pool in pools.values() if pool.alias not in broken]


def _insecure(pool: PoolSettings) -> Iterator[checks.CheckMessage]:
    place = f"LLM_POOL[{pool.alias!r}]"
    if not pool.pool.tls.verify:
        yield checks.Warning(
            f"{place}['TLS']['verify'] is False: anyone on the way can read the API key and the answers.",
            hint="Leave it out, and give your own authority's certificate as ca_file.",
            id="llm_pool.W001",
        )
    is_remote = pool.pool.uds is None and not is_loopback(pool.origin.host)
    if pool.api_key is not None and is_remote and pool.base_url.startswith("http://"):
        yield checks.Warning(
            f"{place} sends its API key unencrypted to {pool.base_url}.",
            hint='Give a BASE_URL that begins with https://, or "API_KEY": "" if the server needs none.',
            id="llm_pool.W003",
        )

    if shown := list(_passwords_in_reports(pool)):
        yield checks.Warning(
            f"{place} has a password in {' and in '.join(shown)}, which Django's error reports show.",
            hint='Set DEFAULT_EXCEPTION_REPORTER_FILTER = "llm_pool.error_reports.PoolReporterFilter".',
            id="llm_pool.W005",
        )


def _passwords_in_reports(pool: PoolSettings) -> Iterator[str]:
    """Yield the name of each setting whose password the project's filter of error reports does not hide."""
    given, shown = cleansed(pool.alias)
    proxy, certificate = pool.pool.proxy, pool.pool.tls.client_cert
    if proxy and httpx.URL(proxy).password and shown["PROXY"] == given["PROXY"]:
        yield "PROXY"
    if isinstance(certificate, tuple) and certificate[2:] and shown["TLS"] == given["TLS"]:
        yield "TLS['client_cert']"


def _warnings(pool: PoolSettings) -> Iterator[checks.CheckMessage]:
    place = f"LLM_POOL[{pool.alias!r}]"
    if pool.needs_key:
        yield checks.Warning(pool.missing_key, hint=pool.how_to_give_key, id="llm_pool.W002")
    yield from _unsupported(pool, place)
    yield from _proxy_errors(pool, place)
    tls = pool.pool.tls
    certificate = tls.client_cert if isinstance(tls.client_cert, tuple) else (tls.client_cert,)
    for path in (tls.ca_file, *certificate[:2]):
        if path is not None and not Path(path).is_file():
            yield checks.Error(
                f"{place}['TLS'] names the file {path!r}, which does not exist.",
                hint="Give the path of a PEM file that this process can read.",
                id="llm_pool.E006",
            )


def _proxy_errors(pool: PoolSettings, place: str) -> Iterator[checks.CheckMessage]:
    """Yield an error if the proxy from the environment cannot be used.

    A proxy in the settings has been validated already.
    """
    from llm_pool.engine.dialer.proxy import proxy_for  # noqa: PLC0415  only the checks need it
    from llm_pool.exceptions import ProxyFailed  # noqa: PLC0415

    if pool.pool.uds is not None or pool.pool.proxy is not None:
        return
    try:
        proxy = proxy_for(pool.origin, None)
        if proxy is not None and proxy.scheme == "socks5" and pool.engine != "native":
            raise ProxyFailed(f"the engine {pool.engine!r} supports no SOCKS proxy")
    except ProxyFailed as error:
        yield checks.Error(
            f"{place} uses the proxy from the environment, but {error}.",
            hint='Correct it, exempt the host with NO_PROXY, or set "PROXY": "" for no proxy.',
            id="llm_pool.E008",
        )


def _unsupported(pool: PoolSettings, place: str) -> Iterator[checks.CheckMessage]:
    """Yield a message for each setting in ``LLM_POOL`` that the engine does not support.

    The message is an error if calls would fail, otherwise a warning.
    """
    for key, instead in UNSUPPORTED[pool.engine].items():
        if key not in pool.explicit_keys or _works_anyway(pool, key):
            continue
        name = "".join(f"[{step!r}]" for step in key.split("."))
        fatal = key in ("PROXY", "UDS") or (key, pool.pool.http2) == ("HTTP2", "prior-knowledge")
        kind, number = (checks.Error, "E007") if fatal else (checks.Warning, "W004")
        yield kind(
            f"{place}{name} is not supported by the engine {pool.engine!r}: {instead}.",
            hint='Leave it out, or set ENGINE to "native".',
            id=f"llm_pool.{number}",
        )


def _works_anyway(pool: PoolSettings, key: str) -> bool:
    """Return whether the pool's value of ``key`` works, although the engine does not support other values."""
    match key:
        case "HTTP2":
            return pool.pool.http2 is False
        case "DNS.resolver":
            return pool.pool.dns.resolver == "system"
        case "LIMITS.min_connections":
            return pool.pool.limits.min_connections == 0
        case "PROXY":
            return not (pool.pool.proxy or "").lower().startswith("socks")
        case "UDS":
            return pool.pool.uds is None or pool.base_url.startswith("http://")
    return False
