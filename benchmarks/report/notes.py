"""The texts of ``docs/benchmarks.md`` that do not depend on the results."""

from __future__ import annotations

__all__ = ["METHOD", "NOTES", "READING"]

METHOD = """\
# Benchmarks

The goals of this project for speed, and the results of the last run of `make bench`. That run writes this
file: change the texts in `benchmarks/`, not here.

## How it is measured

- The upstream is a process of its own on another core than the client, and is not the bottleneck: nginx for
  whole answers of some 500 bytes, a small uvloop server for streams.
- Each client runs in a new process in each round, and is used as its documentation recommends: one client
  object for all calls, unless its name says otherwise.
- Each round runs all clients in turn, so that a change in the machine's speed affects all of them. A result
  is the ratio of the medians of two clients over five rounds or more. In parentheses are the smallest and the
  largest ratio of a round. On a machine that is shared with others, the same work may take one and a half
  times as much CPU a minute later: if the goal lies within this range, the next run may have another result.
  A result is marked with * if other processes made a load of more than 1.5, or if it has fewer rounds.
- CPU is the time of the client's process, user and system, all threads. It is measured after every caller
  has made one call. Each caller makes its next call as soon as it has an answer, so the rate and the
  percentiles are those of a busy client. If a client cannot keep up with a stream, it reads several events
  at a time, which makes each event cheaper: this makes slow clients look better than they are.
- **The floor** is a bare `asyncio.Protocol` with httptools. It sends bytes that were made before, parses the
  same JSON, wakes the waiting task, and does nothing else: no checks, no timeouts, almost no pool. No Python
  client on this loop can cost much less.
- Functions are counted by `sys.setprofile`, with those of the event loop. No clock is involved: one round is
  enough.
- The provider 50 ms away is a network namespace behind two TUN devices and a wire that delays each packet,
  so that the handshakes of TCP and TLS take round trips too.
- **pyreqwest** shows what a client costs whose HTTP is compiled: it needs less than half of the CPU of a
  Python client, and no Python client can reach it. For an application this matters little. A call to a model
  takes seconds, and the difference is some 100 µs of CPU for each call: at 100 calls per second it is one
  hundredth of a core. What the pool adds for these microseconds is what it is for: one limit over all
  threads and loops, the queue, timeouts, statistics.
- "before", if it is there, is the result of an earlier commit in the same run (`--before PATH`).
- `acomplete` is measured without observers. `acomplete+metrics` has the middleware and prometheus_client. It
  is compared with `acomplete` by turns of 0.8 s in one process: new processes differ by more.
"""

READING = """\
## Large answers

What a reader needs for a large answer, in three sizes: a quarter, half, and all of it. If the time is linear,
the CPU for each byte or event is the same in all of them. `python -m benchmarks.reading` measures it, without
a network. The chunks are dropped; the memory is what the whole answer needs, without the bytes of the body,
which `max_answer_bytes` limits. A run of 2026-11-29, on two cores that others used too (load 6), with CPython
3.11.7:

| answer | all of it | a quarter | half | all |  | memory |
| --- | ---: | ---: | ---: | ---: | --- | ---: |
| chat: text in one event | 10 MB | 6 | 6 | 6 | ns per byte | 30.0 MB |
| chat: the same, read 10 bytes at a time | 10 MB | 78 | 79 | 79 | ns per byte | 98.5 MB |
| chat: text in pieces of 10 bytes | 1,000,000 events | 9,579 | 9,768 | 11,229 | ns per event | 95.9 MB |
| chat: empty chunks | 1,000,000 events | 10,704 | 10,241 | 10,349 | ns per event | 16.5 MB |
| chat: fragments of a tool call | 10,000 events | 18,361 | 17,624 | 19,635 | ns per event | 1.4 MB |
| chat: the same, each with the name | 10,000 events | 21,452 | 24,668 | 23,128 | ns per event | 1.4 MB |
| chat: tool calls | 10,000 events | 30,779 | 33,394 | 32,963 | ns per event | 13.0 MB |
| chat: pieces in a message for a delta | 10,000 events | 9,437 | 9,583 | 9,786 | ns per event | 1.7 MB |
| chat: citations, one in each event | 10,000 events | 15,597 | 17,987 | 20,851 | ns per event | 2.7 MB |
| messages: text in one event | 10 MB | 4 | 4 | 4 | ns per byte | 30.0 MB |
| messages: text in pieces of 10 bytes | 1,000,000 events | 7,310 | 8,278 | 8,379 | ns per event | 95.9 MB |
| messages: empty chunks | 1,000,000 events | 5,911 | 5,898 | 6,829 | ns per event | 9.2 MB |
| messages: fragments of a tool's input | 10,000 events | 6,933 | 8,068 | 7,737 | ns per event | 1.3 MB |
| messages: tool calls | 10,000 events | 33,368 | 38,052 | 36,301 | ns per event | 13.6 MB |
"""

_BROWSERS = """
Besides the call itself, a token costs what all three views need: Django's response, uvicorn and the `send`
system call. If a server does not keep up, it sends several tokens at a time, which makes each cheaper.
"""

NOTES = {
    ("browsers", "openai, shared"): _BROWSERS,
    ("browsers", "openai on aiohttp, shared"): _BROWSERS,
    ("complete", "floor"): """
The profile is flat: no function takes more than a twentieth of the time. The largest are the `send` system
call and the check of the answer's head. The rest is work that the floor does not do: checks, timers,
statistics, the ledger.
""",
    ("complete", "aiohttp"): """
aiohttp parses and writes HTTP in C. The pool does it in Python, except for httptools, and adds the queue,
the limit over all threads, the timers and the statistics. With uvloop both cost less by the same amount, so
these costs are a larger share.
""",
    ("stream", "aiohttp"): """
As with whole answers, uvloop makes both cheaper by the same amount. Besides, the benchmark's client for
aiohttp only splits lines and parses JSON; it does not implement the format of event streams.
""",
    ("stream", "openai"): """
If the OpenAI SDK does not keep up (its rate is then lower), it reads several events at a time, which makes
each event cheaper for it.
""",
    ("observed", "acomplete"): """
Each call makes a record, which is counted later; the middleware and the view that it calls are two more
coroutines.
""",
    ("stream", "floor"): """
Each event wakes its task, is parsed by all rules of event streams, wherever the network has split it, and
becomes a chunk; the floor only splits bytes. uvloop makes the floor cheaper, but not the code between the
loop and the caller.
""",
    ("import", "Django and httpx"): """
The engine and the settings are imported with the first pool, or by the system checks. The start imports
nine small modules.
""",
    ("burst", "one call on a new connection"): """
The pool opens five connections, so that no answer has to wait because of TCP's initial window. The time
beyond the round trips is CPU time: four more handshakes, and 50 calls, each encoded and decoded on its
own.
""",
    ("in", "20 round trips"): """
No call waits for a handshake. The time beyond the round trips is CPU time, and the delay of the simulated
wire when it has to wait for a processor.
""",
}
"""Why a goal is missed: by the first word of the workload, and the other side of the comparison."""
