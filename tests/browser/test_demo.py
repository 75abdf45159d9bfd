"""The demo's pages and the status page, in a real browser."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from testbed.behaviours import json_reply
from testbed.chat import chat_stream
from tests.demo.launcher import environment, started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Page

    from testbed import Gate, ScriptedServer

pytestmark = [pytest.mark.server, pytest.mark.slow]

SIMULATED = "come back one by one as they are sent."


def ask(page: Page, question: str) -> None:
    page.get_by_label("Your question").fill(question)
    page.get_by_role("button", name="Send").click()


@pytest.fixture
def gated(page: Page, serve: Callable[..., ScriptedServer]) -> Iterator[tuple[str, Gate]]:
    """The URL of a demo, and the gate that holds back each token of its model's answer "It is."."""
    provider = serve(chat_stream(["It", " is."], pace="token"))
    with started(environment(OPENAI_API_KEY="sk-test", OPENAI_BASE_URL=f"{provider.url}/v1")) as demo:
        yield demo.read_url(), provider.gate("token")
        page.goto("about:blank")  # before the demo ends: an open page would log errors


def test_an_answer_streams_into_the_chat(page: Page, gated: tuple[str, Gate]) -> None:
    demo_url, token = gated
    page.goto(demo_url)
    ask(page, "Is the water warm?")
    token.admit()
    page.locator(".turn.answer.streaming").get_by_text("It", exact=True).wait_for()
    token.open()
    answer = page.locator(".turn.answer")
    answer.get_by_text("first token after").wait_for()
    assert answer.locator(".text").inner_text() == "It is."
    assert answer.locator(".trouble").is_hidden()


def test_the_simulated_upstream_answers_in_the_chat(page: Page, demo_url: str) -> None:
    page.goto(demo_url)
    ask(page, "Is the water warm?")
    answer = page.locator(".turn.answer")
    answer.get_by_text("first token after").wait_for()
    whole = answer.locator(".text").inner_text()
    assert "Is the water warm?" in whole
    assert whole.endswith(SIMULATED)


def test_stop_ends_the_answer_and_the_call_to_the_model(page: Page, gated: tuple[str, Gate]) -> None:
    demo_url, token = gated
    page.goto(demo_url)
    ask(page, "Tell me everything.")
    token.admit()
    page.locator(".turn.answer.streaming").wait_for()
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Stopped. The call to the model was cancelled.").wait_for()
    assert page.locator(".turn.answer .text").inner_text() == "It"
    page.wait_for_function(
        "fetch('/stats/').then((r) => r.json()).then((s) => s.cancelled === 1 && s.in_use === 0)"
    )
    token.open()
    ask(page, "And now?")
    page.get_by_text("first token after").wait_for()


def test_the_agents_calls_are_drawn_as_bars(page: Page, demo_url: str) -> None:
    page.goto(f"{demo_url}agent/")
    chart = page.locator("#chart")
    assert chart.is_hidden()
    page.get_by_text("On this machine").first.click()
    page.get_by_role("button", name="Run").click()
    chart.locator("rect").first.wait_for()
    page.get_by_role("button", name="Run again").wait_for()
    assert chart.locator("rect").count() == 40


def test_an_agent_whose_first_call_fails_draws_nothing(
    page: Page, serve: Callable[..., ScriptedServer]
) -> None:
    provider = serve(json_reply(status=401))
    with started(environment(OPENAI_API_KEY="sk-test", OPENAI_BASE_URL=f"{provider.url}/v1")) as demo:
        page.goto(f"{demo.read_url()}agent/")
        page.get_by_role("button", name="Run").click()
        trouble = page.locator("#trouble")
        trouble.wait_for()
        assert "401" in trouble.inner_text()
        assert "For more information" not in trouble.inner_text()
        assert page.locator("#chart").is_hidden()


def test_the_status_page_leads_back_to_the_chat(page: Page, demo_url: str) -> None:
    page.goto(f"{demo_url}llm-pool/")
    page.get_by_role("link", name="Chat").click()
    page.get_by_label("Your question").wait_for()


def test_the_status_page_shows_new_calls_without_a_reload(
    browser: Browser, page: Page, serve: Callable[..., ScriptedServer]
) -> None:
    provider = serve(chat_stream(["It", " is."], pace="token"))
    with started(environment(OPENAI_API_KEY="sk-test", OPENAI_BASE_URL=f"{provider.url}/v1")) as demo:
        demo_url = demo.read_url()
        page.goto(f"{demo_url}llm-pool/")
        chat = browser.new_page()
        chat.goto(demo_url)
        ask(chat, "Is the water warm?")
        card = page.locator(".pool").filter(has=page.get_by_role("heading", name="default"))
        card.get_by_text("1 of 20 connections in use").wait_for()
        card.get_by_role("cell", name="in use").wait_for()
        card.get_by_role("cell", name="server loop").wait_for()
        provider.gate("token").open()
        chat.get_by_text("first token after").wait_for()
        card.get_by_text("0 of 20 connections in use").wait_for()
        card.get_by_role("cell", name="idle").wait_for()
        card.locator("svg[aria-label='Whole answer'] path").first.wait_for(state="attached")
        assert page.locator("#feed").inner_text() == "live"
        assert "not shared between processes" in page.locator("#scope").inner_text()
        chat.close()
        page.goto("about:blank")  # before the demo ends: an open page would log errors


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("path", ["", "llm-pool/"])
def test_a_page_fits_the_screen_and_has_enough_contrast(
    browser: Browser, demo_url: str, path: str, width: int, scheme: str
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.goto(demo_url + path)
    page.locator("h1").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ground = luminance(page.evaluate("getComputedStyle(document.documentElement).backgroundColor"))
    ink = luminance(page.evaluate("getComputedStyle(document.querySelector('h1')).color"))
    assert (ground > ink) == (scheme == "light")
    lighter, darker = max(ground, ink), min(ground, ink)
    assert (lighter + 0.05) / (darker + 0.05) > 7  # WCAG 2.2, 1.4.6
    page.close()


def luminance(color: str) -> float:
    """Return the relative luminance of a color like "rgb(1, 2, 3)" (WCAG 2.2)."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
