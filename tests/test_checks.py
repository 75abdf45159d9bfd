from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.core import checks

from llm_pool.checks import check_deployment, check_settings
from llm_pool.conf.observability import FLAGS

SECRET = "sk-do-not-show"


@pytest.fixture(autouse=True)
def _no_keys_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def ids(settings: Any, given: dict[str, Any], check: Any = check_settings) -> list[str]:
    settings.LLM_POOL = {"default": given}
    found = check(app_configs=None)
    assert all(message.hint for message in found)
    assert SECRET not in repr(found)
    return [message.id for message in found]


LOCAL = {"BASE_URL": "http://127.0.0.1:1/v1"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (LOCAL, []),
        ({"API_KEY": "k"}, []),
        (7, ["llm_pool.E001"]),
        ({**LOCAL, "LIMIT": {}}, ["llm_pool.E002"]),
        ({**LOCAL, "MODEL": 5}, ["llm_pool.E003"]),
        ({**LOCAL, "LIMITS": {"max_connections": 0}}, ["llm_pool.E004"]),
        ({"LIMIT": 1, "MODEL": 5}, ["llm_pool.E002", "llm_pool.E003"]),
        ({}, ["llm_pool.W002"]),
        ({**LOCAL, "TLS": {"ca_file": "/no/such.pem"}}, ["llm_pool.E006"]),
        ({**LOCAL, "TLS": {"client_cert": ("/no/a", "/no/b", SECRET)}}, ["llm_pool.E006", "llm_pool.E006"]),
        ({**LOCAL, "TLS": {"client_cert": "/no/a"}}, ["llm_pool.E006"]),
        ({**LOCAL, "ENGINE": "aiohttp", "HTTP2": "prior-knowledge"}, ["llm_pool.E007"]),
        ({"BASE_URL": "https://x/v1", "API_KEY": "", "ENGINE": "aiohttp", "UDS": "/x"}, ["llm_pool.E007"]),
        ({**LOCAL, "ENGINE": "aiohttp", "PROXY": "socks5://x"}, ["llm_pool.E007"]),
        ({**LOCAL, "ENGINE": "httpcore", "PROXY": "SOCKS5h://x"}, ["llm_pool.E007"]),
        ({**LOCAL, "ENGINE": "httpcore", "PROXY": "https://x"}, []),
        ({**LOCAL, "PROXY": "socks5://x"}, []),
        ({"BASE_URL": "http://x/v1", "API_KEY": "", "ENGINE": "aiohttp", "UDS": "/x"}, []),
        ({"BASE_URL": "https://x/v1", "API_KEY": "", "ENGINE": "httpcore", "UDS": "/x"}, []),
    ],
)
def test_each_problem_has_its_id(settings: Any, given: Any, expected: list[str]) -> None:
    assert ids(settings, given) == expected


@pytest.mark.parametrize("name", FLAGS)
@pytest.mark.parametrize(("value", "expected"), [(True, []), ("False", ["llm_pool.E003"])])
def test_a_flag_beside_the_pools_must_be_a_bool(
    settings: Any, name: str, value: Any, expected: list[str]
) -> None:
    setattr(settings, name, value)
    assert ids(settings, LOCAL) == expected


@pytest.mark.parametrize(
    ("proxy", "given", "expected"),
    [
        ("socks4://proxy.test:1", {}, ["llm_pool.E008"]),
        ("http://proxy.test:99999", {}, ["llm_pool.E008"]),
        ("proxy.test:3128", {}, []),
        ("https://proxy.test:3128", {}, []),
        ("socks5h://proxy.test:1", {}, []),
        ("socks5h://proxy.test:1", {"ENGINE": "httpcore"}, ["llm_pool.E008"]),
        ("socks5h://proxy.test:1", {"ENGINE": "aiohttp"}, ["llm_pool.E008"]),
        ("socks4://proxy.test:1", {"PROXY": ""}, []),
        ("socks4://proxy.test:1", {"PROXY": "http://other.test:1"}, []),
        ("socks4://proxy.test:1", {"UDS": "/run/llm.sock"}, []),
        ("socks4://proxy.test:1", LOCAL, []),
    ],
)
def test_an_invalid_proxy_of_the_environment_is_reported(
    settings: Any, monkeypatch: pytest.MonkeyPatch, proxy: str, given: Any, expected: list[str]
) -> None:
    monkeypatch.setenv("https_proxy", proxy)
    assert ids(settings, {"API_KEY": "k", **given}) == expected


@pytest.mark.parametrize(
    ("engine", "given", "warned_of"),
    [
        ("native", {"HTTP2": True, "DNS": {"ttl": 1}, "LIMITS": {"min_connections": 1}}, []),
        ("httpcore", {}, []),
        ("httpcore", {"HTTP2": True, "LIMITS": {"max_streams_per_connection": 5}}, []),
        ("httpcore", {"DNS": {"ttl": 60, "negative_ttl": 1}}, ["['DNS']['ttl']", "['DNS']['negative_ttl']"]),
        ("httpcore", {"DNS": {"resolver": "aiodns"}}, ["['DNS']['resolver']"]),
        ("httpcore", {"DNS": {"resolver": "system"}}, []),
        ("httpcore", {"LIMITS": {"min_connections": 1}}, ["['LIMITS']['min_connections']"]),
        ("httpcore", {"LIMITS": {"min_connections": 0}}, []),
        ("aiohttp", {}, []),
        ("aiohttp", {"HTTP2": True}, ["['HTTP2']"]),
        ("aiohttp", {"HTTP2": False, "DNS": {"ttl": 0, "resolver": "aiodns"}}, []),
        (
            "aiohttp",
            {"LIMITS": {"min_connections": 1, "max_streams_per_connection": 5}},
            ["['LIMITS']['min_connections']", "['LIMITS']['max_streams_per_connection']"],
        ),
    ],
)
def test_a_setting_that_the_engine_does_not_support_is_reported(
    settings: Any, engine: str, given: Any, warned_of: list[str]
) -> None:
    settings.LLM_POOL = {"default": {**LOCAL, "ENGINE": engine, **given}}
    found = check_settings(app_configs=None)
    assert [message.id for message in found] == ["llm_pool.W004"] * len(warned_of)
    for message, key in zip(found, warned_of, strict=True):
        assert message.msg.startswith(f"LLM_POOL['default']{key} is not supported by the engine {engine!r}: ")


def test_a_missing_engine_is_reported_with_the_command_to_install_it(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_pool.backends.find_spec", lambda name: None)
    settings.LLM_POOL = {"default": {**LOCAL, "ENGINE": "aiohttp"}}
    [message] = check_settings(app_configs=None)
    assert message.id == "llm_pool.E004"
    assert "needs the package aiohttp, which is not installed" in message.msg
    assert message.hint == 'Type: python -m pip install "django-llm-pool[aiohttp]"'


def test_a_missing_resolver_is_reported_with_the_command_to_install_it(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_pool.conf.validators.find_spec", lambda name: None)
    settings.LLM_POOL = {"default": {**LOCAL, "DNS": {"resolver": "aiodns"}}}
    [message] = check_settings(app_configs=None)
    assert message.id == "llm_pool.E004"
    assert "['DNS']['resolver'] = 'aiodns' needs the package aiodns, which is not installed" in message.msg
    assert message.hint == 'Type: python -m pip install "django-llm-pool[aiodns]"'


def test_existing_tls_files_are_accepted(settings: Any, tmp_path: Path) -> None:
    pem = tmp_path / "ca.pem"
    pem.write_text("")
    assert ids(settings, {**LOCAL, "TLS": {"ca_file": pem}}) == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({**LOCAL, "TLS": {"verify": False}}, ["llm_pool.W001"]),
        ({"BASE_URL": "http://10.0.0.1/v1", "API_KEY": SECRET}, ["llm_pool.W003"]),
        ({"BASE_URL": "http://10.0.0.1/v1", "API_KEY": ""}, []),
        ({**LOCAL, "API_KEY": SECRET}, []),
        ({"BASE_URL": "http://x/v1", "API_KEY": SECRET, "UDS": "/run/x"}, []),
        ({**LOCAL, "PROXY": f"http://user:{SECRET}@proxy.test"}, ["llm_pool.W005"]),
        ({**LOCAL, "PROXY": "http://user@proxy.test"}, []),
        ({**LOCAL, "TLS": {"client_cert": (__file__, __file__, SECRET)}}, ["llm_pool.W005"]),
        ({**LOCAL, "TLS": {"client_cert": (__file__, __file__)}}, []),
        ({**LOCAL, "MODEL": 5, "TLS": {"verify": False}}, []),  # check_settings reports the invalid value
    ],
)
def test_deployment_checks_report_more(settings: Any, given: Any, expected: list[str]) -> None:
    assert ids(settings, given, check_deployment) == expected
    assert not set(expected) & set(ids(settings, given))


def test_passwords_that_the_reporter_filter_hides_are_not_reported(settings: Any) -> None:
    settings.DEFAULT_EXCEPTION_REPORTER_FILTER = "llm_pool.error_reports.PoolReporterFilter"
    secrets = {"PROXY": f"http://u:{SECRET}@x", "TLS": {"client_cert": (__file__, __file__, SECRET)}}
    assert ids(settings, {**LOCAL, **secrets}, check_deployment) == []


def test_a_project_without_the_setting_can_be_checked(settings: Any) -> None:
    del settings.LLM_POOL
    assert check_deployment() == []


def test_a_missing_key_is_reported_once(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.LLM_POOL = {"default": {}}
    found = checks.run_checks(tags=["llm_pool"], include_deployment_checks=True)
    assert [message.id for message in found] == ["llm_pool.W002"]
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    assert checks.run_checks(tags=["llm_pool"], include_deployment_checks=True) == []


def test_the_checks_of_the_tests_own_settings_find_nothing() -> None:
    assert check_settings() == check_deployment() == []
