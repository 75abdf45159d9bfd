"""What visitors are told of an error. Its own message, of provider, network and pool, is for the log."""

from __future__ import annotations

from llm_pool.exceptions import PoolTimeout, StreamInterrupted

__all__ = ["BUSY", "sentence_for"]

BUSY = "Too many requests are waiting for the model. Please try again in a few seconds."


def sentence_for(error: Exception) -> str:
    """What happened, as far as it concerns them, and what to do."""
    if isinstance(error, PoolTimeout):
        return BUSY
    if isinstance(error, StreamInterrupted):
        return "The answer broke off. Please try again."
    return "The model gave no answer. Please try again later."
