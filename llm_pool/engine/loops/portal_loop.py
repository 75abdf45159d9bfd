"""The event loop of the portal."""

from __future__ import annotations

import asyncio
import contextlib
import selectors
from typing import Any

from ..clock import monotonic
from .greenlets import original, patched_by

__all__ = ["new_loop"]


def new_loop() -> asyncio.AbstractEventLoop:
    """Return a new event loop for the portal: a ``PortalLoop``, or the one of another event loop policy."""
    if patched_by() is None:
        loop = asyncio.new_event_loop()
        if type(loop) is not asyncio.SelectorEventLoop:  # uvloop; on Windows the proactor
            if isinstance(loop, asyncio.BaseEventLoop):
                loop.time = monotonic  # type: ignore[method-assign]
            return loop
        loop.close()
    return PortalLoop(_new_selector())


class PortalLoop(asyncio.SelectorEventLoop):
    """asyncio's event loop, with these changes:

    - Its timers run on while a test freezes ``time.monotonic``.
    - Its selector and sockets are real ones, also where gevent or eventlet have replaced them.
    - A wake-up costs one system call to read, not two.
    - A post from another thread fails if it cannot wake the loop, because the loop's descriptors were closed.
    """

    _csock: Any
    _ssock: Any
    time = staticmethod(monotonic)

    def _make_self_pipe(self) -> None:
        loop: Any = self
        loop._ssock, loop._csock = original("socket", "socketpair")()
        loop._ssock.setblocking(False)
        loop._csock.setblocking(False)
        loop._internal_fds += 1
        loop._add_reader(loop._ssock.fileno(), loop._read_from_self)

    def _read_from_self(self) -> None:
        # Once: if there were more bytes, the selector would report them again.
        with contextlib.suppress(BlockingIOError, InterruptedError):
            self._ssock.recv(4096)

    def _write_to_self(self) -> None:
        if self._csock is None:
            return  # the loop is closed
        try:
            self._csock.send(b"\0")
        except BlockingIOError:
            return  # the loop has not read earlier bytes yet, and will wake because of them
        except OSError as error:
            raise RuntimeError("the descriptors of the event loop were closed") from error


def _new_selector() -> selectors.BaseSelector:
    if patched_by() != "eventlet":
        return original("selectors", "DefaultSelector")()  # type: ignore[no-any-return]
    return _PollSelector()


class _PollSelector(selectors._PollLikeSelector):
    """``selectors.PollSelector``, which eventlet deletes from its module."""

    def __init__(self) -> None:
        self._selector_cls = original("select", "poll")
        self._EVENT_READ, self._EVENT_WRITE = original("select", "POLLIN"), original("select", "POLLOUT")
        super().__init__()
