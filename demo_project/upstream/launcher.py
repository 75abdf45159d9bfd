"""Opens the demo: finds who answers, serves the pages, and ends every process that it started."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import secrets
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

from demo_project.provider import is_given

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOST = "127.0.0.1"
START_LIMIT = 120.0  # seconds; a slow disk has to read a 98 MB model
END_LIMIT = 5.0  # seconds


class CannotStart(Exception):
    """The demo cannot be opened; the message says why, for people."""


def main(arguments: list[str] | None = None) -> int:
    """Open the demo and serve until Ctrl-C, SIGTERM or the end of the upstream. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m demo_project", description="Open the llm_pool demo.")
    parser.add_argument("--port", type=port_number, default=8000, help="where to listen (8000)")
    options = parser.parse_args(arguments)
    # uvicorn ends in good order at a signal and then raises it again: as this exception it runs the clean-up.
    signal.signal(signal.SIGTERM, _leave)
    try:
        with listen(options.port) as listener:
            if is_given(os.environ):
                return serve(listener)
            return serve_with_upstream(listener)
    except CannotStart as problem:
        say(str(problem))
        return 1
    except KeyboardInterrupt:
        return 0


def port_number(text: str) -> int:
    """Read a TCP port (0 takes any free one)."""
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: give a number from 0 to 65535")
    return int(text)


def listen(port: int) -> socket.socket:
    """Take the port now, before anything is started for it."""
    try:
        return socket.create_server((HOST, port))
    except PermissionError:
        raise CannotStart(f"Port {port} is not for ordinary users. Try: make demo PORT=8000") from None
    except OSError as error:
        raise CannotStart(
            f"Port {port} on {HOST} cannot be used: {os.strerror(error.errno or 0)}. Most likely another "
            f"program has it.\nChoose another one: make demo PORT={port + 1 if port < 65535 else 8000}"
        ) from None


def serve_with_upstream(listener: socket.socket) -> int:
    """Serve the pages with an upstream on this machine: the model, or its stand-in."""
    kind = os.environ.get("DEMO_UPSTREAM", "model")
    if kind != "simulated":
        say("Loading the model (SmolLM2, 135 million parameters) ...")
    with contextlib.ExitStack() as stack:
        try:
            process, where = stack.enter_context(upstream(kind))
        except CannotStart as problem:
            if kind == "simulated":
                raise
            say(f"No model on this machine: {problem}.")
            say("A simulated upstream takes its place; its answers say so.")
            process, where = stack.enter_context(upstream("simulated"))
        os.environ["OPENAI_BASE_URL"] = where["url"]
        os.environ["OPENAI_MODEL"] = where["model"]
        os.environ["DEMO_FAR_URL"] = where["far_url"]
        os.environ["DEMO_COUNTS_URL"] = where["counts_url"]
        os.environ["DEMO_ROUND_TRIP"] = str(where["round_trip"])
        os.environ["DEMO_UPSTREAM_NAME"] = where["name"]
        return serve(listener, process)


@contextlib.contextmanager
def upstream(kind: str) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, Any]]]:
    """Run the upstream as a process of its own; yields it with what it says of itself once it is ready."""
    key = os.environ["OPENAI_API_KEY"] = secrets.token_urlsafe(24)
    process = subprocess.Popen(
        [sys.executable, "-m", "demo_project.upstream", kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "DEMO_UPSTREAM_KEY": key},
    )
    try:
        yield process, _first_line(process)
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End the upstream: ask by closing its standard input, then insist."""
    for ask in (process.stdin.close if process.stdin else process.terminate, process.terminate, process.kill):
        with contextlib.suppress(OSError):
            ask()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_LIMIT)
            break
    if process.stdout:
        process.stdout.close()


def serve(listener: socket.socket, process: subprocess.Popen[bytes] | None = None) -> int:
    """Serve the pages in this process, in the foreground, while the upstream lives."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "demo_project.settings")
    url = f"http://{HOST}:{listener.getsockname()[1]}/"
    server = _server(lambda: say(f"Open {url} in a browser. Ctrl-C ends it."))
    if process is not None:
        threading.Thread(target=_watch, args=(process, server), daemon=True).start()
    server.run(sockets=[listener])
    if process is not None and process.poll() is not None:
        say(f"The upstream has ended by itself (status {process.returncode}), so the demo ends too.")
        return 1
    return 0 if server.started else 1


def say(text: str) -> None:
    """Tell the person at the terminal."""
    print(text, flush=True)


def _server(when_ready: Callable[[], None]) -> Any:
    """Return a uvicorn server of the demo's application that reports when its port answers."""
    import uvicorn  # noqa: PLC0415  both read the settings, and those the environment that is set above
    from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler  # noqa: PLC0415

    from demo_project.asgi import application  # noqa: PLC0415

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                when_ready()

    config = uvicorn.Config(
        ASGIStaticFilesHandler(application),  # type: ignore[arg-type]  # it takes any ASGI application
        lifespan="on",
        log_level="warning",
        timeout_graceful_shutdown=3,
    )
    return Server(config)


def _first_line(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Wait for the line that the upstream prints when it is ready."""
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    output = process.stdout
    if output is None:
        raise CannotStart("its output cannot be read")
    threading.Thread(target=lambda: lines.put(output.readline()), daemon=True).start()
    try:
        line = lines.get(timeout=START_LIMIT)
    except queue.Empty:
        raise CannotStart(f"it was not ready within {START_LIMIT:.0f} s") from None
    if not line:
        raise CannotStart(f"it ended with status {process.wait()}")
    where: dict[str, Any] = json.loads(line)
    return where


def _watch(process: subprocess.Popen[bytes], server: Any) -> None:
    process.wait()
    server.should_exit = True


def _leave(_signal: int, _frame: object) -> None:
    sys.exit(0)
