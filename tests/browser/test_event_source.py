"""``event_stream`` read by EventSource, and by HTMX's extension for it: one call, and then the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.deployments.launcher import SERVERS, deployed
from tests.node import install

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page, Route

    from testbed.provider import ScriptedProvider
    from tests.deployments.launcher import Deployment

pytestmark = [pytest.mark.server, pytest.mark.slow]

BODY = "<!doctype html><title>t</title><link rel=icon href=data:,>"
SCRIPTS = ["node_modules/htmx.org/dist/htmx.min.js", "node_modules/htmx-ext-sse/sse.js"]
HTMX = f"""{BODY}<script src=/{SCRIPTS[0]}></script><script src=/{SCRIPTS[1]}></script>
<div hx-ext=sse sse-connect=/html-stream sse-close=done>
<p id=answer sse-swap=message hx-swap=beforeend></p><p id=failed sse-swap=failed></p></div>"""
FOLLOW = """async () => {
    const source = window.source = new EventSource("/stream");
    const seen = window.seen = [];
    for (const name of ["message", "done", "failed"])
        source.addEventListener(name, ({ data }) => seen.push([name, JSON.parse(data).text]));
}"""


def serving(content_type: str, body: str) -> Callable[[Route], None]:
    return lambda route: route.fulfill(content_type=content_type, body=body)


@pytest.fixture
def site(tmp_path: Path, llm_provider: ScriptedProvider) -> Iterator[Deployment]:
    """A site with the views of ``tests/views.py``."""
    with deployed(SERVERS["uvicorn"], tmp_path, {"BASE_URL": llm_provider.openai_url}) as running:
        yield running


@pytest.fixture
def page(browser: Browser, site: Deployment, pytestconfig: pytest.Config) -> Iterator[Page]:
    """The page that uses HTMX at ``/htmx``, an empty one at ``/``. The browser logs each 204."""
    packages = install(pytestconfig)
    with browser.new_page(base_url=f"http://127.0.0.1:{site.port}") as page:
        page.add_init_script("document.addEventListener('htmx:sseClose', () => (window.ended = true))")
        page.route("**/", serving("text/html", BODY))
        page.route("**/htmx", serving("text/html", HTMX))
        for name in SCRIPTS:
            script = (packages / name).read_text()
            page.route(f"**/{name}", serving("text/javascript", script))
        yield page
        page.goto("about:blank")


def test_an_event_source_asks_the_model_once(page: Page, llm_provider: ScriptedProvider) -> None:
    llm_provider.stream(["one", "two", "three"])
    page.goto("/")
    page.evaluate(FOLLOW)
    page.wait_for_function("source.readyState === EventSource.CLOSED")
    assert page.evaluate("seen") == [
        ["message", "one"],
        ["message", "two"],
        ["message", "three"],
        ["done", "onetwothree"],
    ]
    assert len(llm_provider.requests) == 1


def test_an_event_source_whose_answer_broke_off_is_told(page: Page, llm_provider: ScriptedProvider) -> None:
    """The network fails after the first word."""
    page.goto("/")
    cut = 'id: 1\ndata: {"text": "one"}\n\nretry: 10\n\n'
    page.route("**/stream", serving("text/event-stream", cut), times=1)
    page.evaluate(FOLLOW)
    page.wait_for_function("source.readyState === EventSource.CLOSED")
    assert page.evaluate("seen.map(([name]) => name)") == ["message", "failed"]
    assert not llm_provider.requests


def test_htmx_swaps_each_piece_in_and_asks_once(page: Page, llm_provider: ScriptedProvider) -> None:
    llm_provider.stream(["one", "two", "<i>"])
    page.goto("/htmx")
    page.wait_for_function("window.ended")
    assert page.locator("#answer").inner_html() == "<b>one</b>\n<b>two</b>\n<b>&lt;i&gt;</b>\n"
    assert len(llm_provider.requests) == 1


def test_htmx_shows_an_error_and_asks_once(page: Page, llm_provider: ScriptedProvider) -> None:
    llm_provider.fail("overloaded")
    page.goto("/htmx")
    page.wait_for_function("window.ended")
    assert page.locator("#failed").inner_text() == "The model has too many requests. Please try again later."
    assert len(llm_provider.requests) == 1
