"""What an answer of the scripted provider can hold besides its text, whole and as a stream, in each API."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from testbed.provider import Citation, ScriptedProvider, Tokens, ToolCall
from tests.testbed.provider_calls import CHAT, MESSAGES, call, events_in

if TYPE_CHECKING:
    from collections.abc import Iterator

AUDIO = {"id": "audio_7", "data": "QUJD", "transcript": "Hello", "expires_at": 9}


def whole(provider: ScriptedProvider, path: str = CHAT) -> dict[str, Any]:
    """The message of a chat completion, or the whole message of Anthropic's API."""
    value = call(provider, path).json()
    return value["choices"][0]["message"] if path == CHAT else value


def deltas(provider: ScriptedProvider, name: str, index: int = 0) -> list[Any]:
    """What the deltas of a choice of a chat stream have in this field."""
    chunks = events_in(call(provider, CHAT, stream=True))[:-1]
    choices: Iterator[Any] = (choice for chunk in chunks for choice in chunk["choices"])
    return [each["delta"][name] for each in choices if each["index"] == index and each["delta"].get(name)]


def blocks(provider: ScriptedProvider) -> list[dict[str, Any]]:
    """The starts and deltas of the blocks of Anthropic's stream, without their types."""
    events = events_in(call(provider, MESSAGES, stream=True))
    found = [event.get("content_block") or event.get("delta") for event in events if "index" in event]
    return [
        {name: value for name, value in each.items() if name != "type"} for each in found if each is not None
    ]


def test_reasoning_comes_before_the_text(llm_provider: ScriptedProvider) -> None:
    llm_provider.stream(["4"], reasoning=["2+", "2"], signature="c2ln", redacted_reasoning="eHl6")
    assert whole(llm_provider)["reasoning_content"] == "2+2"
    assert deltas(llm_provider, "reasoning_content") == ["2+", "2"]
    assert whole(llm_provider, MESSAGES)["content"] == [
        {"type": "thinking", "thinking": "2+2", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "eHl6"},
        {"type": "text", "text": "4"},
    ]
    assert blocks(llm_provider) == [
        {"thinking": "", "signature": ""},
        {"thinking": "2+"},
        {"thinking": "2"},
        {"signature": "c2ln"},
        {"data": "eHl6"},
        {"text": ""},
        {"text": "4"},
    ]


def test_a_refusal_has_its_words(llm_provider: ScriptedProvider) -> None:
    llm_provider.reply(refusal=["I can", "not."])
    message, anthropic = whole(llm_provider), whole(llm_provider, MESSAGES)
    assert (message["content"], message["refusal"]) == (None, "I cannot.")
    assert deltas(llm_provider, "refusal") == ["I can", "not."]
    assert (anthropic["stop_reason"], anthropic["content"]) == ("refusal", [])
    assert anthropic["stop_details"]["explanation"] == "I cannot."


def test_citations_are_annotations_or_parts_of_the_text(llm_provider: ScriptedProvider) -> None:
    llm_provider.reply("Found.", citations=["https://a.test", Citation("https://b.test", "B", "words")])
    annotations = whole(llm_provider)["annotations"]
    second = {"url": "https://b.test", "title": "B", "start_index": 0, "end_index": 6}
    assert annotations[1] == {"type": "url_citation", "url_citation": second}
    assert deltas(llm_provider, "annotations") == [annotations]
    (block,) = whole(llm_provider, MESSAGES)["content"]
    assert [each["url"] for each in block["citations"]] == ["https://a.test", "https://b.test"]
    assert blocks(llm_provider)[-1]["citation"] == block["citations"][1]
    assert blocks(llm_provider)[0] == {"text": "", "citations": []}


def test_several_texts_are_choices(llm_provider: ScriptedProvider) -> None:
    llm_provider.stream(["A", "a"], ["B"])
    choices = call(llm_provider, CHAT, n=2).json()["choices"]
    assert [(each["index"], each["message"]["content"]) for each in choices] == [(0, "Aa"), (1, "B")]
    assert (deltas(llm_provider, "content"), deltas(llm_provider, "content", 1)) == (["A", "a"], ["B"])


def test_each_piece_has_its_log_probability(llm_provider: ScriptedProvider) -> None:
    llm_provider.stream(["Hel", "lo"], logprobs=[-0.5, -math.inf])
    content = call(llm_provider, CHAT).json()["choices"][0]["logprobs"]["content"]
    assert [(each["token"], each["logprob"]) for each in content] == [("Hel", -0.5), ("lo", -math.inf)]
    chunks = events_in(call(llm_provider, CHAT, stream=True))
    assert [chunk["choices"][0]["logprobs"]["content"] for chunk in chunks[1:3]] == [content[:1], content[1:]]
    with pytest.raises(ValueError, match="1 logprobs for 2 pieces"):
        llm_provider.stream(["Hel", "lo"], logprobs=[-0.5])


def test_a_spoken_answer_comes_in_parts(llm_provider: ScriptedProvider) -> None:
    llm_provider.reply(audio=AUDIO)
    message = whole(llm_provider)
    assert (message["audio"], message["content"]) == (AUDIO, None)
    parts = deltas(llm_provider, "audio")
    assert "".join(each.get("transcript", "") for each in parts) == "Hello"
    assert "".join(each.get("data", "") for each in parts) == "QUJD"
    assert (parts[0], parts[-1]) == ({"id": "audio_7"}, {"expires_at": 9})


@pytest.mark.parametrize(
    ("given", "chat", "anthropic"),
    [
        (None, "tool_calls", "tool_use"),
        ("length", "length", "max_tokens"),
        ("content_filter", "content_filter", "refusal"),
        ("pause_turn", "pause_turn", "pause_turn"),
    ],
)
def test_a_finish_reason_is_in_the_words_of_the_api(
    llm_provider: ScriptedProvider, given: str | None, chat: str, anthropic: str
) -> None:
    llm_provider.reply(tool_calls=[ToolCall("now")], finish_reason=given)
    assert call(llm_provider, CHAT).json()["choices"][0]["finish_reason"] == chat
    assert call(llm_provider, MESSAGES).json()["stop_reason"] == anthropic


def test_usage_is_in_the_fields_of_the_api(llm_provider: ScriptedProvider) -> None:
    llm_provider.reply("Hello", usage=Tokens(9, 4, cached=6, reasoning=2), model="other")
    chat, anthropic = call(llm_provider, CHAT).json(), call(llm_provider, MESSAGES).json()
    assert chat["usage"]["prompt_tokens_details"] == {"cached_tokens": 6}
    assert chat["usage"]["completion_tokens_details"] == {"reasoning_tokens": 2}
    assert (anthropic["usage"]["cache_read_input_tokens"], anthropic["model"]) == (6, "other")
    llm_provider.reply("Hello", usage=None)
    assert "usage" not in call(llm_provider, CHAT).json()
    assert "usage" not in call(llm_provider, MESSAGES, stream=True).text


def test_what_anthropic_does_not_have_is_an_error() -> None:
    with ScriptedProvider() as provider:
        provider.reply("A", "B")
        assert "one choice" in call(provider, MESSAGES).json()["error"]["message"]
        provider.errors.clear()


def test_arguments_that_are_no_json_are_sent_as_text(llm_provider: ScriptedProvider) -> None:
    llm_provider.tool_call("f", '{"a": ', text="Let me look.")
    message = whole(llm_provider)
    assert message["content"] == "Let me look."
    assert message["tool_calls"][0]["function"]["arguments"] == '{"a": '
    assert blocks(llm_provider)[-1] == {"partial_json": '{"a": '}
