"""The texts of the document: how it is measured, and why a goal is missed."""

from __future__ import annotations

__all__ = ["METHOD", "NOTES"]

METHOD = """\
# Benchmarks

What this project claims about speed, and what the last run of `make bench` measured. That run writes this
file: to change it, change `benchmarks/`.

## How it is measured

- The upstream is a process of its own on another core than the client, and is not the bottleneck: nginx for
  whole answers of some 500 bytes, a small uvloop server for streams.
- Each client is a fresh process in each round, and is used in the way its documentation recommends: one
  client for all calls, unless the name says otherwise.
- The rounds are interleaved: each round measures every client once, so that a slow phase of the machine
  affects all. A ratio compares two clients in the same round. The tables show the median of all rounds and,
  in parentheses, the smallest and the largest. On a shared machine the same work may cost half as much again
  a minute later: where the goal lies within that range, the next run may have the other result.
- CPU is that of the client's process, user and system, all threads. It is measured after every caller has
  made a call. Each caller makes the next call as soon as the last has its answer, so the rate and the
  percentiles are those of a busy client. If a client is too slow for a stream, it reads several events at a
  time; each then costs less, which favours the slowest clients.
- **The floor** is a bare `asyncio.Protocol` with httptools. It sends bytes that were made beforehand, parses
  the same JSON, wakes the waiting task, and does nothing else: no checks, no timeouts, and a list for a pool.
  No Python on this loop can cost much less.
- The provider 50 ms away is a network namespace behind two TUN devices and a process that delays each
  packet, so that the handshakes of TCP and TLS take round trips too.
- `acomplete` is measured without observers; `acomplete+metrics` with the middleware and prometheus_client.
"""

NOTES = {
    ("complete", "floor"): """
The profile is flat: no function takes more than a twentieth, and the largest are the `send` system call and
the check of the answer's head. The rest is what the floor lacks: checks, timers, statistics, the ledger.
""",
    ("complete", "aiohttp"): """
aiohttp parses and writes HTTP in C; in llm_pool only httptools is C. The queue, the limit over all threads,
the timers and the statistics are added to that. uvloop saves the same for both, so these weigh more with it.
""",
    ("stream", "aiohttp"): """
As with whole answers, uvloop saves the same for both. Besides, the benchmark's client for aiohttp only splits
lines and parses JSON; it does not parse the format of event streams.
""",
    ("stream", "openai"): """
Where the OpenAI SDK is too slow for the streams (its rate shows that), it reads several events at a time, and
each costs it less.
""",
    ("observed", "acomplete"): """
Each call makes a record, which is kept until it is counted; the middleware and the view that it calls are two
more coroutines. On a shared machine, two fresh processes may differ by as much.
""",
    ("stream", "floor"): """
An event wakes its task, is parsed as the format of event streams demands, wherever the bytes were split, and
becomes a chunk; the floor splits bytes. uvloop makes the floor cheaper, but not the code between the loop and
the caller.
""",
    ("import", "Django and httpx"): """
The engine is imported with the first pool. The start imports some thirty small modules: settings, their
checks, providers and exceptions.
""",
    ("burst", "one call on a new connection"): """
The pool opens five connections, so that no answer waits for TCP's initial window. The time beyond the round
trips is CPU: four more handshakes, and 50 calls that h2 encodes and decodes one by one.
""",
    ("in", "20 round trips"): """
No call waits for a handshake. The time beyond the round trips is CPU, and the delays of the process that
carries the packets.
""",
}
"""Why a goal is missed, by the first word of the workload's name and the label that it is compared with."""
