"""Access to the status page, and its views."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from llm_pool.status import views

if TYPE_CHECKING:
    from django.test import AsyncClient, Client
    from pytest_django.fixtures import SettingsWrapper

    from tests.status.conftest import LogIn

STAFF = SimpleNamespace(is_active=True, is_staff=True)
PAGES = ["/llm-pool/", "/llm-pool/data/"]


@pytest.mark.parametrize("path", PAGES)
def test_staff_see_the_page(client: Client, project: type[LogIn], path: str) -> None:
    project.user = STAFF
    response = client.get(path)
    assert response.status_code == 200
    assert response["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", [*PAGES, "/llm-pool/events/"])
@pytest.mark.parametrize(("active", "staff"), [(True, False), (False, True), (False, False)])
def test_users_without_staff_status_are_refused_even_in_debug(
    client: Client, project: type[LogIn], settings: SettingsWrapper, path: str, active: bool, staff: bool
) -> None:
    settings.DEBUG = True
    project.user = SimpleNamespace(is_active=active, is_staff=staff)
    response = client.get(path)
    assert response.status_code == 403
    assert b"staff" in response.content


@pytest.mark.parametrize(
    ("debug", "address", "status"),
    [
        (True, "127.0.0.1", 200),
        (True, "::1", 200),
        (True, "192.0.2.7", 403),
        (True, "", 403),
        (False, "127.0.0.1", 403),
    ],
)
def test_without_users_only_debug_from_loopback_sees_the_page(
    client: Client, project: type[LogIn], settings: SettingsWrapper, debug: bool, address: str, status: int
) -> None:
    settings.DEBUG = debug
    assert client.get("/llm-pool/", REMOTE_ADDR=address).status_code == status


def test_under_wsgi_the_page_polls_instead_of_streaming(client: Client, project: type[LogIn]) -> None:
    project.user = STAFF
    assert b'data-feed="data"' in client.get("/llm-pool/").content
    assert client.get("/llm-pool/events/").status_code == 501


async def test_under_asgi_the_page_streams(async_client: AsyncClient, project: type[LogIn]) -> None:
    project.user = STAFF
    assert b'data-feed="events"' in (await async_client.get("/llm-pool/")).content
    response = await async_client.get("/llm-pool/events/")
    assert response["Content-Type"] == "text/event-stream"
    pieces = aiter(response.streaming_content)
    assert await anext(pieces) == b"retry: 1000\n\n"
    assert (await anext(pieces)).startswith(b'data: {"scope": "process"')
    await pieces.aclose()


async def test_a_stream_ends_with_a_done_event(
    async_client: AsyncClient, project: type[LogIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "STREAM_SECONDS", 0.0)
    project.user = STAFF
    response = await async_client.get("/llm-pool/events/")
    *_, last = [piece async for piece in response.streaming_content]
    assert last.startswith(b"event: done\n")
