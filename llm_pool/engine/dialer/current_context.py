"""The SSL context for new connections. It is built again when a file that it was built from has changed."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from llm_pool.exceptions import TLSFailed

from ..config import TLS
from ..loops.threads import ThreadResult, in_thread, new_lock
from .tls import build_context, paths_of

__all__ = ["CurrentContext"]

logger = logging.getLogger("llm_pool.engine")

Stamp = tuple[int, int, int] | None


class CurrentContext:
    """Builds an SSL context from ``config``, and builds it again when one of its files has changed.

    Certificates are replaced while a process runs: client certificates can be valid for hours only, and
    Kubernetes replaces the files of a secret. So ``get`` looks at the files for each new connection. Open
    connections keep the context that they were made with.

    ``http2``: whether ALPN offers h2.
    """

    def __init__(self, config: TLS, *, http2: bool) -> None:
        self.lock = new_lock()
        self._config = config
        self._http2 = http2
        self._context = config.context
        self._stamps: list[tuple[str, Stamp]] = []  # of the files that ``_context`` was built from
        self._warned_of: list[tuple[str, Stamp]] = []  # of the files that the last warning was about
        self._look: ThreadResult[ssl.SSLContext] | None = None

    async def get(self) -> ssl.SSLContext:
        """Return the context for a new connection.

        If a changed file cannot be used, returns the last context: the file may be half written. The next
        call tries again. Raises TLSFailed if there is no context yet, and a file cannot be used.
        """
        if self._config.context is not None:
            return self._config.context
        try:
            look = self.look()
        except (RuntimeError, MemoryError):  # the system can start no thread now
            if self._context is None:
                raise
            return self._context
        return await look.get()

    def look(self) -> ThreadResult[ssl.SSLContext]:
        """Look at the files on a thread, since files can block. Return the result, to be awaited.

        Callers at the same time share one look. Raises RuntimeError or MemoryError if the system can start no
        thread.
        """
        with self.lock:
            if self._look is None or self._look.is_set:
                self._look = in_thread(self._look_at_files)
            return self._look

    def _look_at_files(self) -> ssl.SSLContext:
        # Before the files are read: if they change meanwhile, the next look finds other stamps.
        stamps = [(path, _stamp(path)) for path in paths_of(self._config)]
        if self._context is not None and stamps == self._stamps:
            return self._context
        try:
            context = build_context(self._config, http2=self._http2)
        except TLSFailed as error:
            if self._context is None:
                raise
            if stamps != self._warned_of:
                self._warned_of = stamps
                message = "%s; new connections use the files as they were before"
                in_thread(logger.warning, message, error)  # a log handler can call the pool, and wait for it
            return self._context
        self._context, self._stamps = context, stamps
        return context


def _stamp(path: str) -> Stamp:
    """Return a value that changes when the file at ``path`` does; None if there is no such file."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
