"""The demo's chat: reasoning, what goes back to the provider, a silent model behind a proxy."""

from __future__ import annotations

import contextlib
import socket
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from tests.browser.pages import ask
from tests.demo.launcher import environment, started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Locator, Page

    from testbed.provider import ScriptedProvider

pytestmark = [pytest.mark.server, pytest.mark.slow]


@contextlib.contextmanager
def demo(page: Page, provider: ScriptedProvider, api: str, **more: str) -> Iterator[str]:
    """The URL of a demo of this provider, by its API."""
    settings = provider.settings(api)
    prefix = api.upper()
    variables = {f"{prefix}_API_KEY": settings["API_KEY"], f"{prefix}_BASE_URL": settings["BASE_URL"]}
    with started(environment(**variables, **{f"{prefix}_MODEL": settings["MODEL"]}, **more)) as running:
        yield running.read_url()
        page.goto("about:blank")  # before the demo ends: an open page would log errors


def turn(page: Page, number: int) -> Locator:
    answer = page.locator(".turn.answer").nth(number)
    answer.get_by_text("first token after").wait_for()
    return answer


def sent_by(provider: ScriptedProvider, number: int) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = provider.requests[number].json()["messages"]
    return messages


def test_reasoning_is_shown_and_goes_back_to_anthropic_with_its_signature(
    page: Page, llm_provider: ScriptedProvider
) -> None:
    """Without the signature Anthropic refuses the next call: see "Preserving thinking blocks" in its docs."""
    llm_provider.stream(["It is", " warm."], reasoning=["Let me ", "feel it."], signature="c2lnbmF0dXJl")
    llm_provider.stream(["No."])
    with demo(page, llm_provider, "anthropic") as url:
        page.goto(url)
        ask(page, "Is the water warm?")
        answer = turn(page, 0)
        assert answer.locator(".text").inner_text() == "It is warm."
        reasoning = answer.locator(".reasoning")
        assert reasoning.locator("p").is_hidden()
        reasoning.get_by_text("Reasoning").click()
        assert reasoning.locator("p").inner_text() == "Let me feel it."
        ask(page, "And deep?")
        assert turn(page, 1).locator(".reasoning").is_hidden()
    thinking = {"type": "thinking", "thinking": "Let me feel it.", "signature": "c2lnbmF0dXJl"}
    assert sent_by(llm_provider, 1) == [
        {"role": "user", "content": "Is the water warm?"},
        {"role": "assistant", "content": [thinking, {"type": "text", "text": "It is warm."}]},
        {"role": "user", "content": "And deep?"},
    ]


def test_a_conversation_goes_back_to_openai(page: Page, llm_provider: ScriptedProvider) -> None:
    llm_provider.stream(["It is", " warm."], reasoning=["Let me feel it."])
    llm_provider.stream(["No."])
    with demo(page, llm_provider, "openai") as url:
        page.goto(url)
        ask(page, "Is the water warm?")
        turn(page, 0).locator(".reasoning").get_by_text("Reasoning").click()
        assert page.locator(".reasoning p").first.inner_text() == "Let me feel it."
        ask(page, "And deep?")
        turn(page, 1)
    first, reply, second = sent_by(llm_provider, 1)
    assert (first["content"], second["content"]) == ("Is the water warm?", "And deep?")
    assert (reply["role"], reply["content"]) == ("assistant", "It is warm.")


def test_an_answer_that_was_stopped_goes_back_as_far_as_it_came(
    page: Page, llm_provider: ScriptedProvider
) -> None:
    llm_provider.stream(["It", " is", " warm."], gap="token")
    llm_provider.stream(["No."])
    token = llm_provider.gate("token")
    with demo(page, llm_provider, "anthropic") as url:
        page.goto(url)
        ask(page, "Is the water warm?")
        token.admit()
        page.locator(".turn.answer.streaming").wait_for()
        page.get_by_role("button", name="Stop").click()
        page.get_by_text("Stopped. The call to the model was cancelled.").wait_for()
        token.open()
        ask(page, "And deep?")
        turn(page, 1)
    assert sent_by(llm_provider, 1)[1] == {"role": "assistant", "content": "It"}


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that accepts connections, and sends nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_silent_model_does_not_lose_the_page_behind_nginx(
    page: Page,
    llm_provider: ScriptedProvider,
    silent_port: int,
    start_nginx_proxy: Callable[..., str],
) -> None:
    """nginx waits for a minute by default; here it waits for a second, and comments come more often."""
    llm_provider.stream(["It", " is."], gap="token")
    token = llm_provider.gate("token")
    settings = "tests.browser.impatient_settings"
    with demo(page, llm_provider, "openai", DJANGO_SETTINGS_MODULE=settings) as url:
        proxy = start_nginx_proxy(urlsplit(url).port, read_timeout=1, silent_port=silent_port)
        page.goto(proxy)
        ask(page, "Is the water warm?")
        token.wait_reached()
        # nginx has given up on a request that began later: so its time for the model is over as well.
        with pytest.raises(urllib.error.HTTPError, match="504") as caught:
            urllib.request.urlopen(f"{proxy}/silent")
        caught.value.close()
        token.open()
        assert turn(page, 0).locator(".text").inner_text() == "It is."
