"""The proof after each test: what is left behind is found and named."""

from __future__ import annotations

import asyncio
import socket
import threading
from types import SimpleNamespace

import pytest

from tests.fixtures import books


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(books, "SETTLING", 0.05)


def pool_with(monkeypatch: pytest.MonkeyPatch, **stats: int) -> None:
    full = SimpleNamespace(**{"connections": 0, "in_use": 0, "idle": 0, "dialing": 0, "waiting": 0, **stats})
    pool = SimpleNamespace(name="test", stats=lambda: full)
    monkeypatch.setattr(books, "live_pools", lambda: [pool])


@pytest.mark.parametrize(
    ("stats", "message"),
    [
        ({"connections": 2, "idle": 1}, "connections are not in use"),
        ({"connections": 1, "in_use": 1}, "1 in use after the test"),
        ({"waiting": 3}, "3 waiting after the test"),
    ],
)
def test_books_that_do_not_balance_are_found(monkeypatch, stats, message):
    with monkeypatch.context() as patch:
        pool_with(patch, **stats)
        with pytest.raises(AssertionError, match=f"pool test: .*{message}"):
            books.balance()


def test_idle_and_dialing_connections_are_in_order(monkeypatch):
    with monkeypatch.context() as patch:
        pool_with(patch, connections=3, idle=2, dialing=1)
        books.balance()


def test_a_socket_left_open_is_named(serve):
    before = books.Holdings.now()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(AssertionError, match=rf"listening socket .*AF_INET.*{port}"):
            before.assert_no_more_than_these()
    before.assert_no_more_than_these()


def test_a_connection_that_only_its_peer_has_closed_is_named():
    before = books.Holdings.now()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        left = socket.create_connection(listener.getsockname())
    try:
        with pytest.raises(AssertionError, match="left behind by the test: socket"):
            before.assert_no_more_than_these()
    finally:
        left.close()


def test_a_thread_left_running_is_named():
    before = books.Holdings.now()
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="straggler")
    thread.start()
    with pytest.raises(AssertionError, match="thread straggler"):
        before.assert_no_more_than_these()
    end.set()
    thread.join()


async def test_a_task_left_running_is_named():
    before = asyncio.all_tasks()
    task = asyncio.create_task(asyncio.sleep(60), name="straggler")
    with pytest.raises(AssertionError, match=r"task left on the test's loop: .*straggler"):
        await books.abalance(before)
    task.cancel()
    await asyncio.wait([task])
    await books.abalance(before)


async def test_an_event_loops_own_threads_and_sockets_are_no_leak():
    assert await asyncio.to_thread(threading.current_thread) is not threading.current_thread()
