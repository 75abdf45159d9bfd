"""Overridden settings take effect at once, and the connections of the old pool are closed."""

from __future__ import annotations

import asyncio
import time

import pytest
from django.test import override_settings

from llm_pool import pools
from llm_pool.exceptions import PoolClosed
from testbed import ScriptedServer
from testbed.behaviours import stall
from testbed.chat import chat_completion
from tests.fixtures.callers import AT_ONCE
from tests.fixtures.engine import request_to


def settings_of(server: ScriptedServer, **more) -> dict:
    return {"default": {"BASE_URL": f"{server.url}/v1", "API_KEY": "k", "MODEL": "m", **more}}


def test_overridden_settings_hold_at_once_and_the_old_connections_are_gone(serve):
    """Scenario 54: in a thread; calls in the block go to the new server, after it to the old one again."""
    old, new = serve(chat_completion("old")), serve(chat_completion("new"))
    with override_settings(LLM_POOL=settings_of(old)):
        pool = pools["default"]
        assert str(pool.complete("hello")) == "old"
        with override_settings(LLM_POOL=settings_of(new, LIMITS={"max_connections": 3})):
            old.wait_until(lambda s: s.connections_open == 0)
            assert str(pools["default"].complete("hello")) == "new"
            assert pools["default"].stats().max_connections == 3
            with pytest.raises(PoolClosed):
                pool.engine.fetch_sync(request_to(old))
        new.wait_until(lambda s: s.connections_open == 0)
        assert str(pools["default"].complete("hello")) == "old"
    old.wait_until(lambda s: s.connections_open == 0)


async def test_overridden_settings_in_async_code(each_loop, serve):
    """Scenario 54: the same on an event loop, which the change does not block."""
    old, new = serve(chat_completion("old")), serve(chat_completion("new"))
    with override_settings(LLM_POOL=settings_of(old)):
        assert str(await pools["default"].acomplete("hello")) == "old"
        began = time.monotonic()
        with override_settings(LLM_POOL=settings_of(new)):
            assert time.monotonic() - began < AT_ONCE
            await old.await_until(lambda s: s.connections_open == 0)
            assert str(await pools["default"].acomplete("hello")) == "new"
            assert len(old.requests) == 1
        await new.await_until(lambda s: s.connections_open == 0)


async def test_running_calls_get_pool_closed_when_the_settings_change(each_loop, serve):
    """Scenario 54: a call with the old settings does not hang."""
    old, new = serve(stall), serve(chat_completion("new"))
    with override_settings(LLM_POOL=settings_of(old)):
        call = asyncio.create_task(pools["default"].acomplete("hello"))
        await old.await_requests()
        with override_settings(LLM_POOL=settings_of(new)):
            with pytest.raises(PoolClosed):
                await call
            assert str(await pools["default"].acomplete("hello")) == "new"
            await old.await_until(lambda s: s.connections_open == 0)
