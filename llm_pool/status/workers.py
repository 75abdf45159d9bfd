"""Exchanges snapshots between all workers of the machine, through Django's default cache if they share it.

Each worker has one of ``SLOTS`` keys in the cache, its slot, and writes its snapshot there. A slot is free
again ``KEPT_SECONDS`` after the last write.
"""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import sys
from functools import cache
from typing import Any

from django.core import signing
from django.core.cache import BaseCache, caches
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache

from llm_pool.status.snapshot import TICK_SECONDS
from llm_pool.version import __version__

__all__ = ["Slot", "others", "shared_cache"]

logger = logging.getLogger("llm_pool.status")

SLOTS = 64  # the limit on workers of one machine
SALT = "llm_pool.status"  # entries are signed: a snapshot of another shape would break the page
KEPT_SECONDS = 3 * TICK_SECONDS  # how long the page shows a worker after its last write


def shared_cache() -> BaseCache | None:
    """Return Django's default cache; None for a ``LocMemCache`` or ``DummyCache``, which is not shared."""
    cache = caches["default"]
    return None if isinstance(cache, LocMemCache | DummyCache) else cache


def others(cache: BaseCache, worker: int) -> list[dict[str, Any]]:
    """Return the snapshots of the other workers of this machine. Raises the errors of the cache.

    ``worker`` is the process id of this worker, whose snapshot is left out. Deletes entries that no worker
    has written.
    """
    snapshots = []
    for key, text in cache.get_many([_key(number) for number in range(SLOTS)]).items():
        snapshot = _decode(text)
        if snapshot is None:
            logger.warning("no worker of this project has written the cache's entry %s: it is deleted", key)
            cache.delete(key)
        elif snapshot["worker"] != worker:
            snapshots.append(snapshot)
    return snapshots


class Slot:
    """This worker's key in the shared cache, under which it publishes snapshots. Not thread-safe."""

    def __init__(self) -> None:
        self._number: int | None = None
        self._failing = False

    def publish(self, snapshot: dict[str, Any]) -> None:
        """Write the snapshot to the shared cache, if there is one and it has a slot for this worker.

        Errors of the cache are not raised. The first of successive errors is logged.
        """
        try:
            cache = shared_cache()
            if cache is not None:
                self._write(cache, snapshot)
        except Exception:
            if not self._failing:
                logger.exception("the cache cannot be written: other workers do not see this one")
            self._failing = True
        else:
            self._failing = False

    def _write(self, cache: BaseCache, snapshot: dict[str, Any]) -> None:
        text = signing.dumps(snapshot, salt=SALT, compress=True)
        if self._number is not None:
            held = _decode(cache.get(_key(self._number)))
            if held is not None and held["worker"] == snapshot["worker"]:
                cache.set(_key(self._number), text, KEPT_SECONDS)
                return
        # ``add`` writes only if the key is free, so two workers cannot get the same slot.
        free = (number for number in range(SLOTS) if cache.add(_key(number), text, KEPT_SECONDS))
        self._number = next(free, None)


def _decode(text: Any) -> dict[str, Any] | None:
    """Return the snapshot in an entry of the cache, or None if no worker of this project has written it."""
    if not isinstance(text, str):
        return None
    try:
        snapshot: dict[str, Any] = signing.loads(text, salt=SALT)
    except signing.BadSignature:
        return None
    return snapshot


@cache
def _deployment() -> str:
    """Return a hash of host name, settings file and llm_pool's version.

    It is part of the keys, because other machines and projects may use the same cache.
    """
    settings = os.environ.get("DJANGO_SETTINGS_MODULE", "")
    file = getattr(sys.modules.get(settings), "__file__", None)
    names = (socket.gethostname(), file or settings, __version__)
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _key(number: int) -> str:
    return f"llm_pool-status-{_deployment()}-{number}"
