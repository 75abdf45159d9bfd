"""A program in which gevent or eventlet has replaced the standard library. It makes calls and prints results.

    python -m tests.scenarios.greenlet_program gevent first '{"BASE_URL": ...}'

The second argument says what is replaced, and when: ``first``: all, before other imports; ``later``: all,
after the pools are made; ``threads`` and ``sockets``: only these. The server must hold back the answers to
"slow" until the path ``/go`` is called.
"""

from __future__ import annotations

import json
import sys
import threading

library, moment, pool_settings = sys.argv[1:]
greenlets_finished: list[str] = []


def replace(**parts: bool) -> None:
    """Replace the standard library: all of it, or only the ``parts``."""
    if library == "gevent":
        from gevent import monkey  # noqa: PLC0415

        if parts:
            monkey.patch_all(**{"thread": False, "socket": False, "ssl": False, **parts})
        else:
            monkey.patch_all()
    else:
        import eventlet  # noqa: PLC0415

        eventlet.monkey_patch(**parts)


sys.modules["trio"] = None  # type: ignore[assignment]  # httpcore imports it, which fails under eventlet
if moment == "first":
    replace()
elif moment == "threads":
    replace(thread=True)
elif moment == "sockets":
    replace(socket=True)

import asyncio  # noqa: E402
import os  # noqa: E402

import django  # noqa: E402
from asgiref.sync import async_to_sync  # noqa: E402
from django.conf import settings  # noqa: E402

DATABASE = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
settings.configure(
    INSTALLED_APPS=["llm_pool"],
    SECRET_KEY="x",
    DATABASES={"default": DATABASE},
    LLM_POOL={"default": {"API_KEY": "k", "MODEL": "m", "PROXY": "", **json.loads(pool_settings)}},
)
django.setup()

from django.db import connection  # noqa: E402

from llm_pool import pools  # noqa: E402

pool = pools["default"]
if moment == "later":
    replace()

if library == "gevent":
    import gevent
    from gevent import GreenletExit, Timeout, sleep, spawn
else:
    from eventlet import Timeout, sleep, spawn
    from greenlet import GreenletExit


def wait_for(*greenlets: object) -> None:
    if library == "gevent":
        gevent.joinall(greenlets, raise_error=True)
    else:
        for greenlet in greenlets:
            greenlet.wait()


def query() -> int:
    """Use the database: Django refuses that while an event loop runs in this thread."""
    with connection.cursor() as cursor:
        cursor.execute("select 1")
        return cursor.fetchone()[0]


def until(condition) -> bool:
    """Let the other greenlets run until the condition is true, at most about ten seconds."""
    for _ in range(1000):
        if condition():
            return True
        sleep(0.01)
    return False


def many_at_once() -> list[int]:
    """32 calls that are not answered before all of them were sent."""
    answers: list[str] = []
    calls = [spawn(lambda: answers.append(pool.complete("slow").text)) for _ in range(32)]
    together = until(lambda: pool.stats().in_use == 32)
    first = query()
    pool.request("GET", "go")
    wait_for(*calls)
    return [together, len(answers), first]


def timed_out() -> list[bool]:
    """A call that a timeout of the library ends."""
    before = pool.stats().cancelled
    try:
        with Timeout(0.2):
            pool.complete("never")
    except Timeout:
        return was_cancelled_once(before)
    return []


def was_cancelled_once(before: int) -> list[bool]:
    return [until(lambda: pool.stats().cancelled == before + 1), pool.stats().in_use == 0]


def killed() -> list[bool]:
    """A call whose greenlet is killed."""
    before, raised = pool.stats().cancelled, list[bool]()

    def call() -> None:
        try:
            pool.complete("never")
        except GreenletExit:
            raised.append(True)
            raise

    greenlet = spawn(call)
    assert until(lambda: pool.stats().in_use == 1)
    greenlet.kill()
    return was_cancelled_once(before) + raised


async def both_ways() -> list[str]:
    completion = await pool.acomplete("hi")
    return [completion.text, "".join([chunk.text async for chunk in pool.astream("hi")])]


def in_an_os_thread() -> str:
    """A call on a real thread, of the library's own thread pool."""
    if library == "gevent":
        return gevent.get_hub().threadpool.apply(lambda: pool.complete("hi").text)
    from eventlet import tpool  # noqa: PLC0415

    return tpool.execute(lambda: pool.complete("hi").text)


def in_a_child() -> str:
    """A call and a query in a forked child."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            outcome = f"{pool.complete('hi').text} {query()}"
        except BaseException as error:  # noqa: BLE001 - the test shows it
            outcome = repr(error)
        os.write(writer, outcome.encode())
        os._exit(0)
    os.close(writer)
    outcome = os.read(reader, 1000).decode()
    os.close(reader)
    os.waitpid(child, 0)
    return outcome


def in_a_thread_object() -> str:
    """A call in a ``threading.Thread``, which is a greenlet if threads were replaced."""
    answers: list[str] = []
    thread = threading.Thread(target=lambda: answers.append(pool.complete("hi").text))
    thread.start()
    thread.join()
    return answers[0]


results = {
    "complete": pool.complete("hi").text,
    "query": query(),
    "many at once": many_at_once(),
    "stream": "".join(chunk.text for chunk in pool.stream("hi")),
    "timed out": timed_out(),
    "killed": killed(),
    "async_to_sync": async_to_sync(both_ways)(),
    "asyncio.run": asyncio.run(both_ways()),
    "thread": in_a_thread_object(),
    "real thread": in_an_os_thread(),
    "child": in_a_child(),
    "query afterwards": query(),
    "drain": pool.drain(5),
    "after drain": pool.complete("hi").text,
}
pool.close()
print(json.dumps(results), flush=True)
sys.stdin.read()  # the test counts the open connections meanwhile
