"""Fixtures of the service's tests."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from django.test import override_settings

from llm_pool import pools
from tests.fixtures.model import model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llm_pool.calling.pool import LLMPool
    from testbed import Script, ScriptedServer

SECRET = "sk-secret-0123456789"


@pytest.fixture
def secret() -> str:
    """The API key of ``pool_at``'s pools."""
    return SECRET


@pytest.fixture
def configure() -> Iterator[Callable[..., LLMPool]]:
    """``configure(server, LIMITS={...})``: ``pools["default"]``, set up for a server of the tests."""
    with contextlib.ExitStack() as changed:

        def change(server: ScriptedServer, **settings: Any) -> LLMPool:
            default = {"BASE_URL": f"{server.url}/v1", "API_KEY": SECRET, "MODEL": "test-model", "PROXY": ""}
            changed.enter_context(override_settings(LLM_POOL={"default": {**default, **settings}}))
            return pools["default"]

        yield change


@pytest.fixture
def upstream(serve: Callable[..., ScriptedServer]) -> ScriptedServer:
    """The model, with its gates open."""
    return with_open_gates(serve(model))


@pytest.fixture
def serve_first(serve: Callable[..., ScriptedServer]) -> Callable[[Script], ScriptedServer]:
    """``serve_first(script)``: that script for the first request of all, the model for all others."""

    def start(script: Script) -> ScriptedServer:
        async def play(conn: Any) -> None:
            await (model if conn.server.requests else script)(conn)

        return with_open_gates(serve(play))

    return start


def with_open_gates(server: ScriptedServer) -> ScriptedServer:
    server.gate("head").open()
    server.gate("token").open()
    return server
