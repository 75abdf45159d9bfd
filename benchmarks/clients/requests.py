"""requests: one session for all threads, with a connection for each caller."""

from __future__ import annotations

import requests
from requests.adapters import HTTPAdapter

from benchmarks.clients.answers import text_of
from benchmarks.clients.base import BODY, KEY, Client, Target

__all__ = ["Requests"]


class Requests(Client):
    """``requests.Session``."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers["authorization"] = f"Bearer {KEY}"
        self._session.mount("http://", HTTPAdapter(pool_maxsize=target.connections))

    def complete(self) -> str:
        return text_of(self._session.post(self.target.completions, json=BODY).json())
