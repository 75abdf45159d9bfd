"""``settings.LLM_POOL``: what each key does, defaults, environment variables and the API key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from llm_pool.conf import PoolSettings, Secret, load
from llm_pool.engine.config import DNS, TLS, Limits, PoolConfig, Timeouts
from llm_pool.providers.openai import OpenAI

SECRET = "sk-do-not-show"


def one(given: Any, **environ: str) -> PoolSettings:
    return load({"default": given}, environ)["default"]


# --- what is understood


def test_no_setting_at_all_is_the_provider_with_its_environment_variables() -> None:
    pool = one({}, OPENAI_API_KEY="k")
    assert pool.alias == "default"
    assert isinstance(pool.provider, OpenAI)
    assert pool.base_url == "https://api.openai.com/v1"
    assert pool.key() == "k"
    assert pool.model is None
    assert pool.engine == "native"
    assert pool.pool == PoolConfig()


def test_the_setting_is_read_where_it_is_not_given(settings: Any) -> None:
    settings.LLM_POOL = {"other": {"MODEL": "m"}}
    assert list(load()) == ["other"]
    del settings.LLM_POOL
    assert list(load()) == ["default"]


def test_everything_can_be_said(tmp_path: Path) -> None:
    pool = one(
        {
            "PROVIDER": "llm_pool.providers.openai.OpenAI",
            "BASE_URL": "http://gateway.example:8080/v1/",
            "API_KEY": " key\n",
            "MODEL": "m",
            "HEADERS": {"X-Team": "a b"},
            "ENGINE": "native",
            "HTTP2": "prior-knowledge",
            "LIMITS": {
                "max_connections": 5,
                "max_waiting": 0,
                "keepalive_expiry": None,
                "max_streams_per_connection": 8,
            },
            "TIMEOUTS": {"connect": 1, "total": 30.5, "read": None},
            "DNS": {"ttl": 0, "resolver": "aiodns"},
            "TLS": {"ca_file": tmp_path / "ca.pem", "client_cert": ["c.pem", Path("k.pem"), "pw"]},
            "PROXY": "http://user:pw@proxy.example:3128",
        }
    )
    assert pool.base_url == "http://gateway.example:8080/v1"
    assert pool.key() == "key"
    assert pool.model == "m"
    assert pool.headers == {"X-Team": "a b"}
    assert pool.pool == PoolConfig(
        limits=Limits(
            max_connections=5,
            max_keepalive_connections=5,
            max_waiting=0,
            keepalive_expiry=None,
            max_streams_per_connection=8,
        ),
        timeouts=Timeouts(connect=1.0, total=30.5, read=None),
        http2="prior-knowledge",
        dns=DNS(ttl=0.0, resolver="aiodns"),
        tls=TLS(ca_file=str(tmp_path / "ca.pem"), client_cert=("c.pem", "k.pem", "pw")),
        proxy="http://user:pw@proxy.example:3128",
    )


def test_none_means_the_default() -> None:
    nones = dict.fromkeys(["PROVIDER", "BASE_URL", "API_KEY", "MODEL", "HEADERS", "PROXY", "UDS"])
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
def test_a_default_never_contradicts_what_is_said(limits: dict[str, int], kept: int) -> None:
    assert one({"LIMITS": limits}).pool.limits.max_keepalive_connections == kept


def test_the_environment_gives_the_url() -> None:
    assert one({}, OPENAI_BASE_URL="http://127.0.0.1:8080/v1/").base_url == "http://127.0.0.1:8080/v1"
    assert one({}, OPENAI_BASE_URL="").base_url == "https://api.openai.com/v1"
    assert one({"BASE_URL": "http://a/"}, OPENAI_BASE_URL="http://b").base_url == "http://a"


# --- the key


def test_a_key_may_be_a_callable_that_is_asked_each_time() -> None:
    keys = iter(["a", "b\n"])
    pool = one({"API_KEY": lambda: next(keys)})
    assert (pool.key(), pool.key()) == ("a", "b")


@pytest.mark.parametrize("bad", [None, 5, "", f"{SECRET}\r\nx: y", f"{SECRET}é"])
def test_a_callable_that_gives_no_good_key_is_told_without_showing_it(bad: Any) -> None:
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
def test_where_no_key_is_wanted_none_is_sent(given: dict[str, Any]) -> None:
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
def test_a_missing_key_is_told_when_it_is_wanted_with_what_to_type(given: dict[str, Any]) -> None:
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
