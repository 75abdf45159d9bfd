"""The demo's views."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.test import AsyncClient

from demo_project import agent
from demo_project import settings as demo_settings
from demo_project.upstream import simulated
from testbed.behaviours import json_reply
from testbed.ports import refused_port
from tests.fixtures.events import events_of

ROOT = Path(__file__).parents[2]


QUESTION = {"role": "user", "content": "Why is the sky blue?"}


@pytest.fixture
def demo(settings: Any, upstream: str) -> None:
    """The demo's settings, with the simulated model server as upstream."""
    for name in ("MIDDLEWARE", "ROOT_URLCONF", "STATIC_URL", "DEMO_UPSTREAM", "DEMO_ROUND_TRIP"):
        setattr(settings, name, getattr(demo_settings, name))
    # DIRS finds the templates, because demo_project is not in the tests' INSTALLED_APPS.
    [engine] = demo_settings.TEMPLATES
    settings.TEMPLATES = [{**engine, "APP_DIRS": False, "DIRS": [ROOT / "demo_project" / "templates"]}]
    pool = {"PROVIDER": "openai", "BASE_URL": upstream, "API_KEY": "key", "MODEL": simulated.MODEL}
    settings.LLM_POOL = {"default": pool, "far": pool}


def parse(content: bytes) -> list[tuple[str, Any]]:
    """Return the server-sent events in ``content`` as pairs of name and data."""
    return [(event.name, event.data) for event in events_of([content])]


async def read(response: Any) -> bytes:
    return b"".join([piece async for piece in response.streaming_content])


@pytest.mark.usefixtures("demo")
@pytest.mark.parametrize("path", ["/", "/agent/"])
async def test_a_page_shows_its_upstream_and_contains_a_csrf_token(async_client: Any, path: str) -> None:
    response = await async_client.get(path)
    assert response.status_code == 200
    assert b"simulated at 127.0.0.1" in response.content
    assert b"csrfmiddlewaretoken" in response.content


@pytest.mark.usefixtures("demo")
async def test_an_answer_streams_and_ends_with_its_timing(async_client: Any) -> None:
    response = await async_client.post(
        "/answer/", json.dumps({"messages": [QUESTION]}), content_type="application/json"
    )
    assert response["Content-Type"].startswith("text/event-stream")
    *chunks, (name, done) = parse(await read(response))
    assert name == "done"
    assert "".join(chunk["text"] for _, chunk in chunks) == done["text"]
    assert done["text"].startswith("This answer is simulated")
    assert done["usage"]["output_tokens"] == len(chunks)
    timing = done["timing"]
    assert 0 < timing["first_token"] <= timing["total"]
    assert timing["reused"] is False


@pytest.mark.usefixtures("demo")
@pytest.mark.parametrize("path", ["/answer/", "/agent/run/"])
async def test_a_body_that_is_not_json_is_a_400(async_client: Any, path: str) -> None:
    response = await async_client.post(path, "x", content_type="application/json")
    assert response.status_code == 400
    assert response.json() == {"error": "bad_request", "message": "The body is not JSON."}


@pytest.mark.usefixtures("demo")
@pytest.mark.parametrize("path", ["/answer/", "/agent/run/"])
async def test_a_post_without_the_token_is_rejected(path: str) -> None:
    response = await AsyncClient(enforce_csrf_checks=True).post(path, "{}", content_type="application/json")
    assert response.status_code == 403


@pytest.mark.usefixtures("demo")
async def test_the_agent_reports_every_call_and_both_totals(
    async_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "CALLS", 3)
    response = await async_client.post("/agent/run/", "{}", content_type="application/json")
    *calls, (name, totals) = parse(await read(response))
    assert name == "done"
    assert [(call["way"], call["number"]) for _, call in calls] == [
        (way, number) for number in (1, 2, 3) for way in ("client", "pool")
    ]
    assert [call["dialed"] for _, call in calls] == [True, True, True, False, True, False]
    for way, total in totals.items():
        assert total == pytest.approx(sum(call["seconds"] for _, call in calls if call["way"] == way))


@pytest.mark.usefixtures("demo")
async def test_an_agent_reports_a_refused_connection(async_client: Any, settings: Any) -> None:
    with refused_port() as port:
        pool = {**settings.LLM_POOL["default"], "BASE_URL": f"http://127.0.0.1:{port}/v1"}
        settings.LLM_POOL = {"default": pool, "far": pool}
        response = await async_client.post("/agent/run/", "{}", content_type="application/json")
        [(name, error)] = parse(await read(response))
    assert name == "failed"
    assert error["error"] == "ConnectError"


@pytest.mark.usefixtures("demo")
async def test_an_agent_reports_an_error_status_without_httpx_s_manual_link(
    async_client: Any, settings: Any, serve: Any
) -> None:
    provider = {**settings.LLM_POOL["default"], "BASE_URL": f"{serve(json_reply(status=401)).url}/v1"}
    settings.LLM_POOL = {"default": provider, "far": provider}
    response = await async_client.post("/agent/run/", "{}", content_type="application/json")
    [(name, error)] = parse(await read(response))
    assert (name, error["error"]) == ("failed", "HTTPStatusError")
    assert error["message"].endswith(f"for url '{provider['BASE_URL']}/chat/completions'")


@pytest.mark.usefixtures("demo")
async def test_stats_returns_the_pool_s_statistics(async_client: Any) -> None:
    stats = (await async_client.get("/stats/")).json()
    assert stats["in_use"] == 0
    assert {"requests", "opened", "reused", "idle"} <= stats.keys()


@pytest.mark.usefixtures("demo")
async def test_metrics_are_served_for_prometheus(async_client: Any) -> None:
    response = await async_client.get("/metrics")
    assert b"llm_pool_requests_total" in response.content


@pytest.mark.usefixtures("demo")
async def test_counts_redirects_to_the_upstream_and_is_a_404_without_one(
    async_client: Any, settings: Any
) -> None:
    settings.DEMO_COUNTS_URL = "http://127.0.0.1:9/"
    assert (await async_client.get("/counts/")).headers["Location"] == "http://127.0.0.1:9/"
    settings.DEMO_COUNTS_URL = ""
    assert (await async_client.get("/counts/")).status_code == 404
