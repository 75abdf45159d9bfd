"""The status page when something is wrong: with its files, its server, or the provider."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Route

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.mark.parametrize("missing", ["status.*", "status.js"])
def test_a_page_whose_script_is_not_served_says_so(browser: Browser, demo_url: str, missing: str) -> None:
    with browser.new_page() as page:
        page.route(f"**/llm_pool/{missing}", lambda route: route.fulfill(status=404))
        page.goto(f"{demo_url}llm-pool/")
        page.get_by_text("The page's script did not load from /static/llm_pool/status.js").wait_for()


def test_a_page_whose_script_is_on_its_way_does_not_say_so_yet(browser: Browser, demo_url: str) -> None:
    with browser.new_page() as page:
        held: list[Route] = []
        page.route("**/status.js", lambda route: held.append(route))  # noqa: PLW0108 - it takes no builtin
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
