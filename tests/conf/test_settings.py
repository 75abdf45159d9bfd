from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from hypothesis import given
from hypothesis import strategies as st

from llm_pool.conf.reader import Problem
from llm_pool.conf.secret import Secret
from llm_pool.conf.settings import PoolSettings, load, load_with_problems
from llm_pool.engine.config import DNS, TLS, Limits, PoolConfig, Timeouts
from llm_pool.providers.openai import OpenAI

SECRET = "sk-do-not-show"


def one(given: Any, **environ: str) -> PoolSettings:
    return load({"default": given}, environ)["default"]


def problems(setting: Any, environ: dict[str, str]) -> list[Problem]:
    return load_with_problems(setting, environ)[1]


def the_problem(given: Any, **environ: str) -> tuple[str, str]:
    """Return the message and the hint of the only problem."""
    [problem] = problems({"default": given}, environ)
    assert SECRET not in repr(problem)
    return problem.message, problem.hint


# --- valid settings


def test_without_settings_a_pool_has_defaults_and_the_environments_key() -> None:
    pool = one({}, OPENAI_API_KEY="k")
    assert pool.alias == "default"
    assert isinstance(pool.provider, OpenAI)
    assert pool.base_url == "https://api.openai.com/v1"
    assert pool.key() == "k"
    assert pool.model is None
    assert pool.engine == "native"
    assert pool.pool == PoolConfig()


def test_without_an_argument_the_django_setting_is_read(settings: Any) -> None:
    settings.LLM_POOL = {"other": {"MODEL": "m"}}
    assert list(load()) == ["other"]
    del settings.LLM_POOL
    assert list(load()) == ["default"]


def test_every_key_is_read(tmp_path: Path) -> None:
    pool = one(
        {
            "PROVIDER": "llm_pool.providers.openai.OpenAI",
            "BASE_URL": "http://gateway.example:8080/v1/",
            "API_KEY": " key\n",
            "MODEL": "m",
            "HEADERS": {"X-Team": "a b"},
            "QUERY": {"api-version": "1", "tag": ["a", "b"]},
            "ENGINE": "native",
            "HTTP2": "prior-knowledge",
            "LIMITS": {
                "max_connections": 5,
                "max_waiting": 0,
                "keepalive_expiry": None,
                "max_streams_per_connection": 8,
                "max_answer_bytes": 1_000_000,
            },
            "TIMEOUTS": {"connect": 1, "total": 30.5, "read": None, "first_token": None, "between_tokens": 9},
            "DNS": {"ttl": 0, "resolver": "aiodns"},
            "TLS": {"ca_file": tmp_path / "ca.pem", "client_cert": ["c.pem", Path("k.pem"), "pw"]},
            "PROXY": "http://user:pw@proxy.example:3128",
        }
    )
    assert pool.base_url == "http://gateway.example:8080/v1"
    assert pool.key() == "key"
    assert pool.model == "m"
    assert pool.headers == {"X-Team": "a b"}
    assert pool.query == {"api-version": "1", "tag": ["a", "b"]}
    assert pool.pool == PoolConfig(
        limits=Limits(
            max_connections=5,
            max_keepalive_connections=5,
            max_waiting=0,
            keepalive_expiry=None,
            max_streams_per_connection=8,
            max_answer_bytes=1_000_000,
        ),
        timeouts=Timeouts(connect=1.0, total=30.5, read=None, first_token=None, between_tokens=9.0),
        http2="prior-knowledge",
        dns=DNS(ttl=0.0, resolver="aiodns"),
        tls=TLS(ca_file=str(tmp_path / "ca.pem"), client_cert=("c.pem", "k.pem", "pw")),
        proxy="http://user:pw@proxy.example:3128",
    )


def test_none_means_the_default() -> None:
    nones = dict.fromkeys(["PROVIDER", "BASE_URL", "API_KEY", "MODEL", "HEADERS", "QUERY", "PROXY", "UDS"])
    assert one(nones, OPENAI_API_KEY="k").base_url == "https://api.openai.com/v1"
    assert one({"PROXY": ""}).pool.proxy == ""
    assert one({"PROXY": None}).pool.proxy is None


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        ({}, 20),
        ({"max_connections": 5}, 5),
        ({"min_connections": 30}, 30),
        ({"max_connections": 500, "max_keepalive_connections": 200}, 200),
        ({"max_keepalive_connections": 0}, 0),
    ],
)
def test_a_default_never_contradicts_an_explicit_limit(limits: dict[str, int], kept: int) -> None:
    assert one({"LIMITS": limits}).pool.limits.max_keepalive_connections == kept


def test_the_url_is_read_from_the_environment() -> None:
    assert one({}, OPENAI_BASE_URL="http://127.0.0.1:8080/v1/").base_url == "http://127.0.0.1:8080/v1"
    assert one({}, OPENAI_BASE_URL="").base_url == "https://api.openai.com/v1"
    assert one({"BASE_URL": "http://a/"}, OPENAI_BASE_URL="http://b").base_url == "http://a"


def test_a_query_in_the_url_is_taken_into_query() -> None:
    pool = one({"BASE_URL": "https://x/v1/?api-version=1&tag=a&tag=b%26&flag", "QUERY": {"api-version": "2"}})
    assert pool.base_url == "https://x/v1"
    assert pool.query == {"api-version": "2", "tag": ["a", "b&"], "flag": [""]}
    pool = one({}, OPENAI_BASE_URL="https://x/v1?api-version=1")
    assert (pool.base_url, pool.query) == ("https://x/v1", {"api-version": ["1"]})
    assert one({"BASE_URL": "https://x/v1?"}).query == {}


AZURE = "https://name.openai.azure.com"


@pytest.mark.parametrize(
    ("given", "environ", "place", "hint"),
    [
        (
            {},
            {"OPENAI_API_VERSION": "1"},
            "['BASE_URL'] is not set, and azure has no common server.",
            "Give the URL of your own, or set the environment variable AZURE_OPENAI_ENDPOINT.",
        ),
        (
            {"BASE_URL": AZURE},
            {},
            f"['QUERY'] has no 'api-version', which azure requires at {AZURE}.",
            'Give {"api-version": "..."}, or set the environment variable OPENAI_API_VERSION.',
        ),
        ({"BASE_URL": f"{AZURE}/openai/deployments/gpt"}, {}, "['QUERY'] has no 'api-version'", "Give"),
        ({}, {"AZURE_OPENAI_ENDPOINT": AZURE}, "['QUERY'] has no 'api-version'", "Give"),
        (
            {"BASE_URL": f"{AZURE}/openai/v1/chat/completions"},
            {},
            "ends in /chat/completions",
            f"Give '{AZURE}/openai/v1'.",
        ),
        ({"BASE_URL": "https://"}, {}, "names no host", "Give a URL"),
        ({}, {"AZURE_OPENAI_ENDPOINT": "https://"}, "from AZURE_OPENAI_ENDPOINT, which names no", "Give"),
    ],
)
def test_azure_needs_a_url_and_a_version(
    given: dict[str, Any], environ: dict[str, str], place: str, hint: str
) -> None:
    message, hinted = the_problem({"PROVIDER": "azure", **given}, **environ)
    assert place in message
    assert hint in hinted


@pytest.mark.parametrize(
    ("given", "environ", "query"),
    [
        ({"BASE_URL": f"{AZURE}?api-version=1"}, {"OPENAI_API_VERSION": "2"}, {"api-version": ["1"]}),
        ({"BASE_URL": AZURE, "QUERY": {"api-version": "1"}}, {}, {"api-version": "1"}),
        ({"BASE_URL": AZURE}, {"OPENAI_API_VERSION": " 2 "}, {"api-version": "2"}),
        ({"BASE_URL": f"{AZURE}/openai/v1/"}, {"OPENAI_API_VERSION": "2"}, {}),
    ],
)
def test_azures_version_comes_from_the_url_the_query_or_the_environment(
    given: dict[str, Any], environ: dict[str, str], query: dict[str, Any]
) -> None:
    assert one({"PROVIDER": "azure", **given}, **environ).query == query


def test_the_values_of_a_query_are_secrets() -> None:
    pool = one({"QUERY": {"api-version": "2024-10-21", "code": f"{SECRET}/=", "t": "abc", "tag": ["alpha"]}})
    assert set(pool.secrets(None)) == {f"{SECRET}/=", f"{SECRET}%2F%3D", "alpha"}
    assert SECRET not in repr(pool)


# --- the key


def test_a_callable_key_is_called_each_time() -> None:
    keys = iter(["a", "b\n"])
    pool = one({"API_KEY": lambda: next(keys)})
    assert (pool.key(), pool.key()) == ("a", "b")


@pytest.mark.parametrize("bad", [None, 5, "", f"{SECRET}\r\nx: y", f"{SECRET}é"])
def test_an_invalid_key_from_a_callable_is_refused_without_showing_it(bad: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"LLM_POOL\['default'\]\['API_KEY'\]") as caught:
        one({"API_KEY": lambda: bad}).key()
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        {"BASE_URL": "http://127.0.0.1:8080/v1"},
        {"BASE_URL": "http://127.9.9.9"},
        {"BASE_URL": "http://localhost/v1"},
        {"BASE_URL": "http://model.localhost/v1"},
        {"BASE_URL": "http://[::1]:80/v1"},
        {"UDS": "/run/llm.sock"},
        {"BASE_URL": "http://vllm.internal", "API_KEY": ""},
        {"HEADERS": {"authorization": "Basic x"}},
    ],
)
def test_no_key_is_sent_to_a_server_that_requires_none(given: dict[str, Any]) -> None:
    assert not one(given).needs_key
    assert one(given).key() is None


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"API_KEY": ""},
        {"API_KEY": None},
        {"BASE_URL": "http://10.0.0.1"},
        {"BASE_URL": "http://localhost.example"},
    ],
)
def test_a_missing_key_raises_when_it_is_needed_with_what_to_set(given: dict[str, Any]) -> None:
    pool = one(given)
    assert pool.needs_key
    with pytest.raises(
        ImproperlyConfigured, match=r"OPENAI_API_KEY, or \"API_KEY\" in LLM_POOL\['default'\]"
    ):
        pool.key()


def test_an_empty_key_in_the_settings_is_not_replaced_by_the_environments() -> None:
    assert one({"BASE_URL": "http://elsewhere", "API_KEY": ""}, OPENAI_API_KEY=SECRET).key() is None


def test_no_repr_shows_a_secret() -> None:
    pool = one(
        {
            "API_KEY": SECRET,
            "HEADERS": {"X-Key": SECRET},
            "PROXY": f"http://u:{SECRET}@p:1",
            "TLS": {"client_cert": ("c", "k", SECRET)},
        }
    )
    assert SECRET not in repr(pool) + str(pool) + repr(pool.api_key) + f"{pool.api_key}"
    assert repr(Secret(SECRET)) == "Secret('***')"
    assert pool.key() == SECRET


# --- invalid settings


@pytest.mark.parametrize(
    ("given", "place", "hint"),
    [
        ({"TIMEOUT": {}}, "['TIMEOUT'] is not a known key", "Did you mean 'TIMEOUTS'?"),
        ({"base_url": "x"}, "['base_url'] is not a known key", "Did you mean 'BASE_URL'?"),
        ({"API_KEYS": SECRET}, "['API_KEYS'] is not a known key", "Did you mean 'API_KEY'?"),
        ({"QUIC": True}, "['QUIC'] is not a known key", "The keys are PROVIDER, BASE_URL,"),
        ({5: 1}, "[5] is not a known key", "The keys are"),
        (
            {"LIMITS": {"max_connection": 5}},
            "['LIMITS']['max_connection'] is not a known key",
            "'max_connections'?",
        ),
        ({"TLS": {"verfy": 5}}, "['TLS']['verfy'] is not a known key", "'verify'?"),
        (None, "LLM_POOL['default'] is None, not a dict", "Give a dict"),
        (SECRET, "LLM_POOL['default'] is a str, not a dict", "Give a dict"),
        ({"LIMITS": 5}, "['LIMITS'] is an int, not a dict", 'Give a dict: {"max_connections": 100}.'),
        ({"LIMITS": None}, "['LIMITS'] is None, not a dict", "Give a dict"),
        (
            {"LIMITS": {"max_connections": "50"}},
            "= '50' is a str, not a whole number",
            "Write 50, without quotes.",
        ),
        ({"LIMITS": {"max_connections": True}}, "= True is a bool, not a whole number", "Give a number."),
        ({"LIMITS": {"max_connections": 5.0}}, "= 5.0 is a float, not a whole number", "Give a number."),
        ({"LIMITS": {"max_connections": None}}, "is None, not a whole number", "Give a number."),
        ({"LIMITS": {"max_connections": 0}}, "= 0 is less than 1", "Give 1 or more."),
        ({"LIMITS": {"max_waiting": -1}}, "= -1 is less than 0", "Give 0 or more."),
        ({"LIMITS": {"max_connections_per_host": 0}}, "is less than 1", "Give 1 or more."),
        (
            {"LIMITS": {"max_connections": 5, "max_keepalive_connections": 6}},
            "['max_keepalive_connections'] = 6 is more than max_connections (5)",
            "Lower max_keepalive_connections, or raise max_connections.",
        ),
        (
            {"LIMITS": {"max_keepalive_connections": 101}},
            "more than max_connections (100, its default)",
            "raise",
        ),
        ({"LIMITS": {"min_connections": 101}}, "= 101 is more than max_keepalive_connections", "Lower"),
        ({"LIMITS": {"min_connections": 6, "max_keepalive_connections": 5}}, "= 6 is more than", "Lower"),
        ({"TIMEOUTS": {"read": "60"}}, "['TIMEOUTS']['read'] = '60' is a str", "Write 60, without quotes."),
        ({"TIMEOUTS": {"read": "1m"}}, "= '1m' is a str", "Give a number, or None for no limit."),
        ({"TIMEOUTS": {"read": False}}, "= False is a bool", "Give a number"),
        ({"TIMEOUTS": {"read": float("nan")}}, "= nan is not a finite number", "Give None for no limit."),
        ({"TIMEOUTS": {"read": float("inf")}}, "= inf is not a finite number", "Give None for no limit."),
        ({"TIMEOUTS": {"read": 10**400}}, "is not a finite number", "Give None for no limit."),
        ({"TIMEOUTS": {"read": -1}}, "= -1 is less than 0", "Give seconds"),
        ({"TIMEOUTS": {"read": 0}}, "must be greater than 0", "Give seconds"),
        ({"TIMEOUTS": 60}, "['TIMEOUTS'] is an int, not a dict", "Give a dict"),
        ({"DNS": {"ttl": None}}, "is None, not a number of seconds", "Give a number."),
        (
            {"DNS": {"resolver": "aiodn"}},
            "['resolver'] = 'aiodn' is not a known resolver",
            "Did you mean 'aiodns'?",
        ),
        (
            {"DNS": {"resolver": "8.8.8.8"}},
            "is not a known resolver",
            "Give 'system', 'aiodns', or leave it out.",
        ),
        ({"DNS": {"resolver": None}}, "is None, not a string", "Give 'system', 'aiodns', or leave it out."),
        ({"TLS": {"verify": "no"}}, "= 'no' is a str, not True or False", "Give True or False"),
        ({"TLS": {"verify": 0}}, "= 0 is an int, not True or False", "Give True or False"),
        ({"TLS": {"ca_file": ""}}, "is empty", "Give a string."),
        ({"TLS": {"ca_file": b"x"}}, "is a bytes, not a string", "Give a string."),
        (
            {"TLS": {"client_cert": ("c", "k", SECRET, "x")}},
            "['client_cert'] is not a client certificate",
            "Give a path",
        ),
        ({"TLS": {"client_cert": ("c", 5)}}, "is not a client certificate", "Give a path"),
        ({"TLS": {"context": "x"}}, "= 'x' is a str, not an ssl.SSLContext", "create_default_context"),
        ({"WARN_UTILIZATION": "80%"}, "= '80%' is a str, not a number", "Give a number such as 0.8"),
        ({"WARN_UTILIZATION": 80}, "= 80 is not between 0 and 1", "Give a number such as 0.8"),
        ({"LEAK_THRESHOLD": 0}, "must be greater than 0", "Give seconds, or None"),
        ({"PROVIDER": "opnai"}, "= 'opnai' is not a known provider", "Did you mean 'openai'?"),
        (
            {"PROVIDER": "zzz"},
            "= 'zzz' is not a known provider",
            "Give 'openai', 'openai-responses', 'anthropic', 'azure', or the dotted path",
        ),
        ({"PROVIDER": OpenAI}, "is an ABCMeta, not a string", "Give 'openai'"),
        ({"PROVIDER": "no.such.Thing"}, "cannot be used: No module named 'no'", "Give 'openai'"),
        ({"PROVIDER": "json.dumps"}, "cannot be used: json.dumps is not a subclass", "Give 'openai'"),
        (
            {"PROVIDER": "json.JSONDecoder"},
            "cannot be used: json.JSONDecoder is not a subclass",
            "Give 'openai'",
        ),
        ({"PROVIDER": "json.Nothing"}, 'Module "json" does not define a "Nothing"', "Give 'openai'"),
        ({"PROVIDER": "openai_responses"}, "is not a known provider", "Did you mean 'openai-responses'?"),
        (
            {"PROVIDER": "openai-responses", "BASE_URL": "https://x/v1/responses"},
            "ends in /responses",
            "Give",
        ),
        ({"PROVIDER": "anthropic_"}, "= 'anthropic_' is not a known provider", "Did you mean 'anthropic'?"),
        ({"PROVIDER": ""}, "is not a known provider", "Give 'openai'"),
        ({"PROVIDER": "."}, "is not a known provider", "Give 'openai'"),
        ({"PROVIDER": "a b.c"}, "is not a known provider", "Give 'openai'"),
        ({"ENGINE": "httpcor"}, "= 'httpcor' is not a known engine", "Did you mean 'httpcore'?"),
        (
            {"ENGINE": "curl"},
            "= 'curl' is not a known engine",
            "Give 'native', 'httpcore', 'aiohttp', or leave it",
        ),
        ({"ENGINE": None}, "['ENGINE'] is None, not a string", "Give 'native', 'httpcore', 'aiohttp', or"),
        ({"HTTP2": "h2c"}, "= 'h2c' is not a valid HTTP2 value", 'Give True, False or "prior-knowledge".'),
        ({"HTTP2": 1}, "= 1 is not a valid HTTP2 value", 'Give True, False or "prior-knowledge".'),
        ({"LIMITS": {"max_answer_bytes": 0}}, "= 0 is less than 1", "Give 1 or more."),
        ({"LIMITS": {"max_streams_per_connection": 0}}, "= 0 is less than 1", "Give 1 or more."),
        ({"MODEL": ["m"]}, "= ['m'] is a list, not a string", "Give a string."),
        ({"MODEL": " "}, "is empty", "Give a string."),
        ({"UDS": "/a\0b"}, "holds a NUL", "Give a string."),
        ({"UDS": "/a", "PROXY": "http://p"}, "['PROXY'] and UDS are both given", "Give one of them."),
        (
            {"BASE_URL": "localhost:8080"},
            "['BASE_URL'] = 'localhost:8080' does not begin with http:// or https://",
            "Give a URL",
        ),
        ({"BASE_URL": "api.openai.com"}, "does not begin with http:// or https://", "Give a URL"),
        ({"BASE_URL": "ftp://x"}, "does not begin with http:// or https://", "Give a URL"),
        ({"BASE_URL": "https://"}, "names no host", "Give a URL"),
        ({"BASE_URL": "https:///v1"}, "names no host", "Give a URL"),
        ({"BASE_URL": "https://x:99999"}, "['BASE_URL'] = 'https://x:99999' ", ""),
        ({"BASE_URL": "https://[::1"}, "is not a valid URL", "Give a URL"),
        ({"BASE_URL": "https://a b/v1"}, "holds a space", "Give a URL"),
        ({"BASE_URL": "https://a/v1\n"}, "holds a space, backslash or control character", "Give a URL"),
        (
            {"BASE_URL": f"https://u:{SECRET}@x/v1"},
            "holds a user name or password",
            "Give the key as API_KEY.",
        ),
        ({"BASE_URL": f"https://x/v1?key={SECRET}#a"}, "holds a fragment", "the part before it"),
        ({"BASE_URL": "https://x/v1#a"}, "holds a fragment", "the part before it"),
        ({"BASE_URL": f"https://x/v1?{SECRET}=%ff"}, "holds a query that is not valid", "Give it as QUERY"),
        ({"BASE_URL": f"https://u:p@x/v1?{SECRET}"}, "holds a user name or password", "as API_KEY."),
        (
            {"BASE_URL": f"https://x/v1/chat/completions?key={SECRET}"},
            "ends in /chat/completions",
            "Give 'https://x/v1'.",
        ),
        ({"QUERY": f"key={SECRET}"}, "['QUERY'] is a str, not a dict", 'Give a dict: {"api-version"'),
        ({"QUERY": {"n": 5}}, "has 'n', whose name or value is not a string", "Give strings, or lists of"),
        ({"QUERY": {5: SECRET}}, "has 5, whose name or value is not a string", "Give strings"),
        ({"QUERY": {"key": [SECRET, None]}}, "has 'key', whose name or value is not a string", "Give"),
        ({"QUERY": {"a": []}}, "has 'a' without a value", "Leave it out."),
        ({"QUERY": {"": SECRET}}, "has a value without a name", "Leave it out."),
        ({"QUERY": {"key": f"{SECRET}\ud800"}}, "has 'key' with a lone surrogate", "Give valid text."),
        ({"BASE_URL": 5}, "is an int, not a string", "Give a URL"),
        ({"BASE_URL": "https://x/v1/chat/completions"}, "ends in /chat/completions", "Give 'https://x/v1'."),
        ({"BASE_URL": "https://x/v1/completions"}, "ends in /completions", "Give 'https://x/v1'."),
        ({"BASE_URL": "https://x/v1/embeddings/"}, "ends in /embeddings", "Give 'https://x/v1'."),
        ({"BASE_URL": "https://x/v1/responses"}, "ends in /responses", "Give 'https://x/v1'."),
        ({"PROVIDER": "anthropic", "BASE_URL": "https://x/v1/messages"}, "/v1/messages", "Give 'https://x'."),
        ({"PROVIDER": "anthropic", "BASE_URL": "https://x/v1"}, "ends in /v1", "Give 'https://x'."),
        ({"API_KEY": f"Bearer {SECRET}"}, 'begins with "Bearer"', "Give the key alone"),
        ({"API_KEY": "OPENAI_API_KEY"}, "is the name of a variable", "Give os.environ[...]"),
        ({"PROXY": "socks4://x"}, "['PROXY'] does not begin with http://", "Give a URL"),
        ({"PROXY": "socks5://u:%C3%B6@x"}, "ASCII characters", "Give a URL"),
        ({"PROXY": "proxy:3128"}, "does not begin with http://", "Give a URL"),
        ({"API_KEY": 5}, "['API_KEY'] is an int, not a string or callable", "Give a string, or a callable."),
        ({"API_KEY": SECRET.encode()}, "is a bytes, not a string", "Give a string"),
        (
            {"API_KEY": f"{SECRET}\nx"},
            "a character that no HTTP header can carry",
            "as its provider shows it",
        ),
        ({"HEADERS": [("a", "b")]}, "['HEADERS'] is a list, not a dict", "Give a dict"),
        ({"HEADERS": {"X-A": 5}}, "has 'X-A', whose name or value is not a string", "Give strings."),
        ({"HEADERS": {5: "x"}}, "has 5, whose name or value is not a string", "Give strings."),
        ({"HEADERS": {"X A": "x"}}, "has 'X A', which is not a valid header name", "Use letters"),
        ({"HEADERS": {"X-A\n": "x"}}, "which is not a valid header name", "Use letters"),
        (
            {"HEADERS": {"X-A": f"{SECRET}\r\nB: c"}},
            "has 'X-A' with a value that no HTTP",
            "Use printable ASCII",
        ),
        ({"HEADERS": {"X-A": f"{SECRET}é"}}, "has 'X-A' with a value that no HTTP", "Use printable ASCII"),
        ({"HEADERS": {"X-A": f"{SECRET}\0"}}, "has 'X-A' with a value that no HTTP", "Use printable ASCII"),
        ({"HEADERS": {"content-Length": "5"}}, "which the pool itself sets", "Leave it out."),
        ({"HEADERS": {"x-a": "1", "X-A": "2"}}, "has 'X-A' twice, in different case", "Leave one out."),
    ],
)
def test_a_problem_has_its_place_its_value_and_a_hint(given: Any, place: str, hint: str) -> None:
    message, hinted = the_problem(given)
    assert place in message
    assert hint in hinted
    assert message.startswith("LLM_POOL['default']")
    with pytest.raises(ImproperlyConfigured) as caught:
        one(given)
    assert message in str(caught.value)
    assert hinted in str(caught.value)


def test_a_context_cannot_be_combined_with_other_tls_keys() -> None:
    context = ssl.create_default_context()
    assert one({"TLS": {"context": context}}).pool.tls.context is context
    message, _ = the_problem({"TLS": {"context": context, "verify": True}})
    assert "takes the place of verify" in message


@pytest.mark.parametrize("setting", [[], "x", 5, False])
def test_a_setting_that_is_not_a_dict_is_a_problem(setting: Any) -> None:
    [problem] = problems(setting, {})
    assert problem.id == "E001"
    assert "LLM_POOL is a" in problem.message


def test_a_pool_without_a_name_is_a_problem() -> None:
    assert [p.id for p in problems({5: {}, "": {}}, {})] == ["E001", "E001"]


def test_an_invalid_url_in_the_environment_is_a_problem_with_the_variables_name() -> None:
    message, hint = the_problem({}, OPENAI_BASE_URL=f"https://u:{SECRET}@x")
    assert message == (
        "LLM_POOL['default'] takes its BASE_URL from OPENAI_BASE_URL, which holds a user name or password."
    )
    assert hint


def test_an_invalid_key_in_the_environment_is_a_problem_and_not_shown() -> None:
    [problem] = problems({"default": {}}, {"OPENAI_API_KEY": f"{SECRET}\u201d"})
    assert "takes its API_KEY from OPENAI_API_KEY, which holds a character" in problem.message
    assert problem.id == "E004"
    assert SECRET not in repr(problem)


@pytest.mark.parametrize("header", ["Authorization", "api-key"])
def test_a_key_in_the_headers_replaces_that_of_the_environment(header: str) -> None:
    """The key in the environment is for OpenAI, and the server may belong to another company."""
    pool = one({"HEADERS": {header: "Bearer mine"}}, OPENAI_API_KEY=SECRET)
    assert pool.key() is None
    assert pool.secrets(None) == ("mine",)
    given = one({"HEADERS": {header: "Bearer mine"}, "API_KEY": SECRET})
    assert given.key() == SECRET  # an explicit API_KEY is kept


def test_a_very_short_key_is_not_hidden() -> None:
    assert one({"API_KEY": "x"}).secrets("x") == ()
    assert one({"API_KEY": SECRET}).secrets(SECRET) == (SECRET,)


def test_a_setting_without_pools_is_a_problem() -> None:
    [problem] = problems({}, {})
    assert (problem.message, problem.id) == ("LLM_POOL has no pools.", "E001")
    assert "leave LLM_POOL out" in problem.hint


def test_settings_of_a_pool_without_its_name_are_one_problem() -> None:
    [problem] = problems({"PROVIDER": "openai", "MODEL": "m", "LIMITS": {}}, {})
    assert problem.message == "LLM_POOL has the key 'PROVIDER' where the name of a pool belongs."
    assert '{"default": {"PROVIDER": ...}}' in problem.hint


@pytest.mark.parametrize("path", ["models", "chat", "v1", "openai/v1beta"])
def test_a_base_url_can_have_any_other_path(path: str) -> None:
    assert one({"BASE_URL": f"https://x/{path}"}).base_url == f"https://x/{path}"


@pytest.mark.parametrize(
    ("key", "section"),
    [("max_connections", "LIMITS"), ("read", "TIMEOUTS"), ("verify", "TLS"), ("ttl", "DNS")],
)
def test_a_key_outside_its_section_has_a_hint_with_the_section(key: str, section: str) -> None:
    [problem] = problems({"default": {key: 5}}, {})
    assert problem.hint == f"It belongs inside '{section}': {{'{section}': {{'{key}': ...}}}}."


def test_all_problems_of_all_pools_are_found() -> None:
    setting = {
        "a": {"LIMITS": {"max_connections": "5", "max_waitng": 1}, "MODEL": 5},
        "b": {"TIMEOUTS": {"read": -1}, "X": 1},
    }
    pools, found = load_with_problems(setting, {})
    assert [(p.alias, p.key, p.id) for p in found] == [
        ("a", "MODEL", "E003"),
        ("a", "LIMITS.max_connections", "E003"),
        ("a", "LIMITS.max_waitng", "E002"),
        ("b", "X", "E002"),
        ("b", "TIMEOUTS.read", "E004"),
    ]
    assert list(pools) == ["a", "b"]
    with pytest.raises(ImproperlyConfigured, match=r"\(4 more: run manage.py check\.\)"):
        load(setting, {})


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.text()
            | st.sampled_from(
                [
                    "default",
                    "LIMITS",
                    "TLS",
                    "BASE_URL",
                    "HEADERS",
                    "API_KEY",
                    "PROXY",
                    "max_connections",
                    "verify",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(VALUES)
def test_any_setting_gives_only_problems_with_known_ids(setting: Any) -> None:
    for value in (setting, {"default": setting}, {"default": {"BASE_URL": setting, "LIMITS": setting}}):
        for problem in problems(value, {}):
            assert problem.message
            assert problem.id in {"E001", "E002", "E003", "E004"}
