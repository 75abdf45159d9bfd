"""What the document says beside the figures."""

from __future__ import annotations

__all__ = ["METHOD", "NOTES"]

METHOD = """\
# Benchmarks

What this project claims about speed, and what `make bench` measured when it last ran. This file is written
by that run: change `benchmarks/`, not it.

## How it is measured

- The upstream is a process of its own on another core than the client, and not the bottleneck: nginx for
  whole answers of some 500 bytes, a small uvloop server for streams.
- Each client is a fresh process in each round, and is used in the way its documentation recommends: one
  client for all calls, unless it says otherwise.
- The rounds are interleaved: all clients have their turn before the first has its next, so that a drift of
  the machine hits all. A ratio is that of two clients in the same round; shown are its median and, in
  parentheses, the least and the most. On a machine that is shared with others the same work may cost half
  as much again a minute later: where the spread reaches over the goal, the next run may say otherwise.
- CPU is the process's own, user and system, all threads, while calls are in full swing: every caller has
  made a call before. Each caller makes the next call as soon as the last has its answer, so the rate and
  the percentiles are those of a client that is kept busy. Where a client cannot keep up with a stream,
  events come several at a time, which makes each cheaper: that flatters the slowest.
- **The floor** is a bare `asyncio.Protocol` with httptools that sends bytes made beforehand, parses the
  same JSON, wakes the task that waits, and does nothing else: no check, no timeout, no pool to speak of. No
  Python on this loop can cost much less.
- The provider 50 ms away is a network namespace behind two TUN devices and a wire that delays each packet,
  so that the handshakes of TCP and TLS pay for the distance too.
- `acomplete` is measured as it is where nobody looks on; `acomplete+metrics` with the middleware and
  prometheus_client.
"""

NOTES = {
    ("complete", "floor"): """
The profile is flat: no function has more than a twentieth, and the largest are the `send` system call and the
check of the answer's head. The rest is what the floor does without: checks, timers, statistics, the ledger.
""",
    ("complete", "aiohttp"): """
aiohttp parses and writes HTTP in C; here that is Python but for httptools, with the queue, the bound over all
threads, the timers and the statistics on top. What uvloop saves it saves for both, and so these weigh more.
""",
    ("stream", "aiohttp"): """
As with whole answers: what uvloop saves it saves for both. Besides, the benchmark's client for aiohttp splits
lines and parses JSON, and knows no event streams.
""",
    ("stream", "openai"): """
Where the OpenAI SDK does not keep up (its rate tells), its events come several at a time, which makes each
cheaper for it.
""",
    ("observed", "acomplete"): """
A call leaves a record, which waits until it is counted; the middleware and the view that it calls are two
more coroutines. Fresh processes differ by as much from one another where others share the caches.
""",
    ("stream", "floor"): """
An event wakes its task, goes through the whole format of event streams, however it is cut, and becomes a
chunk; the floor splits bytes. uvloop makes the floor cheaper, and what lies between the loops and the caller
stays what it was.
""",
    ("import", "Django and httpx"): """
The engine is loaded with the first pool. What is left are some thirty small modules: settings, their checks,
providers and exceptions.
""",
    ("burst", "one call on a new connection"): """
The pool opens five connections, so that no answer waits behind TCP's initial window. What is over the round
trips is CPU: four more handshakes, and 50 calls that h2 encodes and decodes one by one.
""",
    ("in", "20 round trips"): """
No call waits for a handshake: what is over the distance is CPU, and what the wire adds where it has to wait
for a processor.
""",
}
"""Why a goal is missed, where it is: by the first word of the workload and what it was held against."""
