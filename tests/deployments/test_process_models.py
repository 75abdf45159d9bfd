"""Servers whose workers are greenlets, are forked without hooks, or have no threads; and Celery's pools."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

from tests.deployments.launcher import PROJECT, ROOT, Server, deployed
from tests.deployments.raw_client import RawClient

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from testbed import ScriptedServer

pytestmark = pytest.mark.server

WSGI = f"{PROJECT}.wsgi:application"
GUNICORN = "gunicorn --no-control-socket -b 127.0.0.1:{port} "
UWSGI = (
    "tests.deployments.uwsgi --http 127.0.0.1:{port} --need-app --die-on-term "
    f"--module {WSGI} --pythonpath {ROOT} --virtualenv {sys.prefix} "
)
GEVENT = Server(GUNICORN + f"-k gevent {WSGI}", wsgi=True)
UWSGIS = {
    "threads": UWSGI + "--master --processes 1 --enable-threads",
    "no threads": UWSGI + "--master --processes 1",
    "hooks": UWSGI + "--master --processes 1 --enable-threads --py-call-osafterfork",
    "lazy": UWSGI + "--master --processes 1 --enable-threads --lazy-apps",
    "many threads": UWSGI + "--master --processes 1 --threads 4",
}


def settings_for(upstream: ScriptedServer) -> Mapping[str, Any]:
    return {"BASE_URL": f"{upstream.url}/v1"}


def test_greenlets_of_a_worker_share_its_pool_and_its_database(
    tmp_path: Path, upstream: ScriptedServer
) -> None:
    """Scenario 56: other requests are answered while streams wait, and Django lets them query."""
    gate = upstream.gate("token")
    gate.shut()
    with deployed(GEVENT, tmp_path, settings_for(upstream)) as server, ExitStack() as stack:
        streams = [stack.enter_context(RawClient(server.port, "/stream")) for _ in range(8)]
        gate.wait_reached(8)
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(server.get, ["/complete-and-query"] * 12))
        assert answers == [{"text": "You said hello.", "rows": [[1]]}] * 12
        gate.open()
        for stream in streams:
            stream.read_through(b"event: done")
        server.wait_stats(in_use=0, waiting=0)
        assert server.get("/acomplete")["text"] == "You said hello."
        assert server.get("/complete-and-query")["rows"] == [[1]]
        assert server.terminate() == 0
        assert "Traceback" not in server.output
    upstream.wait_until(lambda s: s.connections_open == 0)


@pytest.mark.skipif(
    find_spec("pyuwsgi") is None and sys.version_info >= (3, 15),
    reason="pyuwsgi has no wheel for this Python",
)
@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("name", UWSGIS)
def test_workers_of_uwsgi_make_calls(
    name: str, early: bool, tmp_path: Path, upstream: ScriptedServer
) -> None:
    """Scenario 56: also after a call that the master has made before it forks."""
    if name == "hooks" and sys.version_info >= (3, 14):
        pytest.skip("uWSGI 2.0.30 calls Python's fork hooks in a way that aborts Python 3.14")
    environment = {"CALL_BEFORE_FORK": "1"} if early else {}
    with deployed(Server(UWSGIS[name], wsgi=True), tmp_path, settings_for(upstream), **environment) as server:
        for _ in range(3):
            assert server.get("/complete-and-query") == {"text": "You said hello.", "rows": [[1]]}
        server.wait_stats(in_use=0, idle=1)


@pytest.fixture
def celery_environment(tmp_path: Path, upstream: ScriptedServer) -> Mapping[str, str]:
    pool = {"API_KEY": "k", "MODEL": "m", "PROXY": "", **settings_for(upstream)}
    return {
        **os.environ,
        "CELERY_FOLDER": str(tmp_path),
        "DJANGO_SETTINGS_MODULE": f"{PROJECT}.settings",
        "LLM_POOL": json.dumps(pool),
        "MIDDLEWARE": "[]",
        "PYTHONPATH": str(ROOT),
    }


ASK = """
import json, sys
from tests.deployments.project.tasks import ask

results = [ask.delay(prompt) for prompt in sys.argv[1:]]
print(json.dumps([result.get(timeout=30, interval=0.05) for result in results]))
"""


@pytest.fixture
def ask(celery_environment: Mapping[str, str], tmp_path: Path) -> Iterator[Any]:
    """``ask("hello", "you")``: the process that waits for the results of these tasks; its output is JSON."""
    made: list[subprocess.Popen[str]] = []

    def start(*prompts: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "ignore", "-c", ASK, *prompts]
        made.append(
            subprocess.Popen(command, cwd=tmp_path, env=celery_environment, stdout=subprocess.PIPE, text=True)
        )
        return made[-1]

    yield start
    for process in made:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("pool", "at_once"), [("gevent", 4), ("eventlet", 4), ("threads", 4), ("prefork", 2), ("solo", 1)]
)
def test_tasks_of_celery_make_calls_at_the_same_time(
    pool: str, at_once: int, tmp_path: Path, upstream: ScriptedServer, celery_environment: Any, ask: Any
) -> None:
    """Scenario 56: as many as the worker's pool has places; each can query afterwards."""
    gate = upstream.gate("token")
    gate.shut()
    command = [
        sys.executable, "-W", "ignore", "-m", "celery", "-A", f"{PROJECT}.tasks", "worker",
        "-P", pool, "-c", str(at_once), "--without-gossip", "--without-mingle", "--without-heartbeat",
    ]  # fmt: skip
    log = tmp_path / "log"
    with log.open("w") as output:
        worker = subprocess.Popen(command, cwd=tmp_path, env=celery_environment, stdout=output, stderr=output)
    try:
        asking = ask(*(f"{number}" for number in range(at_once)))
        gate.wait_reached(at_once, timeout=30)
        gate.open()
        answers, _ = asking.communicate(timeout=30)
        expected = [["onetwothree", f"You said {number}.", 1] for number in range(at_once)]
        assert json.loads(answers) == expected, log.read_text()
        again, _ = ask("again").communicate(timeout=30)
        assert json.loads(again) == [["onetwothree", "You said again.", 1]]
    finally:
        worker.terminate()
        worker.wait(15)
