"""The options of ``llmpool_check``, its exit status, and that no output contains the key."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

from llm_pool import pools
from llm_pool.conf.settings import load
from llm_pool.diagnostics import Level, Sizing, Verdict
from llm_pool.diagnostics.machine import Server, settings_step
from llm_pool.engine import coordinator
from testbed.behaviours import json_reply, reply
from tests.diagnostics.conftest import NEVER, assert_snapshot, codes

if TYPE_CHECKING:
    from collections.abc import Callable

    from testbed import ScriptedServer, ServerConnection

    Run = Callable[..., tuple[int, str]]
    RunJSON = Callable[..., tuple[int, dict[str, Any]]]
    Provider = Callable[..., None]
    Serve = Callable[..., ScriptedServer]

models = json_reply({"object": "list", "data": []})
forbidden = json_reply({"error": {"message": "no"}}, status=401)
limited = json_reply({"error": {"message": "slow down"}}, status=429)


# Options.


@pytest.mark.parametrize(
    ("answer", "fail_on", "status"),
    [
        (forbidden, "warning", 2),
        (forbidden, "error", 2),
        (forbidden, "never", 0),
        (limited, "warning", 1),
        (limited, "error", 0),
        (limited, "never", 0),
        (models, "warning", 0),
    ],
)
def test_fail_on_sets_which_level_fails(
    answer: Any, fail_on: str, status: int, run: Run, provider: Provider, serve: Serve
) -> None:
    provider(serve(answer).url)
    assert run("--fail-on", fail_on)[0] == status


def test_all_pools_are_checked_or_only_those_named(run_json: RunJSON, serve: Serve) -> None:
    good, bad = serve(models), serve(forbidden)
    named = {
        "good": {"BASE_URL": good.url, "API_KEY": "k-good"},
        "bad": {"BASE_URL": bad.url, "API_KEY": "k-bad"},
    }
    with override_settings(LLM_POOL=named):
        status, document = run_json()
        assert (status, [pool["verdict"] for pool in document["pools"]]) == (2, ["healthy", "broken"])
        status, document = run_json("--pool", "good")
        assert (status, [pool["pool"] for pool in document["pools"]]) == (0, ["good"])


def test_an_unknown_pool_is_an_error(run: Run) -> None:
    with pytest.raises(CommandError, match="names no pool 'gpt'; it has 'default'") as caught:
        run("--pool", "gpt")
    assert caught.value.returncode == 2


def test_invalid_settings_are_reported(run: Run, run_json: RunJSON) -> None:
    with override_settings(LLM_POOL={"default": {"BASE_URL": "http://localhost/v1", "LIMIT": {}}}):
        status, text = run()
        assert_snapshot("bad-settings", text)
        again, document = run_json()
    assert status == again == 2
    assert document["pools"] == []
    assert [problem["id"] for problem in document["settings_problems"]] == ["llm_pool.E002"]


@pytest.mark.parametrize(
    "arguments", ["--timeout 0", "--timeout inf", "--live 0", "--live x", "--load 0 1", "--timeout x"]
)
def test_invalid_numbers_are_errors(arguments: str) -> None:
    with pytest.raises(CommandError, match=r"'\w+': give a number"):
        call_command("llmpool_check", *arguments.split())


def test_live_makes_calls_at_once(
    run: Run, run_json: RunJSON, provider: Provider, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[object] = []
    monkeypatch.setattr(coordinator, "warn_of_utilization", lambda *args: warnings.append(args))
    server = serve(models)
    provider(server.url, LIMITS={"max_connections": 4})
    status, document = run_json("--live", "12")
    live = next(step for step in document["pools"][0]["steps"] if step["name"] == "live")
    assert (status, live["facts"]["calls"], live["facts"]["failed"]) == (0, 12, 0)
    assert len(server.requests) == 2 + 12
    assert server.peak_open <= 4
    assert live["facts"]["total"]["p50"] <= live["facts"]["total"]["p99"] == live["facts"]["total"]["max"]
    assert [found["code"] for found in live["findings"]] == ["live.done", "live.queued"]
    assert "12 of 12 calls at once: p50" in run("--live", "12")[1]
    assert not warnings  # the check itself causes the high utilization


def test_a_load_is_compared_with_the_pools_size(run_json: RunJSON, provider: Provider, serve: Serve) -> None:
    provider(serve(models).url, LIMITS={"max_connections": 50})
    status, document = run_json("--load", "10", "4")
    facts = document["pools"][0]["steps"][-1]["facts"]
    assert (status, codes(document)) == (1, ["settings.too_small"])
    assert facts["load"] == {"rate": 10.0, "seconds": 4.0, "busy": 40.0, "connections": 59}
    assert run_json("--load", "5", "4")[0] == 0


def test_failed_live_calls_are_counted_by_status(run_json: RunJSON, provider: Provider, serve: Serve) -> None:
    async def tired(conn: ServerConnection) -> None:
        await (models if len(conn.server.requests) < 2 else forbidden)(conn)

    provider(serve(tired).url)
    status, document = run_json("--live", "3")
    live = next(step for step in document["pools"][0]["steps"] if step["name"] == "live")
    assert (status, codes(document)) == (2, ["live.failed"])
    assert live["facts"]["failures"] == {"status 401": 3}


def test_no_live_calls_are_made_with_a_wrong_key(run_json: RunJSON, provider: Provider, serve: Serve) -> None:
    server = serve(forbidden)
    provider(server.url)
    status, document = run_json("--live", "20")
    live = next(step for step in document["pools"][0]["steps"] if step["name"] == "live")
    assert (status, live["level"], len(server.requests)) == (2, "skipped", 2)


# The key.


@pytest.mark.parametrize("status", [200, 302, 401, 404, 429, 500])
def test_a_key_that_the_server_repeats_is_in_no_output(
    status: int, run: Run, run_json: RunJSON, provider: Provider, serve: Serve, secret: str
) -> None:
    """The fixture ``run`` checks each output for the key, and for control characters."""
    says = {"error": {"message": f"{'x' * 285}{secret}\x1b[31m", "code": secret}}
    headers = {"X-RateLimit-Key": secret, "Location": f"/{secret}", "X-Request-Id": secret}
    server = serve(json_reply(says, status=status, headers=headers))
    provider(server.url)
    run()
    run_json()
    assert all(secret in request.headers["authorization"] for request in server.requests)


def test_html_is_shown_without_the_key_and_without_control_characters(
    run: Run, provider: Provider, serve: Serve, secret: str
) -> None:
    page = f"<b>{'x' * 290}{secret}</b>\x1b]0;owned\x07\u202e".encode()
    provider(serve(reply(200, page, {"Content-Type": "text/html"})).url)
    status, text = run()
    assert status == 2
    assert secret[:10] not in text
    assert "x" * 20 in text


def test_a_key_function_that_raises_is_reported_without_its_message(
    run: Run, provider: Provider, serve: Serve, secret: str
) -> None:
    def fetch() -> str:
        raise LookupError(f"vault has {secret}")

    server = serve(models)
    provider(server.url, API_KEY=fetch)
    status, text = run()
    assert status == 2
    assert "raised LookupError" in text
    assert server.requests == []


# In code.


async def test_acheck_compares_the_pools_size_with_its_load_so_far(provider: Provider, serve: Serve) -> None:
    provider(serve(models).url)
    pool = pools["default"]
    assert (await pool.acheck()).step("settings").facts["load"] is None
    for _ in range(3):
        await pool.arequest("GET", "models")
    load_ = (await pool.acheck()).step("settings").facts["load"]
    assert load_["rate"] > 0
    assert load_["busy"] == pytest.approx(load_["rate"] * load_["seconds"], abs=0.01)


async def test_acheck_reports_on_one_pool(provider: Provider, serve: Serve, secret: str) -> None:
    provider(serve(models).url)
    report = await pools["default"].acheck(timeout=5, live=2)
    assert report.verdict is Verdict.HEALTHY
    assert report.step("reuse").facts["reused"] is True
    assert report.step("live").level is Level.OK
    assert secret not in repr(report)


def test_check_reports_to_sync_code(provider: Provider, serve: Serve) -> None:
    provider(serve(forbidden).url)
    report = pools["default"].check()
    assert (report.verdict, report.verdict.exit_status) == (Verdict.BROKEN, 2)


# The machine.


def findings(
    *, files: int | None = None, server: Server | None = None, load_: Sizing | None = None
) -> list[str]:
    """Codes and levels of the findings for a pool with default settings."""
    step = settings_step(load()["default"], streams=1, files=files, server=server or Server(), load=load_)
    return [f"{found.code} {found.level}" for found in step.findings if found.code != "settings.room"]


GUNICORN = "settings.worker_timeout note"


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        ({}, [GUNICORN]),
        ({"files": 1024}, [GUNICORN]),
        ({"files": 150}, ["settings.files warning", GUNICORN]),
        ({"files": 100}, ["settings.files error", GUNICORN]),
        ({"server": Server(threads=200)}, ["settings.threads warning", GUNICORN]),
        ({"server": Server(threads=8)}, ["settings.spare note", GUNICORN]),
        ({"server": Server(timeout=45)}, ["settings.worker_timeout warning"]),
        ({"server": Server(timeout=120)}, []),
        ({"server": Server(timeout=0)}, []),
        ({"load_": Sizing(rate=50, seconds=4)}, ["settings.too_small warning", GUNICORN]),
        ({"load_": Sizing(rate=5, seconds=4)}, ["settings.enough ok", GUNICORN]),
    ],
)
def test_settings_against_the_machine(machine: dict[str, Any], expected: list[str]) -> None:
    assert findings(**machine) == expected


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, Server()),
        ({"GUNICORN_CMD_ARGS": "--threads=8 --timeout 90"}, Server(8, 90.0)),
        ({"GUNICORN_CMD_ARGS": "-w 4 -t 60", "ASGI_THREADS": "12"}, Server(12, 60.0)),
        ({"GUNICORN_CMD_ARGS": "--threads many 'unclosed"}, Server()),
    ],
)
def test_the_servers_settings_are_read_from_the_environment(
    environ: dict[str, str], expected: Server
) -> None:
    assert Server.from_environment(environ) == expected


def test_sizing_is_littles_law_with_room_for_peaks() -> None:
    load_ = Sizing(rate=10, seconds=4)
    assert load_.busy == 40
    assert load_.streams == 59  # 40 + 3 x 6.32
    assert (load_.connections(), load_.connections(32)) == (59, 2)


# Terminals.


def command(*arguments: str, url: str, **environ: str) -> tuple[list[str], dict[str, str]]:
    """Arguments and environment of the command in its own process. OPENAI_BASE_URL names the provider."""
    code = (
        "import sys, tests.settings as s; s.LLM_POOL = {'default': {'API_KEY': 'k-1234', 'PROXY': ''}};"
        f"from llm_pool.diagnostics import probes, steps;"
        f"steps.SLOW = dict.fromkeys(steps.SLOW, {NEVER}); probes.SLOW_SECONDS = {NEVER};"
        "from django.core.management import execute_from_command_line as run; run(sys.argv)"
    )
    known = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "OPENAI_BASE_URL": url, **environ}
    return [sys.executable, "-c", code, "llmpool_check", *arguments], known


@pytest.mark.server
def test_a_pipe_gets_plain_text(serve: Serve) -> None:
    arguments, environ = command(url=serve(models).url, PYTHONIOENCODING="ascii")
    done = subprocess.run(arguments, env=environ, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"default is healthy" in done.stdout
    assert re.search(rb"[^\x20-\x7e\n]", done.stdout) is None


@pytest.mark.server
def test_a_terminal_gets_color_unless_no_color_is_given(serve: Serve) -> None:
    pytest.importorskip("rich")
    url = serve(forbidden).url
    status, shown = in_terminal(*command(url=url, TERM="xterm-256color"))
    assert status == 2
    assert "\x1b[1;31m  FAIL" in shown
    _, shown = in_terminal(*command("--no-color", url=url, TERM="xterm-256color"))
    assert "\x1b[1;31m" not in shown


def in_terminal(arguments: list[str], environ: dict[str, str]) -> tuple[int, str]:
    """Run the command in a pseudo-terminal. Returns its exit status and all its output."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(arguments, env=environ, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = io.BytesIO()
    try:
        while piece := os.read(ours, 65536):
            shown.write(piece)
    except OSError:  # Linux: the other end is closed
        pass
    finally:
        os.close(ours)
    return process.wait(60), shown.getvalue().decode()


def test_every_finding_is_in_the_operators_guide() -> None:
    root = Path(__file__).parents[2]
    source = "".join(
        path.read_text(encoding="utf-8") for path in (root / "llm_pool/diagnostics").glob("*.py")
    )
    steps = "dns|tcp|tunnel|tls|auth|reuse|http2|rate_limits|live|settings"
    known = set(re.findall(rf'"((?:{steps})\.[a-z0-9_]+)"', source))
    guide = (root / "docs/operations.md").read_text(encoding="utf-8")
    documented = set(re.findall(rf"`((?:{steps})\.[a-z0-9_]+)`", guide))
    assert known | {f"{step}.slow" for step in ("dns", "tcp", "tunnel", "tls")} == documented


def test_stdout_has_only_json(run: Run, provider: Provider, serve: Serve) -> None:
    provider(serve(forbidden).url)
    assert json.loads(run("--format", "json")[1])["schema"] == 1
