"""The fork and the end of this process: lets every module forget the parent, and stops the portal.

The functions of ``os.register_at_fork`` are called if Python itself forks. A program that embeds Python can
fork without a call of them: uWSGI calls them only with an option. So ``notice_fork`` compares process ids
wherever a host loop is asked for.

Functions of ``atexit`` run in the reverse order of their registration. So the app imports this module at its
start: what a project registers later can make calls, because it runs before the portal is stopped.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from os import getpid

from .threads import hold, new_rlock

__all__ = ["after_fork", "at_exit", "left_to_parent", "notice_fork"]

left_to_parent: list[object] = []
"""In a forked child: objects of the parent. They are kept, so that their finalizers do not run here."""

_at_exit: list[Callable[[], None]] = []


def at_exit(function: Callable[[], None]) -> Callable[[], None]:
    """Register ``function`` for the exit of the interpreter, as if ``atexit`` had been given it at the start.

    Returns ``function``.
    """
    _at_exit.append(function)
    return function


@atexit.register
def _exit() -> None:
    for function in _at_exit:
        function()


class _Forks:
    """What is to be done after a fork.

    ``pid``        the process whose loops and connections the package has
    ``functions``  forget one module's part of the parent; called in this order
    """

    def __init__(self) -> None:
        self.pid = getpid()
        self.functions: list[Callable[[], None]] = []
        self.lock = new_rlock()  # for ``hold``


_forks = _Forks()


def after_fork(function: Callable[[], None]) -> Callable[[], None]:
    """Register ``function`` to be called in the child of a fork. Returns ``function``.

    The functions are called in the order of their registration. A module that imports ``portal`` first finds
    the parent's loops forgotten already. If an interrupt stops the functions, the next ``notice_fork`` calls
    all of them again.
    """
    _forks.functions.append(function)
    return function


def notice_fork() -> None:
    """If this process is the child of a fork that was not noticed yet, forget the parent."""
    if _forks.pid != getpid():
        hold(_forks.lock, _forget_parent)


def _forget_parent() -> None:
    if _forks.pid == getpid():
        return  # another thread has noticed the fork first
    for function in _forks.functions:
        function()
    _forks.pid = getpid()


if hasattr(os, "register_at_fork"):  # Windows has no forks
    os.register_at_fork(after_in_child=_forget_parent)
