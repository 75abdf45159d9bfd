"""The httpx clients of a pool: one of each kind, for all who use the pool."""

from __future__ import annotations

from typing import Self

import httpx

from .auth import Redirects

__all__ = ["AsyncClient", "Client"]


class AsyncClient(Redirects, httpx.AsyncClient):
    """``httpx.AsyncClient``, which nobody can close under the hands of the others: close the pool instead."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Leave it open."""

    async def aclose(self) -> None:
        """Leave it open."""


class Client(Redirects, httpx.Client):
    """``AsyncClient``, for threads."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Leave it open."""

    def close(self) -> None:
        """Leave it open."""
