"""Actions on the pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page, Route

__all__ = ["ask", "event_stream"]


def ask(page: Page, question: str) -> None:
    """Send a question on the demo's chat page."""
    page.get_by_label("Your question").fill(question)
    page.get_by_role("button", name="Send").click()


def event_stream(body: str) -> Callable[[Route], None]:
    """A handler that answers a request with these server-sent events, and ends the response."""
    return lambda route: route.fulfill(content_type="text/event-stream", body=f"retry: 100\n\n{body}")
