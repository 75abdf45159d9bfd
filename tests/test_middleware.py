"""The middleware: the calls of a request, and the response for an exhausted pool."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest
from django.http import HttpResponse
from django.test import AsyncClient, Client, RequestFactory, override_settings
from django.urls import path, re_path
from django.utils.functional import SimpleLazyObject

from llm_pool import pool
from llm_pool.calling.record import current_request
from llm_pool.exceptions import PoolFull, PoolTimeout, RateLimited
from llm_pool.http import event_stream
from llm_pool.middleware import PoolMiddleware
from testbed.behaviours import json_reply
from tests.fixtures.callers import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.http import HttpRequest

    from llm_pool.calling.pool import LLMPool
    from llm_pool.calling.record import RequestCalls
    from testbed import ScriptedServer

seen: list[RequestCalls] = []


class User:
    """A user with the one attribute that the middleware reads."""

    is_staff = True


def twice(request: HttpRequest, anything: str = "") -> HttpResponse:
    pool.complete("hello")
    pool.complete("hello")
    return _seen(request)


async def atwice(request: HttpRequest) -> HttpResponse:
    await asyncio.gather(pool.acomplete("hello"), pool.acomplete("hello"))
    return _seen(request)


def stream(request: HttpRequest) -> HttpResponse:
    _seen(request)
    return event_stream(pool.stream("hello"))


async def astream(request: HttpRequest) -> HttpResponse:
    _seen(request)
    return event_stream(pool.astream("hello"))


def full(request: HttpRequest, anything: str = "") -> HttpResponse:
    raise PoolFull("no room")


def timeout(request: HttpRequest) -> HttpResponse:
    raise PoolTimeout("no time")


async def afull(request: HttpRequest) -> HttpResponse:
    return full(request)


async def atimeout(request: HttpRequest) -> HttpResponse:
    return timeout(request)


def broken(request: HttpRequest) -> HttpResponse:
    raise KeyError("another's")


async def where(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(threading.get_ident()))


def staff(request: HttpRequest) -> HttpResponse:
    request.user = User()  # type: ignore[assignment]
    return twice(request)


def lazy(request: HttpRequest) -> HttpResponse:
    """Set a lazy user, as authentication packages do: reading it would query the database."""
    user = SimpleLazyObject(fetched)
    vars(request).update(_cached_user=user, user=user)
    return twice(request)


def fetched() -> User:
    raise AssertionError("the middleware has loaded the user")


def _seen(request: HttpRequest) -> HttpResponse:
    seen.append(request.llm_pool)  # type: ignore[attr-defined]
    return HttpResponse("done")


async def limited(request: HttpRequest) -> HttpResponse:
    raise RateLimited("wait", status_code=429, headers={}, retry_after=0.2)


VIEWS = (twice, atwice, stream, astream, full, afull, timeout, atimeout, limited, broken, where, staff, lazy)
urlpatterns = [path(view.__name__, view) for view in VIEWS]
urlpatterns += [re_path(r"(?s)^twice/(.*)$", twice), re_path(r"(?s)^full/(.*)$", full)]


@pytest.fixture(autouse=True)
def site() -> Iterator[None]:
    seen.clear()
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=["llm_pool.middleware.PoolMiddleware"]):
        yield
    assert current_request.get() is None


@pytest.mark.parametrize("view", ["twice", "atwice"])
@pytest.mark.parametrize("client", [Client, AsyncClient])
async def test_a_request_has_its_calls(
    view: str, client: type[Any], configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    configure(upstream)
    for _ in range(2):  # each request has its own calls
        await _get(client(), f"/{view}")
    for calls in seen:
        assert (calls.calls, calls.errors) == (2, 0)
        assert (calls.input_tokens, calls.output_tokens) == (6, 2)
        assert calls.provider_seconds > 0
        timings = [record.timing for record in calls.records]
        assert calls.waited == sum(timing.queued + timing.dialing for timing in timings) > 0
    assert len(seen) == 2


@pytest.mark.parametrize("view", ["stream", "astream"])
async def test_a_stream_read_after_the_middleware_counts_for_its_request(
    view: str,
    configure: Callable[..., LLMPool],
    upstream: ScriptedServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    configure(upstream)
    with caplog.at_level(logging.INFO, "llm_pool.requests"):
        response = await AsyncClient().get(f"/{view}")
        (calls,) = seen
        assert (calls.calls, caplog.messages) == (0, [])
        assert [piece async for piece in response]
        assert calls.calls == 1
        await asyncio.to_thread(response.close)
    (line,) = [record for record in caplog.records if record.name == "llm_pool.requests"]
    assert (vars(line)["llm_calls"], vars(line)["llm_errors"]) == (1, 0)


def test_a_stream_whose_client_disconnects_is_an_error_of_its_request(
    configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    configure(upstream)
    upstream.gate("token").shut()
    upstream.gate("token").admit()
    response = Client().get("/stream")
    assert b"one" in next(iter(response))
    response.close()
    (calls,) = seen
    assert (calls.calls, calls.errors) == (1, 1)


async def test_an_async_request_stays_on_its_thread() -> None:
    response = await AsyncClient().get("/where")
    assert response.content.decode() == str(threading.get_ident())


@pytest.mark.parametrize(
    ("view", "options", "shown"),
    [
        ("twice", {}, False),
        ("twice", {"DEBUG": True}, True),
        ("twice", {"LLM_POOL_SERVER_TIMING": True}, True),
        ("staff", {}, True),
        ("lazy", {}, False),
    ],
)
def test_server_timing_is_shown_to_staff_and_in_debug(
    view: str,
    options: dict[str, bool],
    shown: bool,
    configure: Callable[..., LLMPool],
    upstream: ScriptedServer,
) -> None:
    configure(upstream)
    with override_settings(**options):
        response = Client().get(f"/{view}")
    assert ("Server-Timing" in response) == shown
    if shown:
        assert "llm;dur=" in response["Server-Timing"]
        assert '"LLM calls: 2"' in response["Server-Timing"]


def test_server_timing_of_the_view_is_kept(
    configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    configure(upstream)

    def view(request: HttpRequest) -> HttpResponse:
        pool.complete("hello")
        return HttpResponse(headers={"Server-Timing": "db;dur=1"})

    with override_settings(DEBUG=True):
        response: Any = PoolMiddleware(view)(RequestFactory().get("/"))
    assert response["Server-Timing"].startswith("db;dur=1, llm_wait;dur=")


def test_each_request_with_calls_has_one_line_in_the_log(
    configure: Callable[..., LLMPool], upstream: ScriptedServer, caplog: pytest.LogCaptureFixture, secret: str
) -> None:
    configure(upstream)
    with caplog.at_level(logging.INFO, "llm_pool"):
        Client().get("/twice?prompt=private")
        Client().get("/where")
    (line,) = [record for record in caplog.records if record.name == "llm_pool.requests"]
    facts = vars(line)
    assert (facts["path"], facts["status_code"], facts["llm_calls"]) == ("/twice", 200, 2)
    assert (facts["llm_input_tokens"], facts["llm_output_tokens"]) == (6, 2)
    assert facts["llm_waited"] > 0
    assert "GET /twice 200: LLM calls 2, failed 0, waited 0." in line.getMessage()
    for private in ("private", "hello", secret):
        assert private not in caplog.text


BUSY_WORDS = "Too many requests are waiting for the model."
BUSY = pytest.mark.parametrize(
    ("view", "error", "accept", "kind"),
    [
        ("full", "pool_full", "*/*", "application/json"),
        ("timeout", "pool_timeout", "application/json", "application/json"),
        ("full", "pool_full", "image/png", "application/json"),
        ("timeout", "", "text/html,application/xhtml+xml,*/*;q=0.8", "text/html; charset=utf-8"),
    ],
)


@BUSY
def test_an_exhausted_pool_is_a_503(view: str, error: str, accept: str, kind: str) -> None:
    _assert_busy(Client().get(f"/{view}", headers={"Accept": accept}), error, kind)


@BUSY
async def test_an_exhausted_pool_is_a_503_under_asgi(view: str, error: str, accept: str, kind: str) -> None:
    _assert_busy(await AsyncClient().get(f"/a{view}", headers={"Accept": accept}), error, kind)


@pytest.mark.parametrize(
    ("view", "client"), [("twice", Client), ("twice", AsyncClient), ("atwice", AsyncClient)]
)
@pytest.mark.parametrize(
    ("status", "wait", "error", "retry_after"),
    [
        (429, "7", "rate_limited", "7"),
        (429, "7.2", "rate_limited", "8"),
        (429, "0", "rate_limited", "1"),
        (429, "soon", "rate_limited", "5"),
        (503, "30", "overloaded", "30"),
        (529, "", "overloaded", "5"),
    ],
)
async def test_a_busy_provider_is_a_503_with_its_retry_after(
    status: int,
    wait: str,
    error: str,
    retry_after: str,
    client: type[Any],
    view: str,
    configure: Callable[..., LLMPool],
    serve: Callable[..., ScriptedServer],
) -> None:
    says = {"error": {"message": "The organization org-1 is over its limit."}}
    configure(serve(json_reply(says, status=status, headers={"Retry-After": wait})))
    response = await _get(client(), f"/{view}")
    assert (response.status_code, response["Retry-After"]) == (503, retry_after)
    assert response["Cache-Control"] == "no-store"
    assert response.json() == {
        "error": error,
        "message": "The model has too many requests. Please try again later.",
    }
    assert "org-1" not in response.text  # the provider's words are for operators only


@pytest.mark.parametrize("view", ["full", "afull", "timeout", "limited"])
async def test_a_setting_turns_these_responses_off(view: str) -> None:
    with override_settings(LLM_POOL_BUSY_RESPONSES=False):
        response = await AsyncClient(raise_request_exception=False).get(f"/{view}")
    assert response.status_code == 500


def test_a_path_cannot_forge_a_line_of_the_log(
    configure: Callable[..., LLMPool], upstream: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    configure(upstream)
    with caplog.at_level(logging.INFO, "llm_pool.requests"):
        Client().get("/twice/%0aERROR%20root:%1b[2Jgone")
        Client().get("/full/%0d%0aERROR%E2%80%A8root")
    first, second = [record for record in caplog.records if record.name == "llm_pool.requests"]
    assert vars(first)["path"] == r"/twice/\u000aERROR root:\u001b[2Jgone"
    assert vars(first)["path"] in first.getMessage()
    assert second.getMessage() == r"GET /full/\u000d\u000aERROR\u2028root is answered with 503: no room"


def _assert_busy(response: Any, error: str, kind: str) -> None:
    assert response.status_code == 503
    assert int(response["Retry-After"]) > 0
    assert response["Content-Type"] == kind
    if error:
        assert response.json()["error"] == error
    assert b"no room" not in response.content  # the pool's state is for operators only


def busy_page(templates: dict[str, str] | None = None) -> str:
    """The HTML of the 503 in a project with these templates."""
    loaders = [
        ("django.template.loaders.locmem.Loader", templates or {}),
        "django.template.loaders.app_directories.Loader",
    ]
    options = {"loaders": loaders, "context_processors": ["django.template.context_processors.request"]}
    engine = {"BACKEND": "django.template.backends.django.DjangoTemplates", "OPTIONS": options}
    with override_settings(TEMPLATES=[engine]):
        response = Client().get("/full", headers={"Accept": "text/html"})
    assert (response.status_code, response["Retry-After"]) == (503, "5")
    return response.text


def test_an_exhausted_pool_has_an_html_page() -> None:
    assert "<style>" in busy_page()
    assert BUSY_WORDS in busy_page()


def test_a_project_can_override_the_page() -> None:
    own = {"llm_pool/busy.html": "{{ request.path }}: {{ message }} Retry in {{ retry_after }} s."}
    assert busy_page(own) == f"/full: {BUSY_WORDS} Please try again in a few seconds. Retry in 5 s."


@pytest.mark.parametrize(
    "own", ["{% no such tag %}", "{% extends 'none.html' %}", "{% include 'none.html' %}"]
)
def test_a_page_that_cannot_be_rendered_is_logged_and_replaced_by_a_plain_one(
    own: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert BUSY_WORDS in busy_page({"llm_pool/busy.html": own})
    assert "llm_pool/busy.html cannot be rendered" in caplog.text


def test_a_project_without_templates_has_a_plain_page(caplog: pytest.LogCaptureFixture) -> None:
    response = Client().get("/full", headers={"Accept": "text/html"})
    assert BUSY_WORDS in response.text
    assert "cannot be rendered" not in caplog.text


def test_other_errors_are_not_touched() -> None:
    with pytest.raises(KeyError):
        Client().get("/broken")


async def test_calls_outside_of_a_request_count_for_none(
    configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    configured = configure(upstream)
    await AsyncClient().get("/atwice")
    await configured.acomplete("hello")
    await until(lambda: configured.stats().requests == 3)
    assert seen[0].calls == 2


async def _get(client: Client | AsyncClient, url: str, **options: Any) -> Any:
    if isinstance(client, AsyncClient):
        return await client.get(url, **options)
    return await asyncio.to_thread(client.get, url, **options)
