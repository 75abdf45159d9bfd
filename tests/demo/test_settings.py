"""The demo's settings: which provider it uses."""

from __future__ import annotations

import pytest

from demo_project import settings as demo_settings
from demo_project.upstream.launcher import provider_is_configured
from llm_pool.conf.settings import load


@pytest.mark.parametrize(
    ("environ", "configured", "chosen"),
    [
        ({}, False, ("openai", "none needed")),
        ({"OPENAI_API_KEY": "a"}, True, ("openai", "a")),
        ({"OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}, True, ("openai", "none needed")),
        ({"ANTHROPIC_API_KEY": "b"}, True, ("anthropic", "b")),
        ({"ANTHROPIC_API_KEY": "b", "OPENAI_API_KEY": "a"}, True, ("openai", "a")),
    ],
)
def test_the_provider_whose_variables_are_set_is_used(
    environ: dict[str, str], configured: bool, chosen: tuple[str, str]
) -> None:
    assert provider_is_configured(environ) is configured
    settings = demo_settings.provider_settings(environ)
    assert (settings["PROVIDER"], settings["API_KEY"]) == chosen
    [pool] = load({"default": settings}, {}).values()
    assert pool.base_url == settings["BASE_URL"]
