"""From ``settings.LLM_POOL``, and the environment variables that stand in for it, to ``PoolSettings``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
from asgiref.sync import sync_to_async
from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured

from llm_pool.conf import validators
from llm_pool.conf.reader import (
    HIDDEN,
    SETTING,
    VALUE,
    Invalid,
    Kind,
    Problem,
    Reader,
    count,
    seconds,
    switch,
    text,
)
from llm_pool.conf.secret import Secret
from llm_pool.engine.config import DEFAULT_PORTS, DNS, TLS, Limits, Origin, PoolConfig, Timeouts, is_loopback
from llm_pool.exceptions import with_article
from llm_pool.providers import PROVIDERS, Provider
from llm_pool.redaction import Hidden

__all__ = ["PoolSettings", "load", "problems", "survey"]

SHORTEST_SECRET = 4  # letters: less is for a server that wants no key, and hidden it would spoil all text


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """One alias of ``settings.LLM_POOL``, with all defaults filled in. ``base_url`` ends without a slash.

    ``keyless`` is ``"API_KEY": ""``: the user says that the server wants no key. ``given`` has the keys that
    the user did type: ``LIMITS``, ``LIMITS.max_connections``.
    """

    alias: str
    provider: Provider
    base_url: str
    api_key: Secret | None = None
    keyless: bool = False
    model: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    engine: str = "native"
    pool: PoolConfig = field(default_factory=PoolConfig)
    given: frozenset[str] = frozenset()

    @property
    def needs_key(self) -> bool:
        """Whether a call could only fail: there is no key, and the server will want one.

        Servers on this machine want none, nor those whose key is in HEADERS, nor ``keyless`` ones;
        the provider's own server always does.
        """
        if self.api_key is not None or self.pool.uds is not None or is_loopback(self.origin.host):
            return False
        if self.key_headers:
            return False
        return not self.keyless or self.base_url == self.provider.base_url

    @property
    def origin(self) -> Origin:
        """Where calls go."""
        url = httpx.URL(self.base_url)
        return Origin(
            url.scheme, url.raw_host.decode("ascii").strip("[]"), url.port or DEFAULT_PORTS[url.scheme]
        )

    @property
    def key_headers(self) -> list[str]:
        """The names in HEADERS under which the user sends a key of his own."""
        return [name for name in self.headers if name.lower() in self.provider.key_headers]

    def secrets(self, key: str | None) -> tuple[str, ...]:
        """What no output may repeat of a call with this API key: that key, and those in HEADERS."""
        own = [Hidden(self.headers[name].rpartition(" ")[2]) for name in self.key_headers]
        return tuple(secret for secret in (key, *own) if secret and len(secret) >= SHORTEST_SECRET)

    @property
    def missing_key(self) -> str:
        """What is wrong where ``needs_key``."""
        return f"LLM_POOL[{self.alias!r}] has no API_KEY, but {self.base_url} requires one."

    @property
    def how_to_give_key(self) -> str:
        """What to type then."""
        name = self.provider.api_key_env
        return f'Set the environment variable {name}, or "API_KEY" in LLM_POOL[{self.alias!r}].'

    def key(self) -> str | None:
        """The API key of one request, None where none is to be sent. Raises ``ImproperlyConfigured``."""
        if self.api_key is not None:
            return self.api_key.reveal()
        if self.needs_key:
            raise ImproperlyConfigured(f"{self.missing_key} {self.how_to_give_key}")
        return None

    async def akey(self) -> str | None:
        """``key`` for async code: one that is fetched may block, and does so in a thread."""
        if self.api_key is not None and self.api_key.is_fetched:
            return await sync_to_async(self.key)()
        return self.key()


def load(setting: Any = None, environ: Mapping[str, str] | None = None) -> dict[str, PoolSettings]:
    """Every pool of ``settings.LLM_POOL``, or of ``setting``.

    Raises ``ImproperlyConfigured`` for the first problem, and says how many there are. A missing API key is
    none of them: ``PoolSettings.key`` raises when it is wanted.
    """
    pools, found = survey(setting, environ)
    if found:
        more = f" ({len(found) - 1} more: run manage.py check.)" if len(found) > 1 else ""
        raise ImproperlyConfigured(f"{found[0]}{more}")
    return pools


def problems(setting: Any = None, environ: Mapping[str, str] | None = None) -> list[Problem]:
    """Everything that is wrong in ``settings.LLM_POOL``, or in ``setting``."""
    return survey(setting, environ)[1]


def survey(
    setting: Any = None, environ: Mapping[str, str] | None = None
) -> tuple[dict[str, PoolSettings], list[Problem]]:
    """The pools, with a default in the place of whatever is wrong, and all that is wrong."""
    if setting is None:
        setting = getattr(django_settings, "LLM_POOL", None)
    if environ is None:
        environ = os.environ
    if setting is None:
        setting = {"default": {}}
    found: list[Problem] = []
    if not isinstance(setting, Mapping):
        what = f"LLM_POOL is {with_article(setting)}, not a dict."
        return {}, [Problem(SETTING, "", "", HIDDEN, what, 'Give a dict: LLM_POOL = {"default": {...}}.')]
    if not setting:
        what, hint = "LLM_POOL has no pools.", 'Give {"default": {...}}, or leave LLM_POOL out.'
        return {}, [Problem(SETTING, "", "", HIDDEN, what, hint)]
    pools = {}
    for alias, given in setting.items():
        if isinstance(alias, str) and alias:
            pools[alias] = _read_pool(Reader(found, alias, given), environ)
        else:
            what = f"LLM_POOL has a pool named {alias!r}."
            found.append(Problem(SETTING, str(alias), "", HIDDEN, what, "Name each pool with a string."))
    return pools, found


_SECTIONS: dict[str, Kind] = {name: lambda value: value for name in ("LIMITS", "TIMEOUTS", "DNS", "TLS")}
_KEYS: dict[str, Kind] = {
    "PROVIDER": validators.provider,
    "BASE_URL": validators.base_url,
    "API_KEY": validators.api_key,
    "MODEL": text(),
    "HEADERS": validators.headers,
    "ENGINE": validators.engine,
    "HTTP2": validators.http2,
    **_SECTIONS,
    "PROXY": validators.proxy,
    "UDS": text(path=True),
    "WARN_UTILIZATION": validators.fraction,
    "LEAK_THRESHOLD": seconds(),
}
_LIMITS: dict[str, Kind] = {
    "max_connections": count(1),
    "max_keepalive_connections": count(),
    "keepalive_expiry": seconds(zero=True),
    "min_connections": count(),
    "max_lifetime": seconds(),
    "max_waiting": count(),
    "max_connections_per_host": count(1, optional=True),
    "max_streams_per_connection": count(1),
}
_TIMEOUTS: dict[str, Kind] = {
    "connect": seconds(),
    "read": seconds(),
    "write": seconds(),
    "pool": seconds(zero=True),
    "total": seconds(),
}
_DNS: dict[str, Kind] = {
    "ttl": seconds(optional=False, zero=True),
    "negative_ttl": seconds(optional=False, zero=True),
    "resolver": validators.resolver,
}
_TLS: dict[str, Kind] = {
    "verify": switch,
    "ca_file": text(path=True),
    "client_cert": validators.client_cert,
    "context": validators.context,
}
_INNER = {"LIMITS": _LIMITS, "TIMEOUTS": _TIMEOUTS, "DNS": _DNS, "TLS": _TLS}


def _read_pool(reader: Reader, environ: Mapping[str, str]) -> PoolSettings:
    # A URL is shown unless it has a place for secrets.
    url = {"BASE_URL"} if any(mark in str(reader.given.get("BASE_URL")) for mark in "@?#") else set()
    good = reader.read(_KEYS, hide={"API_KEY", "HEADERS", "PROXY"} | url, inner=_INNER)
    if good.get("UDS") and good.get("PROXY"):
        reader.report("PROXY", Invalid(VALUE, "and UDS are both given", "Give one of them."))
    provider: Provider = good.get("PROVIDER") or PROVIDERS["openai"]()
    base_url = good.get("BASE_URL") or _from_environ(
        reader, "BASE_URL", validators.base_url, provider.base_url_env, environ
    )
    base_url = base_url or provider.base_url
    if base_url.endswith(provider.completion_path):
        what = f"ends in {provider.completion_path}, which is added to it for each call"
        reader.report(
            "BASE_URL", Invalid(VALUE, what, f"Give {base_url.removesuffix(provider.completion_path)!r}.")
        )
    key = good.get("API_KEY")
    place = f"LLM_POOL[{reader.alias!r}]['API_KEY']"
    headers = good.get("HEADERS") or {}
    if key is None and not any(name.lower() in provider.key_headers for name in headers):
        place = provider.api_key_env
        key = _from_environ(reader, "API_KEY", validators.api_key, place, environ)
    return PoolSettings(
        alias=reader.alias,
        provider=provider,
        base_url=base_url,
        api_key=Secret(key, place) if key else None,
        keyless=key == "",
        model=good.get("MODEL"),
        headers=headers,
        engine=good.get("ENGINE", "native"),
        pool=PoolConfig(
            limits=_read_limits(reader.section("LIMITS", '{"max_connections": 100}')),
            timeouts=Timeouts(**reader.section("TIMEOUTS", '{"read": 60.0}').read(_TIMEOUTS)),
            dns=DNS(**reader.section("DNS", '{"ttl": 300.0}').read(_DNS)),
            tls=_read_tls(reader.section("TLS", '{"ca_file": "..."}')),
            http2=good.get("HTTP2", True),
            proxy=good.get("PROXY"),
            uds=good.get("UDS"),
            warn_utilization=good.get("WARN_UTILIZATION", PoolConfig().warn_utilization),
            leak_threshold=good.get("LEAK_THRESHOLD"),
        ),
        given=_given(reader.given),
    )


def _given(setting: Mapping[str, Any]) -> frozenset[str]:
    sections = {name: value for name, value in setting.items() if isinstance(value, Mapping)}
    inside = {f"{name}.{key}" for name, section in sections.items() for key in section}
    return frozenset(map(str, setting)) | inside


def _from_environ(reader: Reader, key: str, kind: Kind, name: str, environ: Mapping[str, str]) -> Any:
    if not (given := environ.get(name, "").strip()):
        return None
    try:
        return kind(given)
    except Invalid as invalid:
        what = f"LLM_POOL[{reader.alias!r}] takes its {key} from {name}, which {invalid.what}."
        reader.problems.append(Problem(invalid.id, reader.alias, name, HIDDEN, what, invalid.hint))
        return None


def _read_limits(reader: Reader) -> Limits:
    good = reader.read(_LIMITS)
    limits = Limits(**good)
    if "max_keepalive_connections" not in good:
        # A default never contradicts what the user did say.
        kept = min(max(limits.max_keepalive_connections, limits.min_connections), limits.max_connections)
        limits = replace(limits, max_keepalive_connections=kept)
    for less, more in (
        ("max_keepalive_connections", "max_connections"),
        ("min_connections", "max_keepalive_connections"),
    ):
        low, high = getattr(limits, less), getattr(limits, more)
        if less in good and low > high:
            given = "" if more in good else ", its default"
            invalid = Invalid(
                VALUE, f"is more than {more} ({high}{given})", f"Lower {less}, or raise {more}."
            )
            reader.report(less, invalid, str(low))
    return limits


def _read_tls(reader: Reader) -> TLS:
    good = reader.read(_TLS, hide=("client_cert",))
    if good.get("context") is not None and len(good) > 1:
        others = ", ".join(name for name in good if name != "context")
        reader.report(
            "context", Invalid(VALUE, f"takes the place of {others}", "Set those on the context itself.")
        )
    return TLS(**good)
