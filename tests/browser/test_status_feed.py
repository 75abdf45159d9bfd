"""The status page's feed: whether it is live when polls fail, streams end or a proxy answers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.browser.pages import event_stream

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Route


pytestmark = [pytest.mark.server, pytest.mark.slow]


AT_ONCE = re.compile("no news for [1-7] s")  # a page without updates for 8 s shows it anyway


def test_a_page_that_polls_is_not_live_from_the_first_poll_that_fails(
    browser: Browser, demo_url: str
) -> None:
    def as_under_wsgi(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, body=answer.text().replace('data-feed="events"', 'data-feed="data"'))

    with browser.new_page() as page:
        page.route("**/llm-pool/", as_under_wsgi)
        page.goto(f"{demo_url}llm-pool/")
        feed = page.locator("#feed.live")
        feed.wait_for()
        page.route("**/data/", lambda route: route.abort())
        page.locator("#feed").filter(has_text=AT_ONCE).wait_for()
        page.unroute("**/data/")
        feed.wait_for()


def test_a_page_is_not_live_when_its_stream_breaks_off(browser: Browser, demo_url: str) -> None:
    with browser.new_page() as page:
        page.route("**/events/", event_stream(""))
        page.goto(f"{demo_url}llm-pool/")
        page.locator("#feed").filter(has_text=AT_ONCE).wait_for()
        page.unroute("**/events/")
        page.locator("#feed.live").wait_for()


def test_a_page_stays_live_when_its_stream_ends_with_done(browser: Browser, demo_url: str) -> None:
    with browser.new_page() as page:
        page.route("**/events/", event_stream("event: done\ndata: {}\n\n"))
        page.goto(f"{demo_url}llm-pool/")
        for _ in range(2):
            page.wait_for_event("requestfinished", lambda request: request.url.endswith("/events/"))
        assert page.locator("#feed").inner_text() == "live"


def test_a_page_whose_stream_is_refused_polls_instead(browser: Browser, demo_url: str) -> None:
    """As by a proxy, or by a process that has too many streams open."""
    with browser.new_page() as page:
        page.route("**/events/", lambda route: route.fulfill(status=503))
        page.goto(f"{demo_url}llm-pool/")
        for _ in range(2):
            page.wait_for_event("requestfinished", lambda request: request.url.endswith("/data/"))
            page.locator("#feed.live").wait_for()


def test_a_page_reconnects_after_an_error_from_a_proxy(browser: Browser, demo_url: str) -> None:
    with browser.new_page() as page:
        for path in ("**/events/", "**/data/"):
            page.route(path, lambda route: route.fulfill(status=502))
        page.goto(f"{demo_url}llm-pool/")
        page.locator("#feed").filter(has_text=AT_ONCE).wait_for()
        page.unroute_all()
        page.locator("#feed.live").wait_for()
