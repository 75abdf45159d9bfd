"""pyreqwest: one client for all calls. Its HTTP is written in Rust and runs on its own thread."""

from __future__ import annotations

from pathlib import Path

from pyreqwest.client import ClientBuilder

from benchmarks.clients.answers import text_of
from benchmarks.clients.base import BODY, KEY, AsyncClient, Target

__all__ = ["Pyreqwest"]


class Pyreqwest(AsyncClient):
    """``pyreqwest.client.Client``."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        builder = ClientBuilder().error_for_status(True).no_proxy()
        if target.ca_file:
            builder = builder.add_root_certificate_pem(Path(target.ca_file).read_bytes())
        self._client = builder.build()

    async def complete(self) -> str:
        request = self._client.post(self.target.completions).bearer_auth(KEY).body_json(BODY).build()
        response = await request.send()
        return text_of(await response.json())
