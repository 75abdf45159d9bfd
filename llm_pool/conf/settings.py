"""Makes ``PoolSettings`` from ``settings.LLM_POOL`` and the environment variables of the providers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

import httpx
from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured

from llm_pool.conf import validators
from llm_pool.conf.reader import (
    HIDDEN,
    SETTING,
    VALUE,
    Invalid,
    Problem,
    Reader,
    Validator,
    boolean,
    count,
    seconds,
    text,
)
from llm_pool.conf.secret import Secret
from llm_pool.engine.config import DEFAULT_PORTS, DNS, TLS, Limits, Origin, PoolConfig, Timeouts, is_loopback
from llm_pool.exceptions import with_article
from llm_pool.providers import PROVIDERS
from llm_pool.providers.base import Provider
from llm_pool.redaction import Hidden
from llm_pool.transports.query import Parameters

__all__ = ["TIMEOUTS", "PoolSettings", "load", "load_with_problems"]

MIN_SECRET_LENGTH = 4  # characters
"""Shorter keys are placeholders for servers without keys. If "x" were hidden, no text would be readable."""


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """One pool of ``settings.LLM_POOL``, with all defaults filled in.

    ``alias``          the pool's name in ``LLM_POOL``
    ``provider``       PROVIDER, as an instance of the provider's class
    ``base_url``       BASE_URL, its environment variable or the provider's own URL; no slash at its end
    ``api_key``        API_KEY or its environment variable; None if there is no key
    ``keyless``        True for ``"API_KEY": ""``: it declares that the server requires no key
    ``model``          MODEL; None if it is not set
    ``headers``        HEADERS, the user's headers for each request
    ``query``          QUERY, and the query of BASE_URL: the parameters in the URL of each request
    ``engine``         ENGINE, the kind of the connections
    ``pool``           the settings of the engine: LIMITS, TIMEOUTS, DNS, TLS, HTTP2, PROXY, UDS, ...
    ``explicit_keys``  the keys that the settings contain, defaults not included, such as "LIMITS" and
                       "LIMITS.max_connections"
    """

    alias: str
    provider: Provider
    base_url: str
    api_key: Secret | None = None
    keyless: bool = False
    model: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: Parameters = field(default_factory=dict, repr=False)
    engine: str = "native"
    pool: PoolConfig = field(default_factory=PoolConfig)
    explicit_keys: frozenset[str] = frozenset()

    @property
    def needs_key(self) -> bool:
        """Whether the server requires a key and the pool has none, so that each call would fail.

        API_KEY is not required if the server is on this machine, if HEADERS contains a key, or if ``keyless``
        is True. But the provider's own server requires a key even if ``keyless`` is True.
        """
        if self.api_key is not None or self.pool.uds is not None or is_loopback(self.origin.host):
            return False
        if self.key_headers:
            return False
        return not self.keyless or self.base_url == self.provider.base_url

    @property
    def origin(self) -> Origin:
        """Scheme, host and port of ``base_url``."""
        url = httpx.URL(self.base_url)
        return Origin(
            url.scheme, url.raw_host.decode("ascii").strip("[]"), url.port or DEFAULT_PORTS[url.scheme]
        )

    @property
    def key_headers(self) -> list[str]:
        """The names of the HEADERS that contain a key."""
        return [name for name in self.headers if name.lower() in self.provider.key_headers]

    def secrets(self, key: str | None) -> tuple[str, ...]:
        """Return the secrets of a call: ``key``, which can be None, the keys in HEADERS, and QUERY's values.

        No output may contain a secret. Those shorter than ``MIN_SECRET_LENGTH`` are left out, and the value
        of "api-version".
        """
        own = [Hidden(self.headers[name].rpartition(" ")[2]) for name in self.key_headers]
        if self.query:
            own += _secrets_in(self.query)
        return tuple(secret for secret in (key, *own) if secret and len(secret) >= MIN_SECRET_LENGTH)

    @property
    def missing_key(self) -> str:
        """A sentence that says that the pool has no key and the server requires one.

        Use the sentence only if ``needs_key`` is True.
        """
        return f"LLM_POOL[{self.alias!r}] has no API_KEY, but {self.base_url} requires one."

    @property
    def how_to_give_key(self) -> str:
        """A sentence that says where to set the key of the pool."""
        name = self.provider.api_key_env
        return f'Set the environment variable {name}, or "API_KEY" in LLM_POOL[{self.alias!r}].'

    @property
    def has_fixed_key(self) -> bool:
        """Whether all calls have the same key, or none. Then ``key`` does not block and raises nothing."""
        return not self.needs_key if self.api_key is None else self.api_key.fixed is not None

    def key(self) -> str | None:
        """Return the API key for a request, or None if the pool has no API_KEY.

        If API_KEY is a callable, ``key`` calls it, and can block. Raises ``ImproperlyConfigured`` if the
        server requires a key and the pool has none, not even in HEADERS, or if the key is invalid.
        """
        if self.api_key is not None:
            return self.api_key.fixed or self.api_key.reveal()
        if self.needs_key:
            raise ImproperlyConfigured(f"{self.missing_key} {self.how_to_give_key}")
        return None

    async def akey(self) -> str | None:
        """``key`` for async code. Nothing blocks the event loop: see ``Secret.areveal``."""
        if self.api_key is not None and self.api_key.fixed is None:
            return await self.api_key.areveal()
        return self.key()


def load(setting: Any = None, environ: Mapping[str, str] | None = None) -> dict[str, PoolSettings]:
    """Return the settings of each pool by alias.

    ``setting`` is read instead of ``settings.LLM_POOL``, and ``environ`` instead of ``os.environ``, unless
    they are None.

    Raises ``ImproperlyConfigured`` with the first problem and the number of the others. A missing API key is
    not a problem here: ``PoolSettings.key`` raises when a call needs it.
    """
    pools, problems = load_with_problems(setting, environ)
    if problems:
        more = f" ({len(problems) - 1} more: run manage.py check.)" if len(problems) > 1 else ""
        raise ImproperlyConfigured(f"{problems[0]}{more}")
    return pools


def load_with_problems(
    setting: Any = None, environ: Mapping[str, str] | None = None
) -> tuple[dict[str, PoolSettings], list[Problem]]:
    """Return the settings of each pool by alias, and a list of all problems.

    The arguments are those of ``load``. Do not use the settings of a pool with a problem: they contain the
    invalid value, or its default.
    """
    if setting is None:
        setting = getattr(django_settings, "LLM_POOL", None)
    if environ is None:
        environ = os.environ
    if setting is None:
        setting = {"default": {}}
    problems: list[Problem] = []
    if not isinstance(setting, Mapping):
        what = f"LLM_POOL is {with_article(setting)}, not a dict."
        return {}, [Problem(SETTING, "", "", HIDDEN, what, 'Give a dict: LLM_POOL = {"default": {...}}.')]
    if not setting:
        what, hint = "LLM_POOL has no pools.", 'Give {"default": {...}}, or leave LLM_POOL out.'
        return {}, [Problem(SETTING, "", "", HIDDEN, what, hint)]
    if keys := [key for key in setting if key in _KEYS]:
        what = f"LLM_POOL has the key {keys[0]!r} where the name of a pool belongs."
        hint = f'Put the settings of a pool into a dict: LLM_POOL = {{"default": {{"{keys[0]}": ...}}}}.'
        return {}, [Problem(SETTING, "", "", HIDDEN, what, hint)]
    pools = {}
    for alias, values in setting.items():
        if isinstance(alias, str) and alias:
            pools[alias] = _read_pool(Reader(problems, alias, values), environ)
        else:
            what = f"LLM_POOL has a pool named {alias!r}."
            problems.append(Problem(SETTING, str(alias), "", HIDDEN, what, "Name each pool with a string."))
    return pools, problems


# The sections are not checked with the other keys: each is read by a Reader of its own.
_UNCHECKED: dict[str, Validator] = {
    name: lambda value: value for name in ("LIMITS", "TIMEOUTS", "DNS", "TLS")
}
_KEYS: dict[str, Validator] = {
    "PROVIDER": validators.provider,
    "BASE_URL": validators.base_url,
    "API_KEY": validators.api_key,
    "MODEL": text(),
    "HEADERS": validators.headers,
    "QUERY": validators.query,
    "ENGINE": validators.engine,
    "HTTP2": validators.http2,
    **_UNCHECKED,
    "PROXY": validators.proxy,
    "UDS": text(path=True),
    "WARN_UTILIZATION": validators.fraction,
    "LEAK_THRESHOLD": seconds(),
}
_LIMITS: dict[str, Validator] = {
    "max_connections": count(1),
    "max_keepalive_connections": count(),
    "keepalive_expiry": seconds(zero=True),
    "min_connections": count(),
    "max_lifetime": seconds(),
    "max_waiting": count(),
    "max_connections_per_host": count(1, optional=True),
    "max_streams_per_connection": count(1),
    "max_answer_bytes": count(1),
}
TIMEOUTS: dict[str, Validator] = {
    "connect": seconds(),
    "read": seconds(),
    "write": seconds(),
    "pool": seconds(zero=True),
    "total": seconds(),
    "first_token": seconds(),
    "between_tokens": seconds(),
}
_DNS: dict[str, Validator] = {
    "ttl": seconds(optional=False, zero=True),
    "negative_ttl": seconds(optional=False, zero=True),
    "resolver": validators.resolver,
}
_TLS: dict[str, Validator] = {
    "verify": boolean,
    "ca_file": text(path=True),
    "client_cert": validators.client_cert,
    "context": validators.context,
}
_SECTIONS = {"LIMITS": _LIMITS, "TIMEOUTS": TIMEOUTS, "DNS": _DNS, "TLS": _TLS}


def _read_pool(reader: Reader, environ: Mapping[str, str]) -> PoolSettings:
    # A URL with a user name, a query or a fragment may contain a secret.
    secret_url = {"BASE_URL"} if any(mark in str(reader.values.get("BASE_URL")) for mark in "@?#") else set()
    hidden = {"API_KEY", "HEADERS", "PROXY", "QUERY"} | secret_url
    valid = reader.read(_KEYS, hide=hidden, sections=_SECTIONS)
    if valid.get("UDS") and valid.get("PROXY"):
        reader.report("PROXY", Invalid(VALUE, "and UDS are both given", "Give one of them."))
    provider: Provider = valid.get("PROVIDER") or PROVIDERS["openai"]()
    base_url, query = _read_base_url(reader, valid.get("BASE_URL"), provider, environ)
    provider = provider.for_url(base_url)
    query = _with_required({**query, **(valid.get("QUERY") or {})}, reader, provider, base_url, environ)
    key = valid.get("API_KEY")
    key_name = f"LLM_POOL[{reader.alias!r}]['API_KEY']"
    headers = valid.get("HEADERS") or {}
    if key is None and not any(name.lower() in provider.key_headers for name in headers):
        key_name = provider.api_key_env
        key = _from_environ(reader, "API_KEY", validators.api_key, key_name, environ)
    return PoolSettings(
        alias=reader.alias,
        provider=provider,
        base_url=base_url,
        api_key=Secret(key, key_name) if key else None,
        keyless=key == "",
        model=valid.get("MODEL"),
        headers=headers,
        query=query,
        engine=valid.get("ENGINE", "native"),
        pool=PoolConfig(
            limits=_read_limits(reader.section("LIMITS", '{"max_connections": 100}')),
            timeouts=Timeouts(**reader.section("TIMEOUTS", '{"read": 60.0}').read(TIMEOUTS)),
            dns=DNS(**reader.section("DNS", '{"ttl": 300.0}').read(_DNS)),
            tls=_read_tls(reader.section("TLS", '{"ca_file": "..."}')),
            http2=valid.get("HTTP2", True),
            proxy=valid.get("PROXY"),
            uds=valid.get("UDS"),
            warn_utilization=valid.get("WARN_UTILIZATION", PoolConfig().warn_utilization),
            leak_threshold=valid.get("LEAK_THRESHOLD"),
        ),
        explicit_keys=_explicit_keys(reader.values),
    )


def _read_base_url(
    reader: Reader,
    configured: tuple[str, Parameters] | None,
    provider: Provider,
    environ: Mapping[str, str],
) -> tuple[str, Parameters]:
    """Return the URL without its query, and the query."""
    base_url, query = (
        configured
        or _from_environ(reader, "BASE_URL", validators.base_url, provider.base_url_env, environ)
        or (provider.base_url, {})
    )
    if path := next(filter(base_url.endswith, _added_paths(provider)), None):
        what = f"ends in {path}, which is added to it for each call"
        reader.report("BASE_URL", Invalid(VALUE, what, f"Give {base_url.removesuffix(path)!r}."))
    if not (base_url or reader.values.get("BASE_URL") or environ.get(provider.base_url_env, "").strip()):
        hint = f"Give the URL of your own, or set the environment variable {provider.base_url_env}."
        reader.report(
            "BASE_URL", Invalid(VALUE, f"is not set, and {provider.name} has no common server", hint)
        )
    return base_url, query


def _added_paths(provider: Provider) -> Iterator[str]:
    """Yield the paths that a copied URL can end in and BASE_URL cannot."""
    yield provider.completion_path
    yield from ("/chat/completions", "/completions", "/embeddings", "/messages", "/responses")
    version = provider.completion_path.split("/")[1]
    if re.fullmatch(r"v\d+", version):  # Anthropic's path is "/v1/messages"
        yield f"/{version}"


def _with_required(
    query: Parameters, reader: Reader, provider: Provider, base_url: str, environ: Mapping[str, str]
) -> Parameters:
    """Return ``query`` with the parameters that ``provider`` requires. Report each that is not set."""
    for name, variable in provider.required_query if base_url else ():
        if name in query:
            continue
        if value := environ.get(variable, "").strip():
            query = {**query, name: value}
        else:
            what = f"has no {name!r}, which {provider.name} requires at {base_url}"
            hint = f'Give {{"{name}": "..."}}, or set the environment variable {variable}.'
            reader.report("QUERY", Invalid(VALUE, what, hint))
    return query


def _secrets_in(query: Parameters) -> list[Hidden]:
    """Return each value of ``query`` as it is and as it is in a URL. The version of an API is no secret."""
    values = [
        value
        for name, content in query.items()
        if name.lower() != "api-version"
        for value in ([content] if isinstance(content, str) else content)
    ]
    return [Hidden(text) for value in values for text in {value, quote(value, safe="")}]


def _explicit_keys(values: Mapping[str, Any]) -> frozenset[str]:
    sections = {name: value for name, value in values.items() if isinstance(value, Mapping)}
    inside = {f"{name}.{key}" for name, section in sections.items() for key in section}
    return frozenset(map(str, values)) | inside


def _from_environ(
    reader: Reader, key: str, validator: Validator, variable: str, environ: Mapping[str, str]
) -> Any:
    """Return the validated value of an environment variable; None if it is not set, or is invalid.

    An invalid value is reported as a problem. ``key`` is the setting that takes its value from the variable.
    """
    if not (value := environ.get(variable, "").strip()):
        return None
    try:
        return validator(value)
    except Invalid as invalid:
        what = f"LLM_POOL[{reader.alias!r}] takes its {key} from {variable}, which {invalid.what}."
        reader.problems.append(Problem(invalid.id, reader.alias, variable, HIDDEN, what, invalid.hint))
        return None


def _read_limits(reader: Reader) -> Limits:
    valid = reader.read(_LIMITS)
    limits = Limits(**valid)
    if "max_keepalive_connections" not in valid:
        # The default must not contradict the other limits.
        kept = min(max(limits.max_keepalive_connections, limits.min_connections), limits.max_connections)
        limits = replace(limits, max_keepalive_connections=kept)
    for lower, upper in (
        ("max_keepalive_connections", "max_connections"),
        ("min_connections", "max_keepalive_connections"),
    ):
        low, high = getattr(limits, lower), getattr(limits, upper)
        if lower in valid and low > high:
            source = "" if upper in valid else ", its default"
            invalid = Invalid(
                VALUE, f"is more than {upper} ({high}{source})", f"Lower {lower}, or raise {upper}."
            )
            reader.report(lower, invalid, str(low))
    return limits


def _read_tls(reader: Reader) -> TLS:
    valid = reader.read(_TLS, hide=("client_cert",))
    if valid.get("context") is not None and len(valid) > 1:
        others = ", ".join(name for name in valid if name != "context")
        reader.report(
            "context", Invalid(VALUE, f"takes the place of {others}", "Set those on the context itself.")
        )
    return TLS(**valid)
