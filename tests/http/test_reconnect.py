"""A browser that comes back: EventSource asks again when a response has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.test import AsyncClient, Client

from llm_pool.http import event_stream
from tests.fixtures.events import events_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_pool.calling.pool import LLMPool
    from testbed import ScriptedServer

VIEWS = pytest.mark.parametrize("path", ["/stream", "/astream"])
WRAPPING = ["tests.deployments.project.middleware.wrapping"]


@VIEWS
@pytest.mark.parametrize("middleware", [[], WRAPPING], ids=["plain", "wrapped"])
def test_after_the_last_event_it_is_sent_away_under_wsgi(
    path: str,
    middleware: list[str],
    settings: Any,
    configure: Callable[..., LLMPool],
    upstream: ScriptedServer,
) -> None:
    """An EventSource ends at a 204: https://html.spec.whatwg.org/multipage/server-sent-events.html."""
    settings.MIDDLEWARE = middleware
    configure(upstream)
    last = events_of(Client().get(path))[-1].id
    again = Client().get(path, headers={"Last-Event-ID": last})
    assert again.status_code == 204
    assert list(again) == []
    assert len(upstream.requests) == 1


@VIEWS
async def test_after_the_last_event_it_is_sent_away_under_asgi(
    path: str, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    configure(upstream)
    last = events_of([piece async for piece in await AsyncClient().get(path)])[-1].id
    again = await AsyncClient().get(path, headers={"Last-Event-ID": last})
    assert again.status_code == 204
    assert [piece async for piece in again] == []
    assert len(upstream.requests) == 1


@VIEWS
@pytest.mark.parametrize("middleware", [[], WRAPPING], ids=["plain", "wrapped"])
def test_in_the_middle_of_an_answer_it_gets_an_error_under_wsgi(
    path: str,
    middleware: list[str],
    settings: Any,
    configure: Callable[..., LLMPool],
    upstream: ScriptedServer,
) -> None:
    """A new call would be paid again, and its text would follow on that of the old one."""
    settings.MIDDLEWARE = middleware
    configure(upstream)
    (failed,) = events_of(Client().get(path, headers={"Last-Event-ID": "2"}))
    assert (failed.name, failed.id) == ("failed", "end")
    assert failed.data == {
        "error": "StreamInterrupted",
        "message": "The answer broke off. Please try again.",
    }
    assert not upstream.requests


@VIEWS
async def test_in_the_middle_of_an_answer_it_gets_an_error_under_asgi(
    path: str, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    configure(upstream)
    response = await AsyncClient().get(path, headers={"Last-Event-ID": "2"})
    (failed,) = events_of([piece async for piece in response])
    assert (failed.name, failed.data["error"]) == ("failed", "StreamInterrupted")
    assert not upstream.requests


@VIEWS
@pytest.mark.parametrize("last", ["", "2", "end"])
def test_a_head_request_makes_no_call(
    path: str, last: str, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    configure(upstream)
    headers = {"Last-Event-ID": last} if last else {}
    assert list(Client().head(path, headers=headers)) == []
    assert not upstream.requests


def test_a_view_can_choose_the_status(configure: Callable[..., LLMPool], upstream: ScriptedServer) -> None:
    response = event_stream(configure(upstream).stream("hello"))
    response.status_code = 201
    assert response.status_code == 201
