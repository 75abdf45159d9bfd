"""The command ``python -m demo_project``: start the upstream if needed, serve the pages, stop both."""

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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

HOST = "127.0.0.1"
PROVIDER_VARIABLES = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY")
START_TIMEOUT = 120.0  # seconds; a slow disk has to read a 98 MB model
STOP_TIMEOUT = 5.0  # seconds, for each way of stopping the upstream


class CannotStart(Exception):
    """The demo or its upstream cannot start. The message is a sentence for the terminal."""


def main(arguments: list[str] | None = None) -> int:
    """Serve the demo until Ctrl-C, SIGTERM or the end of the upstream. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m demo_project", description="Serve the llm_pool demo.")
    parser.add_argument(
        "--port", type=port_number, default=8000, help="TCP port to listen on; 0 takes a free one (8000)"
    )
    options = parser.parse_args(arguments)
    # uvicorn shuts down at SIGTERM and then raises the signal again. SystemExit then stops the upstream.
    signal.signal(signal.SIGTERM, _exit)
    try:
        with listen(options.port) as listener:
            if provider_is_configured(os.environ):
                return serve(listener)
            return serve_with_upstream(listener)
    except CannotStart as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        return 0


def port_number(text: str) -> int:
    """Parse a TCP port from 0 to 65535. Raises ``ArgumentTypeError`` for any other text."""
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: give a number from 0 to 65535")
    return int(text)


def provider_is_configured(environ: Mapping[str, str]) -> bool:
    """Whether the environment names a provider, so that the demo does not need its own upstream."""
    return any(environ.get(name) for name in PROVIDER_VARIABLES)


def listen(port: int) -> socket.socket:
    """Open the listening socket, before the upstream is started. Raises ``CannotStart``."""
    try:
        return socket.create_server((HOST, port))
    except PermissionError:
        raise CannotStart(f"Port {port} needs administrator rights. Try: make demo PORT=8000") from None
    except OSError as error:
        raise CannotStart(
            f"Port {port} on {HOST} cannot be used: {os.strerror(error.errno or 0)}. Another program "
            f"probably uses it.\nTry another port: make demo PORT={port + 1 if port < 65535 else 8000}"
        ) from None


def serve_with_upstream(listener: socket.socket) -> int:
    """Start an upstream, point the settings at it, and serve the pages. Returns the exit status.

    If the model cannot be started, the simulated upstream is started instead.
    """
    kind = os.environ.get("DEMO_UPSTREAM", "model")
    if kind != "simulated":
        say("Loading the model (SmolLM2, 135 million parameters) ...")
    with contextlib.ExitStack() as stack:
        try:
            process, ready = stack.enter_context(run_upstream(kind))
        except CannotStart as error:
            if kind == "simulated":
                raise
            say(f"{error} A simulated upstream is started instead; its answers say so.")
            process, ready = stack.enter_context(run_upstream("simulated"))
        os.environ["OPENAI_BASE_URL"] = ready["url"]
        os.environ["OPENAI_MODEL"] = ready["model"]
        os.environ["DEMO_FAR_URL"] = ready["far_url"]
        os.environ["DEMO_COUNTS_URL"] = ready["counts_url"]
        os.environ["DEMO_ROUND_TRIP"] = str(ready["round_trip"])
        os.environ["DEMO_UPSTREAM_NAME"] = ready["name"]
        return serve(listener, process)


@contextlib.contextmanager
def run_upstream(kind: str) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, Any]]]:
    """Run ``python -m demo_project.upstream`` while the context lasts, with a new API key.

    Yields the process and the JSON that it prints when it is ready (see ``upstream/__main__.py``). Raises
    ``CannotStart``.
    """
    key = os.environ["OPENAI_API_KEY"] = secrets.token_urlsafe(24)
    process = subprocess.Popen(
        [sys.executable, "-m", "demo_project.upstream", kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "DEMO_UPSTREAM_KEY": key},
    )
    try:
        yield process, _read_ready_line(process)
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop the upstream: close its standard input, then send SIGTERM, then SIGKILL."""
    steps = (process.stdin.close if process.stdin else process.terminate, process.terminate, process.kill)
    for step in steps:
        with contextlib.suppress(OSError):
            step()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT)
            break
    if process.stdout:
        process.stdout.close()


def serve(listener: socket.socket, upstream: subprocess.Popen[bytes] | None = None) -> int:
    """Serve the pages in the foreground, and stop if the upstream exits. Returns the exit status."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "demo_project.settings")
    url = f"http://{HOST}:{listener.getsockname()[1]}/"
    server = _server(on_ready=lambda: say(f"Open {url} in a browser. Press Ctrl-C to stop."))
    if upstream is not None:
        threading.Thread(target=_stop_server_after, args=(upstream, server), daemon=True).start()
    server.run(sockets=[listener])
    if upstream is not None and upstream.poll() is not None:
        say(f"The upstream exited with status {upstream.returncode}, so the demo stops too.")
        return 1
    return 0 if server.started else 1


def say(text: str) -> None:
    """Print a line to the terminal at once."""
    print(text, flush=True)


def _server(on_ready: Callable[[], None]) -> Any:
    """Return a uvicorn server of the demo that calls ``on_ready`` when it accepts connections."""
    # These imports read the settings, and the settings read the environment that is set above.
    import uvicorn  # noqa: PLC0415
    from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler  # noqa: PLC0415

    from demo_project.asgi import application  # noqa: PLC0415

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                on_ready()

    config = uvicorn.Config(
        ASGIStaticFilesHandler(application),  # type: ignore[arg-type]  # it takes any ASGI application
        lifespan="on",
        log_level="warning",
        timeout_graceful_shutdown=3,
    )
    return Server(config)


def _read_ready_line(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Wait for the line of JSON that the upstream prints when it is ready."""
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    output = process.stdout
    if output is None:
        raise CannotStart("The upstream's output cannot be read.")
    threading.Thread(target=lambda: lines.put(output.readline()), daemon=True).start()
    try:
        line = lines.get(timeout=START_TIMEOUT)
    except queue.Empty:
        raise CannotStart(f"The upstream was not ready within {START_TIMEOUT:.0f} s.") from None
    if not line:
        raise CannotStart(f"The upstream exited with status {process.wait()}.")
    ready: dict[str, Any] = json.loads(line)
    return ready


def _stop_server_after(process: subprocess.Popen[bytes], server: Any) -> None:
    process.wait()
    server.should_exit = True


def _exit(_signal: int, _frame: object) -> None:
    sys.exit(0)
