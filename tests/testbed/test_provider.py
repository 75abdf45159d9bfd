"""The scripted provider answers in the words of each API, as it was told."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

import testbed.provider
from testbed.provider import ScriptedProvider, ToolCall
from tests.testbed.provider_calls import CHAT, MESSAGES, RESPONSES, call, events_in

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def mistaken() -> Iterator[ScriptedProvider]:
    """A provider for scripts with mistakes, which ``stop`` would raise."""
    with ScriptedProvider() as provider:
        yield provider
        provider.errors.clear()


def test_a_reply_is_a_chat_completion_and_a_message(llm_provider: ScriptedProvider) -> None:
    llm_provider.reply("Hello", usage=(3, 2))
    chat, message = call(llm_provider, CHAT).json(), call(llm_provider, MESSAGES).json()
    assert chat["choices"][0]["message"] == {"role": "assistant", "content": "Hello", "refusal": None}
    assert (chat["choices"][0]["finish_reason"], chat["model"]) == ("stop", "m")
    assert (chat["usage"]["prompt_tokens"], chat["usage"]["completion_tokens"]) == (3, 2)
    assert message["content"] == [{"type": "text", "text": "Hello"}]
    assert (message["stop_reason"], message["role"]) == ("end_turn", "assistant")
    assert (message["usage"]["input_tokens"], message["usage"]["output_tokens"]) == (3, 2)


def test_a_stream_has_the_pieces_and_the_end_of_its_api(llm_provider: ScriptedProvider) -> None:
    llm_provider.stream(["Hel", "lo"])
    *chunks, done = events_in(call(llm_provider, CHAT, stream=True))
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks] == ["", "Hel", "lo", None]
    assert (chunks[-1]["choices"][0]["finish_reason"], done) == ("stop", "[DONE]")
    events = events_in(call(llm_provider, MESSAGES, stream=True))
    texts = [event["delta"]["text"] for event in events if event["type"] == "content_block_delta"]
    assert (texts, events[0]["type"], events[-1]["type"]) == (["Hel", "lo"], "message_start", "message_stop")
    assert events[0]["message"]["usage"]["output_tokens"] == 1
    assert events[-2]["usage"]["output_tokens"] == 5


def test_a_response_is_whole_and_in_a_stream_with_the_response_at_its_end(
    llm_provider: ScriptedProvider,
) -> None:
    llm_provider.stream(
        ["Hel", "lo"],
        reasoning="Hm",
        tool_calls=[ToolCall("weather", {"city": "Rome"})],
        finish_reason="length",
    )
    whole = call(llm_provider, RESPONSES, instructions="Be short.").json()
    assert [item["type"] for item in whole["output"]] == ["reasoning", "message", "function_call"]
    assert (whole["output"][1]["content"][0]["text"], whole["usage"]["total_tokens"]) == ("Hello", 15)
    assert (whole["status"], whole["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert whole["instructions"] == "Be short."
    events = events_in(call(llm_provider, RESPONSES, stream=True, instructions="Be short."))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    deltas = [event["delta"] for event in events if event["type"].endswith(".delta")]
    assert deltas == ["Hm", "Hel", "lo", '{"city":', ' "Rome"}']
    assert [event["item"] for event in events if event["type"].endswith("item.done")] == whole["output"]
    assert events[-1]["type"] == "response.incomplete"
    assert events[-1]["response"] == {**whole, "id": "resp_2"}


def test_a_response_has_one_choice(mistaken: ScriptedProvider) -> None:
    mistaken.reply("one", "two")
    assert "script one text" in call(mistaken, RESPONSES).json()["error"]["message"]


def test_a_chat_stream_has_the_usage_only_if_it_is_asked_for(llm_provider: ScriptedProvider) -> None:
    llm_provider.reply("Hello")
    asked = events_in(call(llm_provider, CHAT, stream=True, stream_options={"include_usage": True}))
    assert (asked[-2]["choices"], asked[-2]["usage"]["total_tokens"]) == ([], 15)
    assert "usage" not in str(events_in(call(llm_provider, CHAT, stream=True)))


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_tool_calls_are_whole_and_in_pieces(llm_provider: ScriptedProvider, path: str) -> None:
    llm_provider.tool_call([ToolCall("weather", {"city": "Rome"}), ToolCall("clock", "{}", id="own")])
    whole = call(llm_provider, path).json()
    events = events_in(call(llm_provider, path, stream=True))
    if path == CHAT:
        assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": None, "refusal": None}
        calls = whole["choices"][0]["message"]["tool_calls"]
        assert [each["id"] for each in calls] == ["call_1", "own"]
        assert calls[0]["function"] == {"name": "weather", "arguments": '{"city": "Rome"}'}
        parts: list[Any] = [part for e in events[1:-2] for part in e["choices"][0]["delta"]["tool_calls"]]
        pieces = [part["function"]["arguments"] for part in parts if part["index"] == 0]
    else:
        assert whole["content"][0] == {
            "type": "tool_use",
            "id": "call_1",
            "name": "weather",
            "input": {"city": "Rome"},
        }
        deltas = [e["delta"] for e in events if e["type"] == "content_block_delta" and e["index"] == 0]
        pieces = [delta["partial_json"] for delta in deltas]
    assert pieces == ["", '{"city":', ' "Rome"}']


def test_answers_come_in_order_and_the_last_one_stays(llm_provider: ScriptedProvider) -> None:
    llm_provider.fail(429, retry_after=1)
    llm_provider.reply("one")
    llm_provider.reply("two")
    refused, *answers = [call(llm_provider, CHAT) for _ in range(4)]
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert [each.json()["choices"][0]["message"]["content"] for each in answers] == ["one", "two", "two"]
    llm_provider.reply("three")
    assert call(llm_provider, CHAT).json()["choices"][0]["message"]["content"] == "three"


def test_a_call_without_a_script_is_an_error_that_says_so(mistaken: ScriptedProvider) -> None:
    response = call(mistaken, CHAT)
    assert response.status_code == 500 and "use reply()" in response.json()["error"]["message"]
    with pytest.raises(AssertionError, match="No answer is scripted"):
        mistaken.stop()


def test_requests_are_recorded_with_path_headers_and_json(llm_provider: ScriptedProvider) -> None:
    llm_provider.reply("Hello")
    with httpx.Client(trust_env=False, verify=False) as client:
        url = f"{llm_provider.url}/openai/deployments/gpt/chat/completions?api-version=1"
        client.post(url, json={"messages": []}, headers={"api-key": "k"})
    (request,) = llm_provider.requests
    assert request.path == "/openai/deployments/gpt/chat/completions"
    assert (request.target.partition("?")[2], request.headers["api-key"]) == ("api-version=1", "k")
    assert request.json() == {"messages": []}


def test_raw_events_are_framed_and_bytes_stay_as_they_are(llm_provider: ScriptedProvider) -> None:
    llm_provider.events({"type": "ping"}, b": x\n\n")
    assert call(llm_provider, CHAT).content == b'data: {"type": "ping"}\n\n: x\n\n'
    assert call(llm_provider, MESSAGES).content == b'event: ping\ndata: {"type": "ping"}\n\n: x\n\n'


def test_empty_events_do_not_end_the_body(llm_provider: ScriptedProvider) -> None:
    llm_provider.events(b"", b": x\n\n", b"")
    assert [call(llm_provider, CHAT).text for _ in range(2)] == [": x\n\n", ": x\n\n"]


def test_a_raw_body_has_its_status_and_headers(llm_provider: ScriptedProvider) -> None:
    llm_provider.body(b"<p>no</p>", 502, {"content-type": "text/html"})
    llm_provider.body([{"a": 1}])
    first, second = call(llm_provider, CHAT), call(llm_provider, CHAT, stream=True)
    assert (first.status_code, first.text, first.headers["content-type"]) == (502, "<p>no</p>", "text/html")
    assert (second.status_code, second.json()) == (200, [{"a": 1}])


def test_it_stands_without_this_package() -> None:
    files = list(Path(testbed.provider.__file__).parent.rglob("*.py"))
    assert files
    assert not [path for path in files if "llm_pool" in path.read_text()]
