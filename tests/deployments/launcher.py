"""Start a web server with the tests' project in a separate process, and stop it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from testbed.process import free_port
from tests.fixtures.waiting import A_SECOND, becomes_true

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["SERVERS", "Deployment", "Server", "deployed"]

START_SECONDS = 30.0
STOP_SECONDS = 15.0
ROOT = Path(__file__).parents[2]
PROJECT = "tests.deployments.project"


class Server(NamedTuple):
    """A web server: its command line, with ``{port}`` in it, and its exit code after SIGTERM."""

    command: str
    exit_code: int = 0
    lifespan: bool = True
    wsgi: bool = False


SERVERS = {
    "uvicorn": Server("uvicorn --port {port} --log-level warning " + f"{PROJECT}.asgi:application", -15),
    "granian": Server("granian --interface asgi --port {port} " + f"{PROJECT}.asgi:application"),
    "hypercorn": Server("hypercorn --bind 127.0.0.1:{port} " + f"{PROJECT}.asgi:application"),
    "daphne": Server("daphne -p {port} " + f"{PROJECT}.asgi:application", lifespan=False),
    "channels-uvicorn": Server(
        "uvicorn --port {port} --log-level warning " + f"{PROJECT}.channels_asgi:application", -15
    ),
    "channels-daphne": Server("daphne -p {port} " + f"{PROJECT}.channels_asgi:application", lifespan=False),
    "gunicorn-asgi": Server(
        "gunicorn -k asgi --no-control-socket -b 127.0.0.1:{port} " + f"{PROJECT}.asgi:application"
    ),
    "gunicorn-gthread": Server(
        "gunicorn -k gthread --threads 8 --preload --no-control-socket -b 127.0.0.1:{port} "
        f"{PROJECT}.wsgi:application",
        lifespan=False,
        wsgi=True,
    ),
}


class Deployment:
    """A running server."""

    def __init__(self, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
        self.port = port
        self.process = process
        self._log = log

    @property
    def output(self) -> str:
        """Its output so far, stdout and stderr."""
        return self._log.read_text(errors="replace")

    def get(self, path: str) -> Any:
        """Send a GET request on a new connection; return the response's JSON. Its status must be 200."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=STOP_SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", path, headers={"Connection": "close"})
            response = connection.getresponse()
            body = response.read()
        assert response.status == 200, f"{response.status} for {path}: {body[:300]!r}\n{self.output}"
        return json.loads(body)

    def wait_stats(self, **expected: int) -> dict[str, Any]:
        """Wait at most a second until the pool's stats have these values; return the stats."""
        stats: dict[str, Any] = {}

        def are_as_expected() -> bool:
            stats.update(self.get("/stats"))
            return expected.items() <= stats.items()

        assert becomes_true(are_as_expected, A_SECOND), f"not {expected}: {stats}"
        return stats

    def terminate(self) -> int:
        """Send SIGTERM; return the exit code. Raises AssertionError after ``STOP_SECONDS``."""
        self.process.terminate()
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"does not end on SIGTERM: {self.output}") from None


@contextlib.contextmanager
def deployed(
    server: Server,
    directory: Path,
    pool: Mapping[str, Any],
    *,
    options: str = "",
    middleware: Sequence[str] = (),
    **environment: str,
) -> Iterator[Deployment]:
    """Run a server until the end of the block; ``pool`` is its ``LLM_POOL["default"]``."""
    port = free_port()
    program, *arguments = server.command.format(port=port).split()
    log = directory / f"{program}-{port}.log"
    known = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
    env = {
        **known,
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "default::ResourceWarning",
        "DJANGO_SETTINGS_MODULE": f"{PROJECT}.settings",
        "LLM_POOL": json.dumps({"API_KEY": "test-key", "MODEL": "test-model", "PROXY": "", **pool}),
        "MIDDLEWARE": json.dumps(middleware),
        **environment,
    }
    command = [sys.executable, "-m", program, *options.split(), *arguments]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=directory, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    deployment = Deployment(port, process, log)
    try:
        _wait_ready(deployment)
        yield deployment
    finally:
        _end(process)


def _wait_ready(deployment: Deployment) -> None:
    """Send requests until one succeeds: each server reports in its own way that it is ready."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(OSError):
            deployment.get("/stats")
            return
        code = deployment.process.poll()
        assert code is None, f"ended at once with {code}: {deployment.output}"
        assert time.monotonic() < deadline, f"does not answer: {deployment.output}"
        time.sleep(0.02)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop the process, and kill its workers, which are in its process group."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
