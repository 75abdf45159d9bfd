"""Access to the status page, and its views."""

from __future__ import annotations

import gc
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from llm_pool.status import views
from llm_pool.status.access import FORWARDED
from tests.fixtures.callers import until
from tests.fixtures.internals import open_status_streams

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


@pytest.mark.parametrize("name", FORWARDED)
def test_a_request_that_a_proxy_forwards_does_not_come_from_this_machine(
    client: Client, project: type[LogIn], settings: SettingsWrapper, name: str
) -> None:
    """The proxy of a staging site connects from a loopback address."""
    settings.DEBUG = True
    assert client.get("/llm-pool/", **{name: "127.0.0.1"}).status_code == 403


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


async def test_the_streams_of_a_process_are_limited(
    async_client: AsyncClient, project: type[LogIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream counts until its response is dropped, even if the server has neither read nor closed it."""
    monkeypatch.setattr(views, "MAX_STREAMS", 2)
    project.user = STAFF

    async def connect() -> Any:
        return await async_client.get("/llm-pool/events/")

    read, unread = await connect(), await connect()
    pieces = aiter(read.streaming_content)
    await anext(pieces)
    refused = await connect()
    assert (refused.status_code, refused["Retry-After"]) == (503, "30")
    assert b"2 status pages already" in refused.content
    await pieces.aclose()
    del pieces, read
    gc.collect()
    await until(lambda: open_status_streams() == 1)
    again = await connect()
    assert (again.status_code, (await connect()).status_code) == (200, 503)
    del unread, again
    gc.collect()
    assert open_status_streams() == 0
