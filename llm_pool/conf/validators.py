"""The validators for single keys of ``LLM_POOL``.

Each takes the value from the settings, and returns the value for ``PoolSettings``. Each raises ``Invalid``,
with what is wrong and what to change, for a value that is not valid.
"""

from __future__ import annotations

import difflib
import os
import re
import ssl
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any
from urllib.parse import parse_qs

import httpx
from django.utils.module_loading import import_string

from llm_pool.backends import ENGINES, missing_extra
from llm_pool.conf.reader import TYPE, VALUE, Invalid
from llm_pool.engine.head import TEXT_TOKEN
from llm_pool.exceptions import ProxyFailed, with_article
from llm_pool.providers import PROVIDERS
from llm_pool.providers.base import Provider

__all__ = [
    "api_key",
    "base_url",
    "client_cert",
    "context",
    "engine",
    "fraction",
    "headers",
    "http2",
    "is_header_value",
    "provider",
    "proxy",
    "query",
    "resolver",
]

_RESOLVERS = ("system", "aiodns")
_FRAMING = {"accept-encoding", "connection", "content-length", "host", "transfer-encoding"}


def provider(value: Any) -> Provider | None:
    """Validate a provider's name, or the dotted path of its class; return an instance. None stays None."""
    if value is None:
        return None
    names = ", ".join(repr(name) for name in PROVIDERS)
    hint = f"Give {names}, or the dotted path of a Provider."
    if not isinstance(value, str):
        raise Invalid(TYPE, f"is {with_article(value)}, not a string", hint)
    if value in PROVIDERS:
        return PROVIDERS[value]()
    if "." not in value or not all(part.isidentifier() for part in value.split(".")):
        raise Invalid(VALUE, "is not a known provider", _nearest(value, PROVIDERS) or hint)
    try:
        provider_class = import_string(value)
        if not (isinstance(provider_class, type) and issubclass(provider_class, Provider)):
            raise TypeError(f"{value} is not a subclass of llm_pool.types.Provider")
        return provider_class()
    except Exception as error:  # the import of a user's module can raise any exception
        raise Invalid(VALUE, f"cannot be used: {error}", hint) from error


def engine(value: Any) -> str:
    """Validate the name of an engine. The packages that it needs must be installed."""
    name = _one_of(value, ENGINES, "engine")
    _raise_if_missing(missing_extra(name))
    return name


def http2(value: Any) -> bool | str:
    """Validate True (offer HTTP/2 by ALPN), False, or "prior-knowledge" (RFC 9113, section 3.3)."""
    if value is True or value is False or value == "prior-knowledge":
        return bool(value) if isinstance(value, bool) else str(value)
    check_id = TYPE if not isinstance(value, str) else VALUE
    raise Invalid(check_id, "is not a valid HTTP2 value", 'Give True, False or "prior-knowledge".')


def resolver(value: Any) -> str:
    """Validate the name of a resolver. The package that it needs must be installed."""
    name = _one_of(value, _RESOLVERS, "resolver")
    _raise_if_missing("aiodns" if name == "aiodns" and find_spec("aiodns") is None else None)
    return name


def fraction(value: Any) -> float | None:
    """Validate a number greater than 0 and at most 1, or None, which means "never"."""
    hint = "Give a number such as 0.8, or None for never."
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Invalid(TYPE, f"is {with_article(value)}, not a number", hint)
    if not 0 < value <= 1:
        raise Invalid(VALUE, "is not between 0 and 1", hint)
    return float(value)


def base_url(value: Any) -> tuple[str, dict[str, list[str]]] | None:
    """Validate an absolute URL with scheme http or https, or None. Return the URL and its query.

    The returned URL has no query, and no slash at its end. The given URL must not contain a user name, a
    password or a fragment.
    """
    if value is None:
        return None
    url = _url(value, ("http", "https"), 'Give a URL such as "https://api.openai.com/v1".')
    if url.userinfo:
        raise Invalid(VALUE, "holds a user name or password", "Give the key as API_KEY.")
    if "#" in value:
        raise Invalid(VALUE, "holds a fragment", "Give the part before it.")
    try:
        parameters = parse_qs(url.query.decode("ascii"), keep_blank_values=True, errors="strict")
    except ValueError:
        raise Invalid(
            VALUE, "holds a query that is not valid", 'Give it as QUERY: {"name": "value"}.'
        ) from None
    return str(url.copy_with(query=None)).rstrip("/"), parameters


def proxy(value: Any) -> str | None:
    """Validate the URL of a proxy, "" for no proxy, or None to use the proxy from the environment."""
    if value is None or value == "":
        return None if value is None else ""
    hint = 'Give a URL such as "http://proxy.example:3128", or "" for no proxy.'
    _url(value, ("http", "https", "socks5", "socks5h", "socks"), hint)
    from llm_pool.engine.dialer.proxy import parse_proxy  # noqa: PLC0415  most pools have no proxy

    try:
        parse_proxy(value)
    except ProxyFailed as error:
        raise Invalid(VALUE, f"cannot be used: {error}", hint) from None
    return str(value)


def api_key(value: Any) -> Any:
    """Validate a key, "" for no key, a callable that returns a key (or an awaitable of it), or None.

    White space around a key is removed.
    """
    if value is None or callable(value):
        return value
    if not isinstance(value, str):
        raise Invalid(
            TYPE, f"is {with_article(value)}, not a string or callable", "Give a string, or a callable."
        )
    if not is_header_value(value.strip()):
        raise Invalid(
            VALUE, "holds a character that no HTTP header can carry", "Give it as its provider shows it."
        )
    key = value.strip()
    if key[:7].lower() == "bearer ":
        raise Invalid(VALUE, 'begins with "Bearer"', "Give the key alone: the word is added to it.")
    if re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*_(KEY|TOKEN)", key):
        raise Invalid(VALUE, "is the name of a variable, not a key", "Give os.environ[...], or leave it out.")
    return key


def headers(value: Any) -> dict[str, str]:
    """Validate a dict of headers. None becomes {}.

    Raises ``Invalid`` for a header that HTTP cannot carry, for a header that only the pool sets, and for a
    name that occurs twice in different case.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise Invalid(TYPE, f"is {with_article(value)}, not a dict", 'Give a dict: {"X-Name": "value"}.')
    seen: set[str] = set()
    for name, content in value.items():
        if not isinstance(name, str) or not isinstance(content, str):
            raise Invalid(TYPE, f"has {name!r}, whose name or value is not a string", "Give strings.")
        if not TEXT_TOKEN.fullmatch(name):
            raise Invalid(
                VALUE, f"has {name!r}, which is not a valid header name", "Use letters, digits and hyphens."
            )
        if not is_header_value(content):
            hint = "Use printable ASCII, without line breaks, and no space at either end."
            raise Invalid(VALUE, f"has {name!r} with a value that no HTTP header can carry", hint)
        if name.lower() in _FRAMING:
            raise Invalid(VALUE, f"has {name!r}, which the pool itself sets", "Leave it out.")
        if name.lower() in seen:
            raise Invalid(VALUE, f"has {name!r} twice, in different case", "Leave one out.")
        seen.add(name.lower())
    return dict(value)


def query(value: Any) -> dict[str, str | Sequence[str]]:
    """Validate a dict of query parameters: a string, or a list of strings, for each name. None becomes {}."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        hint = 'Give a dict: {"api-version": "2024-10-21"}.'
        raise Invalid(TYPE, f"is {with_article(value)}, not a dict", hint)
    for name, content in value.items():
        texts = [name, *(content if isinstance(content, (list, tuple)) else [content])]
        if not all(isinstance(text, str) for text in texts):
            what = f"has {name!r}, whose name or value is not a string"
            raise Invalid(TYPE, what, "Give strings, or lists of strings.")
        if not name or len(texts) == 1:
            what = f"has {name!r} without a value" if name else "has a value without a name"
            raise Invalid(VALUE, what, "Leave it out.")
        try:
            "".join(texts).encode("utf-8")
        except UnicodeEncodeError:
            what = f"has {name!r} with a lone surrogate, which UTF-8 cannot carry"
            raise Invalid(VALUE, what, "Give valid text.") from None
    return dict(value)


def client_cert(value: Any) -> str | tuple[str, ...] | None:
    """Validate the path of a PEM file, or (certificate, key), or (certificate, key, password), or None.

    A ``pathlib.Path`` becomes a string.
    """
    if value is None:
        return None
    if isinstance(value, (str, os.PathLike)):
        value = os.fspath(value)
        if isinstance(value, str) and value:
            return value
    elif isinstance(value, (tuple, list)) and len(value) in (2, 3):
        parts = tuple(os.fspath(part) if isinstance(part, os.PathLike) else part for part in value)
        if all(isinstance(part, str) and part for part in parts):
            return parts
    hint = "Give a path, (certificate, key) or (certificate, key, password), all strings."
    raise Invalid(TYPE, "is not a client certificate", hint)


def context(value: Any) -> ssl.SSLContext | None:
    """Validate an ``ssl.SSLContext``, or None."""
    if value is not None and not isinstance(value, ssl.SSLContext):
        raise Invalid(
            TYPE, f"is {with_article(value)}, not an ssl.SSLContext", "Give ssl.create_default_context()."
        )
    return value


def is_header_value(value: str) -> bool:
    """Return whether ``value`` consists of printable ASCII and tabs, without white space at its ends.

    HTTP carries such a value unchanged (RFC 9110, section 5.5).
    """
    return all(" " <= letter <= "~" or letter == "\t" for letter in value) and value == value.strip()


def _url(value: Any, schemes: tuple[str, ...], hint: str) -> httpx.URL:
    if not isinstance(value, str):
        raise Invalid(TYPE, f"is {with_article(value)}, not a string", hint)
    if re.search(r"[\x00-\x20\x7f\\]", value):
        raise Invalid(VALUE, "holds a space, backslash or control character", hint)
    try:
        url = httpx.URL(value)
        host, port = url.host, url.port
    except (httpx.InvalidURL, ValueError):  # an invalid IDNA name raises a ValueError
        raise Invalid(VALUE, "is not a valid URL", hint) from None
    if url.scheme not in schemes:
        expected = " or ".join(f"{scheme}://" for scheme in schemes)
        raise Invalid(VALUE, f"does not begin with {expected}", hint)
    if not host:
        raise Invalid(VALUE, "names no host", hint)
    if port is not None and not 0 < port < 65536:
        raise Invalid(VALUE, f"has port {port}, and ports go from 1 to 65535", hint)
    return url


def _one_of(value: Any, names: Iterable[str], what: str) -> str:
    hint = f"Give {', '.join(repr(name) for name in names)}, or leave it out."
    if not isinstance(value, str):
        raise Invalid(TYPE, f"is {with_article(value)}, not a string", hint)
    if value not in names:
        raise Invalid(VALUE, f"is not a known {what}", _nearest(value, names) or hint)
    return value


def _raise_if_missing(extra: str | None) -> None:
    """Raise ``Invalid`` with advice to install ``extra``, an extra of this distribution; None: do nothing."""
    if extra is not None:
        what = f"needs the package {extra}, which is not installed"
        raise Invalid(VALUE, what, f'Type: python -m pip install "django-llm-pool[{extra}]"')


def _nearest(value: str, names: Iterable[str]) -> str | None:
    close = difflib.get_close_matches(value.lower(), names, n=1)
    return f"Did you mean {close[0]!r}?" if close else None
