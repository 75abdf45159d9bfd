"""What Django hands out, as messages and parameters: lazy translations, safe strings, choices, decimals."""

from __future__ import annotations

import json
from decimal import Decimal
from enum import IntEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from django.db.models import TextChoices
from django.utils.functional import SimpleLazyObject, lazystr
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy, override

from llm_pool.exceptions import InvalidMessages, InvalidParameter
from llm_pool.providers import PROVIDERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_pool.calling.pool import LLMPool
    from testbed import ScriptedServer


class Role(TextChoices):
    USER = "user"


class Size(IntEnum):
    SMALL = 5


def sent(provider: str, messages: Any, **params: Any) -> Any:
    """The body of a call, as the provider receives it."""
    api = PROVIDERS[provider]()
    needed = {"max_tokens": 9} if provider == "anthropic" else {}
    request = api.completion_request(messages, "m", {**needed, **params}, stream=False)
    return json.loads(api.encode(request.body))


def sent_messages(provider: str, messages: Any) -> Any:
    return sent(provider, messages)["input" if provider == "openai-responses" else "messages"]


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    "text",
    [gettext_lazy("Yes"), lazystr("Yes"), gettext_lazy("%s") % "Yes", SimpleLazyObject(lambda: "Yes"),
     mark_safe("Yes")],
    ids=["gettext_lazy", "lazystr", "formatted", "SimpleLazyObject", "SafeString"],
)  # fmt: skip
def test_a_lazy_or_safe_string_is_sent_as_text(provider: str, text: Any) -> None:
    asked = {"role": "user", "content": "Yes"}
    assert sent_messages(provider, text) == [asked]
    assert sent_messages(provider, [{"role": "user", "content": text}]) == [asked]
    parts = [{"type": "text", "text": text}]
    assert sent_messages(provider, [{"role": "user", "content": parts}])[0]["content"][0]["text"] == "Yes"
    tools = [{"function": {"name": "f", "description": text}}]
    assert sent(provider, "Hi", tools=tools)["tools"][0]["function"]["description"] == "Yes"


def test_choices_and_enums_of_numbers_are_sent_as_their_values() -> None:
    body = sent("openai", [{"role": Role.USER, "content": "Hi"}], size=Size.SMALL)
    assert (body["messages"][0]["role"], body["size"]) == ("user", 5)


@pytest.mark.parametrize("value", [Decimal("0.5"), UUID(int=1), object()])
def test_other_values_are_refused_with_their_place(value: Any) -> None:
    """The provider decides between a number and a string, and so the caller has to."""
    with pytest.raises(
        InvalidParameter, match=r'^metadata\["x"\] is an? \w+, which JSON cannot carry; give a'
    ):
        sent("openai", gettext_lazy("Yes"), metadata={"x": value})


def test_a_lazy_string_that_utf_8_cannot_encode_is_refused_with_its_place() -> None:
    with pytest.raises(InvalidMessages, match=r'messages\[0\]\["content"\] holds a lone surrogate'):
        sent("openai", lazystr("a\ud800"))


@pytest.fixture
def question(settings: Any) -> Any:
    """A lazy translation that was made in English, as at the import of a module."""
    settings.USE_I18N = True
    with override("en"):
        return gettext_lazy("Yes")


def test_a_lazy_translation_is_in_the_language_of_the_call(
    question: Any, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    pool = configure(upstream)
    with override("de"):
        pool.complete(question)
        assert list(pool.stream(question))
    assert asked(upstream) == ["Ja", "Ja"]


async def test_a_lazy_translation_is_in_the_language_of_the_async_call(
    question: Any, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    pool = configure(upstream)
    with override("de"):
        await pool.acomplete(question)
        stream = pool.astream(question)
    assert [chunk async for chunk in stream]
    assert asked(upstream) == ["Ja", "Ja"]


def asked(upstream: ScriptedServer) -> list[str]:
    return [request.json()["messages"][0]["content"] for request in upstream.requests]
