"""niquests: one session for all calls."""

from __future__ import annotations

import niquests

from benchmarks.clients.answers import text_of
from benchmarks.clients.base import BODY, KEY, AsyncClient, Target

__all__ = ["Niquests"]


class Niquests(AsyncClient):
    """``niquests.AsyncSession``."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._session = niquests.AsyncSession(
            headers={"authorization": f"Bearer {KEY}"},
            pool_maxsize=target.connections,
            verify=target.ca_file or True,
        )

    async def complete(self) -> str:
        response = await self._session.post(self.target.completions, json=BODY)
        return text_of(response.json())
