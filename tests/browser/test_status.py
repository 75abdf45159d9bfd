"""The status page: without its script, with an unreachable provider, on narrow screens."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from testbed.ports import refused_port
from tests.browser.pages import ask, event_stream
from tests.demo.launcher import environment, started

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route


pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.mark.parametrize("missing", ["status.*", "status.js"])
def test_a_page_without_its_script_says_so(browser: Browser, demo_url: str, missing: str) -> None:
    with browser.new_page() as page:
        page.route(f"**/llm_pool/{missing}", lambda route: route.fulfill(status=404))
        page.goto(f"{demo_url}llm-pool/")
        page.get_by_text("The page's script did not load from /static/llm_pool/status.js").wait_for()


def test_a_script_that_is_loading_is_not_reported_as_missing(browser: Browser, demo_url: str) -> None:
    with browser.new_page() as page:
        held: list[Route] = []
        page.route("**/status.js", lambda route: held.append(route))  # noqa: PLW0108 - it takes no builtin
        with page.expect_request("**/status.js"):
            page.goto(f"{demo_url}llm-pool/", wait_until="commit")
        page.wait_for_function("document.getElementById('scriptless')?.getAnimations().length")
        look = """(note) => {
            const [late] = note.getAnimations();
            late.pause();
            late.currentTime = 1000;
            return getComputedStyle(note).visibility;
        }"""
        assert page.locator("#scriptless").evaluate(look) == "hidden"
        held.pop().continue_()
        page.locator("#scriptless").wait_for(state="detached")


def test_a_strict_content_security_policy_allows_the_page(page: Page, demo_url: str) -> None:
    """The fixture ``page`` asserts that nothing was refused, which the console would show."""
    policy = "default-src 'none'; " + "; ".join(
        f"{each}-src 'self'" for each in ("script", "style", "img", "connect")
    )

    def under_policy(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, headers={**answer.headers, "Content-Security-Policy": policy})

    page.route("**/llm-pool/", under_policy)
    page.goto(f"{demo_url}llm-pool/")
    page.locator("#feed.live").wait_for()
    # Without a window, Chromium does not load the icon of a page.
    shown = """async () => {
        const image = new Image();
        image.src = document.querySelector("link[rel=icon]").href;
        await image.decode();
        return image.width;
    }"""
    assert page.evaluate(shown) > 0


def test_an_unreachable_provider_is_shown(browser: Browser) -> None:
    with refused_port() as port:
        unreachable = environment(OPENAI_API_KEY="sk-test", OPENAI_BASE_URL=f"http://127.0.0.1:{port}/v1")
        with started(unreachable) as demo, browser.new_page() as page:
            demo_url = demo.read_url()
            page.goto(demo_url)
            ask(page, "Does this arrive?")
            page.locator(".trouble").wait_for()
            page.goto(f"{demo_url}llm-pool/")
            card = page.locator(".pool").filter(has=page.get_by_role("heading", name="default"))
            card.locator(".verdict.bad").get_by_text("cannot connect").wait_for()
            assert "Last failed dial" in card.locator(".failure").inner_text()


@pytest.mark.parametrize("width", [360, 760, 1280])
def test_tables_fit_the_width(page: Page, demo_url: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(demo_url)
    ask(page, "Is the water warm?")
    page.get_by_text("first token after").wait_for()
    shown = page.request.get(f"{demo_url}llm-pool/data/").json()
    origin = "https://a-resource-with-a-rather-long-name.openai.azure.com:8443"
    connection = {"origin": origin, "state": "in use", "age": 432, "streams": 3, "loop": "server loop"}
    shown["pools"][0]["connections"] = [{**connection, "worker": 4194304}]
    shown["workers"][0]["up"] = 432
    shown["scope"] = "machine"
    page.route("**/events/", event_stream(f"data: {json.dumps(shown)}\n\n"))
    page.goto(f"{demo_url}llm-pool/")
    page.get_by_role("cell", name=origin).wait_for()
    for table in page.locator(".scroll:visible").all():
        assert table.evaluate("(box) => box.scrollWidth <= box.clientWidth")
    for name in ("Age", "Streams", "Loop", "Process"):
        assert page.locator(f"[data-name={name}]").first.is_visible()
