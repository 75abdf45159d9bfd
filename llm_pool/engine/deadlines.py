"""When an exchange times out, and with which error. Times are seconds of the loop's clock."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from llm_pool.exceptions import LLMPoolError, ReadTimeout, TotalTimeout, WriteTimeout

if TYPE_CHECKING:
    from .exchange import Exchange

__all__ = ["deadline_of", "is_past_total", "timeout_error"]


def deadline_of(exchange: Exchange, now: float, *, writing: bool) -> float | None:
    """Return when the exchange times out if no byte is sent or received until then; None for no timeout.

    The write timeout counts if ``writing``, otherwise the read timeout and ``request.content_timer``; the
    total timeout counts if it ends earlier.
    """
    request, deadline = exchange.request, exchange.total_at
    timeout = request.timeouts.write if writing else request.timeouts.read
    if timeout is not None and (deadline is None or now + timeout < deadline):
        deadline = now + timeout
    timer = request.content_timer
    if timer is not None and not writing:
        content_at = timer.deadline(now)
        if content_at < (inf if deadline is None else deadline):
            return content_at
    return deadline


def is_past_total(exchange: Exchange, now: float) -> bool:
    """Return whether the total timeout has ended at ``now``."""
    return exchange.total_at is not None and now >= exchange.total_at


def timeout_error(exchange: Exchange, now: float, *, writing: bool) -> LLMPoolError:
    """Return the error for a deadline that has passed at ``now``.

    It is a TotalTimeout if the total timeout has ended. Otherwise it is a WriteTimeout if ``writing``, a
    TokenTimeout if ``request.content_timer`` has ended, or a ReadTimeout.
    """
    timeouts, origin = exchange.request.timeouts, exchange.request.origin
    if is_past_total(exchange, now):
        return TotalTimeout(f"the call to {origin} took longer than its total timeout of {timeouts.total} s")
    if writing:
        return WriteTimeout(
            f"{origin} accepted nothing of the request for {timeouts.write} s (the write timeout)"
        )
    timer = exchange.request.content_timer
    no_content = timer.error(now, origin) if timer is not None else None
    return no_content or ReadTimeout(f"{origin} sent nothing for {timeouts.read} s (the read timeout)")
