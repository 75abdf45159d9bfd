"""The step "settings": compares the pool's settings with the load, the machine and the web server."""

from __future__ import annotations

import contextlib
import itertools
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from llm_pool.conf.settings import PoolSettings
from llm_pool.diagnostics.report import Finding, Level, Step
from llm_pool.diagnostics.sizing import Sizing

if sys.platform != "win32":
    import resource

__all__ = ["Server", "file_limit", "settings_step"]

OTHER_FILES = 100
"""An assumption: how many files a worker has open besides the pool's connections (database, logs, ...)."""
GUNICORN_TIMEOUT = 30.0  # seconds, gunicorn's default
TYPICAL_SECONDS = 10.0
"""The duration of a call, in seconds, in the example that the finding "settings.room" gives."""


@dataclass(frozen=True, slots=True)
class Server:
    """The settings of the web server, as far as environment variables contain them.

    ``threads``  the number of threads of a worker; None if unknown
    ``timeout``  seconds without progress after which a worker is killed; 0 for never; None if unknown
    """

    threads: int | None = None
    timeout: float | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Server:
        """Read the settings from gunicorn's ``GUNICORN_CMD_ARGS`` and asgiref's ``ASGI_THREADS``.

        ``environ`` contains the environment variables. gunicorn's ``--threads`` takes precedence over
        ``ASGI_THREADS``. A value with other characters than digits counts as unknown.
        """
        given = _options(environ.get("GUNICORN_CMD_ARGS", ""))
        threads = given.get("--threads") or environ.get("ASGI_THREADS")
        timeout = given.get("--timeout") or given.get("-t")
        return cls(
            int(threads) if threads and threads.isdecimal() else None,
            float(timeout) if timeout and timeout.isdecimal() else None,
        )


def _options(line: str) -> dict[str, str]:
    """Parse options such as ``-t 60 --threads=4`` into a dict: {"-t": "60", "--threads": "4"}.

    Returns {} if a quotation mark is not closed.
    """
    try:
        words = shlex.split(line)
    except ValueError:
        return {}
    words = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
    return {name: value for name, value in itertools.pairwise(words) if name.startswith("-")}


def file_limit() -> int | None:
    """Return how many files this process can have open; None if it has no limit or the limit is unknown."""
    if sys.platform == "win32":
        return None
    with contextlib.suppress(OSError):
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return None if soft == resource.RLIM_INFINITY else soft
    return None


def settings_step(
    settings: PoolSettings, *, streams: int, files: int | None, server: Server, load: Sizing | None
) -> Step:
    """Return the step "settings": whether the pool's limits fit the load, the machine and the web server.

    ``streams``  how many calls one connection carries at a time
    ``files``    the limit on open files of this process; None if there is no limit or it is unknown
    ``server``   the web server's settings
    ``load``     the load to compare the pool's size with; None for no such comparison
    """
    limits = settings.pool.limits
    findings = [
        *_sizing(limits.max_connections, streams, load),
        *_files(limits.max_connections, files),
        *_threads(limits.max_connections * streams, server.threads),
        *_timeout(settings.pool.timeouts.read, server.timeout),
    ]
    facts = {
        "max_connections": limits.max_connections,
        "streams_per_connection": streams,
        "file_limit": files,
        "worker_threads": server.threads,
        "worker_timeout": server.timeout,
        "load": None
        if load is None
        else {
            "rate": load.rate,
            "seconds": load.seconds,
            "busy": load.busy,
            "connections": load.connections(streams),
        },
    }
    return Step("settings", tuple(findings), facts=facts)


def _sizing(connections: int, streams: int, load: Sizing | None) -> Iterator[Finding]:
    max_calls = connections * streams
    yield Finding(
        "settings.room",
        Level.OK,
        f"{connections} connections carry {max_calls} calls at a time in each process: "
        f"{max_calls / TYPICAL_SECONDS:g} calls/s if a call takes {TYPICAL_SECONDS:g} s",
    )
    if load is None:
        return
    needed = load.connections(streams)
    text = (
        f"A load of {load.rate:g} calls/s that take {load.seconds:g} s each keeps {load.busy:.1f} calls in "
        f"progress on average; with room for its peaks it needs {needed} connections"
    )
    if needed > connections:
        yield Finding(
            "settings.too_small",
            Level.WARNING,
            f"{text}, and the pool has {connections}.",
            f"Set LIMITS['max_connections'] to {needed}, or spread the load over more processes.",
        )
    else:
        yield Finding("settings.enough", Level.OK, f"{text}.")


def _files(connections: int, limit: int | None) -> Iterator[Finding]:
    if limit is None or connections + OTHER_FILES <= limit:
        return
    fatal = connections >= limit
    yield Finding(
        "settings.files",
        Level.ERROR if fatal else Level.WARNING,
        f"{connections} connections do not fit into the {limit} files that this process may have open.",
        f"Raise the limit (ulimit -n, LimitNOFILE=, nofile) to {connections + OTHER_FILES} or more, or "
        "lower LIMITS['max_connections'].",
    )


def _threads(max_calls: int, threads: int | None) -> Iterator[Finding]:
    if threads is not None and threads > max_calls:
        yield Finding(
            "settings.threads",
            Level.WARNING,
            f"A worker has {threads} threads, and the pool carries {max_calls} calls at a time: the other "
            "threads will wait.",
            f"Set LIMITS['max_connections'] to {threads}, or run fewer threads.",
        )
    elif threads is not None and threads * 2 <= max_calls:
        yield Finding(
            "settings.spare",
            Level.NOTE,
            f"A worker has {threads} threads, so its sync views make at most {threads} of {max_calls} calls "
            "at a time.",
            "Nothing to do if async views use the rest.",
        )


def _timeout(read: float | None, worker: float | None) -> Iterator[Finding]:
    limit = GUNICORN_TIMEOUT if worker is None else worker
    if limit == 0 or (read is not None and read < limit):
        return
    waits = "waits for ever" if read is None else f"waits {read:g} s"
    whose = "gunicorn's default" if worker is None else "this server's"
    yield Finding(
        "settings.worker_timeout",
        Level.NOTE if worker is None else Level.WARNING,
        f"TIMEOUTS['read'] {waits} for a silent provider; a sync worker is killed after {limit:g} s "
        f"({whose} timeout).",
        f"With sync workers set TIMEOUTS['read'] below {limit:g}, or raise the server's --timeout above it.",
    )
