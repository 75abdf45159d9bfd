"""Fixtures that run ``manage.py llmpool_check``, and snapshots of its output without times and ports."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import call_command
from django.test import override_settings

from llm_pool.diagnostics import probes, steps
from tests.diagnostics.schema import errors_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from testbed import ScriptedServer

SECRET = "sk-secret-0123456789"
NEVER = 60.0  # seconds: no step of these tests takes as long
SNAPSHOTS = Path(__file__).parent / "snapshots"
WRAPPED = re.compile(r"\n {34,}(?!->)")
VARYING = [
    (
        re.compile(r" +\d+\.\d+ (ms|s)(?=  )"),
        lambda found: f"{'# ms':>{len(found[0])}}",
    ),  # the column of times
    (re.compile(r"\b\d+(\.\d+)? ms"), "# ms"),
    (re.compile(r"took \d+\.\d+ s"), "took # s"),
    (re.compile(r"\b(127\.0\.0\.1|localhost|llm\.test):\d+"), r"\1:PORT"),
    (re.compile(r"localhost is (::1, )?127\.0\.0\.1(, ::1)?"), "localhost is 127.0.0.1"),  # depends on IPv6
    (re.compile(r"good for \d+ days"), "good for # days"),
    (re.compile(r"trustme v[\d.]+"), "trustme"),
]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the variables of the environment that change the output."""
    for name in ("GUNICORN_CMD_ARGS", "ASGI_THREADS", "OPENAI_API_KEY", "OPENAI_BASE_URL", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _no_slow_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Report no step as slow, even on a busy machine."""
    monkeypatch.setattr(steps, "SLOW", dict.fromkeys(steps.SLOW, NEVER))
    monkeypatch.setattr(probes, "SLOW_SECONDS", NEVER)


@pytest.fixture
def secret() -> str:
    """The API key of ``provider``'s pools."""
    return SECRET


@pytest.fixture
def provider() -> Iterator[Callable[..., None]]:
    """``provider(url, TLS={...})``: set ``LLM_POOL`` to a pool "default" with this URL and ``SECRET``."""
    with contextlib.ExitStack() as changed:

        def change(url: str, **settings: Any) -> None:
            default = {"BASE_URL": f"{url}/v1", "API_KEY": SECRET, "PROXY": "", **settings}
            changed.enter_context(override_settings(LLM_POOL={"default": default}))

        yield change


@pytest.fixture
def run() -> Callable[..., tuple[int, str]]:
    """``run("--live", "3")``: exit status and output. Asserts that it has no key or control characters."""

    def call(*arguments: str) -> tuple[int, str]:
        out = io.StringIO()
        status = 0
        try:
            call_command("llmpool_check", *arguments, stdout=out)
        except SystemExit as exit_:
            status = int(exit_.code or 0)
        assert SECRET not in out.getvalue()
        assert all(char.isprintable() or char == "\n" for char in out.getvalue())
        return status, out.getvalue()

    return call


@pytest.fixture
def run_json(run: Callable[..., tuple[int, str]]) -> Callable[..., tuple[int, dict[str, Any]]]:
    """As ``run``, with ``--format json``: exit status and document. Validates the document by its schema."""

    def call(*arguments: str) -> tuple[int, dict[str, Any]]:
        status, text = run("--format", "json", *arguments)
        document = json.loads(text)
        assert errors_in(document) == []
        return status, document

    return call


@pytest.fixture
def check(
    run: Callable[..., tuple[int, str]], run_json: Callable[..., tuple[int, dict[str, Any]]]
) -> Callable[[str], tuple[int, list[str]]]:
    """Run the command as text, compared with a snapshot, and as JSON. Returns exit status and codes."""

    def both(name: str, *arguments: str) -> tuple[int, list[str]]:
        status, text = run(*arguments)
        assert_snapshot(name, text)
        again, document = run_json(*arguments)
        assert again == status == ["healthy", "warnings", "broken"].index(document["verdict"])
        return status, codes(document)

    return both


def codes(document: dict[str, Any]) -> list[str]:
    """The codes of all warnings and errors."""
    return [
        finding["code"]
        for pool in document["pools"]
        for step in pool["steps"]
        for finding in step["findings"]
        if finding["level"] in {"warning", "error"}
    ]


def advice(document: dict[str, Any], step: str) -> str:
    """The advice of a step's findings."""
    return " ".join(finding["advice"] for finding in _findings(document, step)).strip()


def text_of(document: dict[str, Any], step: str) -> str:
    """The texts of a step's findings."""
    return " ".join(finding["text"] for finding in _findings(document, step))


def _findings(document: dict[str, Any], name: str) -> list[dict[str, Any]]:
    [step] = [step for step in document["pools"][0]["steps"] if step["name"] == name]
    return list(step["findings"])


def named(server: ScriptedServer, host: str = "localhost") -> str:
    """The server's URL with a host name instead of its address."""
    return f"{server.scheme}://{host}:{server.port}"


def assert_snapshot(name: str, text: str) -> None:
    """Compare the text with a snapshot, except times and ports. LLM_POOL_WRITE_SNAPSHOTS=1 writes it."""
    text = WRAPPED.sub(" ", text)
    for pattern, same in VARYING:
        text = pattern.sub(same, text)
    text = "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
    path = SNAPSHOTS / f"{name}.txt"
    if os.environ.get("LLM_POOL_WRITE_SNAPSHOTS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
