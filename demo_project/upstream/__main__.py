"""The upstream's process: ``python -m demo_project.upstream model`` (or ``simulated``).

A request passes through the counting proxy, then (from the pool "far") the relay, to the model server.
When all of them listen, the process prints one line of JSON with their addresses. It exits when its standard
input is closed, and so also when its parent is killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys

from demo_project.upstream import model, simulated
from demo_project.upstream.counting_proxy import Counts, counting_proxy, serve_counts
from demo_project.upstream.relay import relay

HOST = "127.0.0.1"
ROUND_TRIP = 0.05  # seconds that the relay adds to a round trip


def main() -> int:
    """Run the upstream. Returns the exit status, which is 3 if the model is not installed."""
    # Ctrl-C reaches every process of the terminal. This one exits when the launcher closes its input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        asyncio.run(serve(sys.argv[1] if len(sys.argv) > 1 else "model"))
    except model.ModelMissing as error:
        print(f"There is no model: {error}.", file=sys.stderr)
        return 3
    return 0


async def serve(kind: str) -> None:
    """Serve until standard input is closed, then exit the process. Raises ``ModelMissing``."""
    if kind == "simulated":
        server, model_name, name = simulated.model_server(), simulated.MODEL, "simulated upstream"
    else:
        server, model_name, name = model.model_server(HOST), model.MODEL, f"{model.MODEL}, on this machine"
    counts = Counts()
    async with (
        server as port,
        relay(HOST, port, ROUND_TRIP) as relay_port,
        # llama.cpp closes its connection after each stream, without a "Connection: close" header.
        counting_proxy(HOST, port, counts, reconnect=True) as near_port,
        counting_proxy(HOST, relay_port, counts) as far_port,
        serve_counts(counts) as counts_port,
    ):
        ready = {
            "model": model_name,
            "name": name,
            "url": f"http://{HOST}:{near_port}/v1",
            "far_url": f"http://{HOST}:{far_port}/v1",
            "counts_url": f"http://{HOST}:{counts_port}/",
            "round_trip": ROUND_TRIP,
        }
        print(json.dumps(ready), flush=True)
        await asyncio.to_thread(sys.stdin.buffer.read)
        # Exit at once: the callers are gone, and the model's threads would delay an orderly shutdown.
        os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
