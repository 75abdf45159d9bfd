"""Each quirk of the scripted provider changes an answer as its documentation says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from testbed.provider import QUIRKS, ScriptedProvider, ToolCall
from tests.testbed.provider_calls import CHAT, EMBEDDINGS, MESSAGES, RESPONSES, call, read_some

if TYPE_CHECKING:
    from collections.abc import Iterator

PATHS = {
    "": CHAT,
    "chat completions": CHAT,
    "messages": MESSAGES,
    "responses": RESPONSES,
    "embeddings": EMBEDDINGS,
}
ENDLESS = {"heartbeats-after-end", "heartbeats-after-done", "silence-after-end"}
JSON = {"filtered-without-message", *(name for name, quirk in QUIRKS.items() if quirk.stream is False)}
FULL: dict[str, Any] = {
    "reasoning": ["2+", "2"],
    "citations": ["https://a.test"],
    "tool_calls": [ToolCall("weather", {"a": 1}), ToolCall("clock", {"b": 22})],
}
CLOCK = '"function": {"name": "clock", "arguments": "{\\"b\\": 22}"'

# What the answer has with the quirk, and what it has no more.
SHOWN: dict[str, tuple[str, str]] = {
    # The end.
    "no-done": ('"finish_reason": "tool_calls"}]}\n\n', "[DONE]"),
    "dropped-after-end": ('"finish_reason": "tool_calls"}]}\n\n', "[DONE]"),
    "done-after-two-spaces": ("data:  [DONE]\n\n", "data: [DONE]"),
    "done-before-a-space": ("data: [DONE] \n\n", "[DONE]\n"),
    "done-after-message-stop": ('"message_stop"}\n\ndata: [DONE]\n\n', ""),
    "done-for-message-stop": ("data: [DONE]\n\n", "message_stop"),
    "no-last-blank-line": ("data: [DONE]", "[DONE]\n"),
    # Between the events.
    "comments": ('data: {"id": "chatcmpl-1"', "XXX"),
    "empty-data-frames": ("]}\n\ndata:\n\ndata: {", ""),
    "events-without-data": ("retry: 3000\n\n", ""),
    "json-keepalives": ('data: {"type": "keepalive", "sequence_number": 1}\n\n', ""),
    "empty-pings": ("event: ping\ndata: {}\n\n", ""),
    "keepalive-events": ("event: keepalive\n\n", ""),
    # Frames.
    "no-event-lines": ('data: {"type": "message_start"', "event:"),
    "comments-inside-events": ("event: message_start\n: keep-alive\n\ndata:", "_start\ndata:"),
    "data-twice": ("data: data: {", "\ndata: {"),
    "no-space-after-data": ("data:{", "data: "),
    "carriage-returns": ("]}\r\n\r\ndata: [DONE]\r\n\r\n", "}\n"),
    "byte-order-mark": ("\ufeffdata: {", ""),
    "split-at-every-byte": ("data: [DONE]\n\n", ""),
    "broken-utf-8": ('"content": "Hel\ufffd"', ""),
    # Bodies.
    "json-for-stream": ('"object": "chat.completion"', "data: "),
    "stream-for-json": ("data: [DONE]\n\n", '"object": "chat.completion"'),
    "error-as-events": ('data: {"error": {"message": "Rate limit reached."', "XXX"),
    "blank-lines-first": ('\n\n\n\r\n  \n{"id"', ""),
    "json-then-done": ("}}\n\ndata: [DONE]\n\n", ""),
    # Errors.
    "error-field": ('\n\nerror: {"message": ', '"error": {'),
    "error-unframed": ('}]}\n\n{"error": {"message": ', "[DONE]"),
    "error-named": ('event: error\ndata: {"error": {', ""),
    "error-then-done": ('"code": null}}\n\ndata: [DONE]\n\n', ""),
    "error-beside-choice": ('"finish_reason": "error"}], "error": {', ""),
    "error-in-choice": ('"finish_reason": "error", "error": {', ""),
    "error-with-empty-choices": ('"choices": [], "error": {', ""),
    "error-as-list": ('data: [{"error": {', ""),
    "error-as-string": ('data: {"error": "The server had', ""),
    "error-as-detail": ('data: {"detail": "The server had', ""),
    "error-as-google-has-it": ('"retryDelay": "39.5s"}]}}', ""),
    "wait-in-message": ('request. Please try again in 20s."', ""),
    # Choices.
    "choice-index-counts-chunks": ('{"index": 1, "delta": {"reasoning', '{"index": 0, "delta": {"content"'),
    "choice-index-from-1": ('{"index": 1, "delta": {"content"', '{"index": 0, "delta"'),
    "choice-without-index": ('"choices": [{"delta"', '"index": 0, "delta"'),
    "message-for-delta": ('"message": {"content": "Hel"}', '"delta"'),
    "tools-in-a-choice-of-their-own": (
        '{"index": 1, "delta": {"tool_calls": [{"index": 0,',
        '{"index": 0, "delta": {"tool',
    ),
    "role-in-every-delta": ('{"content": "Hel", "role": "assistant"}', ""),
    "empty-finish-reasons": ('"finish_reason": ""}]}', '"finish_reason": null'),
    "finish-with-last-piece": ('"}"}}]}, "logprobs": null, "finish_reason": "tool_calls"', '"delta": {},'),
    "spliced": ('"id": "other-generation"', '"chatcmpl-1", "finish'),
    "answered-twice": ('"finish_reason": "tool_calls"}]}\n\ndata: {"id": "other-generation"', ""),
    "filtered-without-message": (
        '"choices": [{"index": 0, "logprobs": null, "finish_reason": "content_f',
        "Hel",
    ),
    "filter-events": ('{"choices": [], "prompt_filter_results": [', ""),
    "usage-under-x-groq": ('"x_groq": {"id": "req_1", "usage": {"prompt_tokens": 10', '"choices": []'),
    "usage-in-choice": ('"finish_reason": "tool_calls", "usage": {"prompt_tokens": 10', '"choices": []'),
    "usage-without-choices": ('{"id": "chatcmpl-1", "usage": {"prompt_tokens": 10', '"choices": []'),
    "usage-in-every-chunk": ('"completion_tokens": 2, "total_tokens": 12', '"choices": []'),
    "perplexity": ('"message": {"role": "assistant", "content": "Hello"}}], "usage"', "url_citation"),
    "channel-in-every-delta": ('{"content": "Hel", "channel": "analysis"}', ""),
    "executed-tools": ('"output": "sunny"}]}', ""),
    # Tools.
    "tools-whole": (CLOCK, '"function": {"arguments"'),
    "tools-at-index-0": ('{"index": 0, "id": "call_2"', '{"index": 1'),
    "tools-without-index": ('[{"function": {"arguments"', '[{"index": 0, "id"'),
    "tools-index-in-first-part": ('"name": "clock", "arguments": ""}, "index": 8}', '"index": 1'),
    "tools-id-in-every-part": ('"arguments": "{\\"b\\": 22"}, "id": "call_2"}', '"arguments": "}"}}'),
    "tools-name-in-every-part": ('"arguments": "{\\"b\\": 22", "name": "clock"}', ""),
    "tools-with-one-id": ('{"index": 1, "id": "call_1"', "call_2"),
    "tools-without-id": ('[{"index": 1, "type": "function"', "call_1"),
    "tools-with-empty-id": ('{"index": 1, "id": ""', "call_1"),
    "tools-twice": ('{"index": 1, "id": "call_2", "type": "function", ' + CLOCK, '{"index": 2'),
    "tools-at-several-indexes": ('{"index": 3, "id": "call_2", "type": "function", ' + CLOCK, '{"index": 4'),
    "tools-as-object": ('"tool_calls": {"index": 0', '"tool_calls": ['),
    "tools-arguments-as-object": ('"arguments": {"b": 22}', '"arguments": "'),
    "tools-arguments-begin-with-braces": ('"name": "clock", "arguments": "{}"', '"arguments": ""'),
    "tools-without-arguments": ('"function": {"name": "clock"}', "arguments"),
    "function-call": ('"function_call": {"name": "weather", "arguments": ""}', "tool_call"),
    "thought-signature": ('"arguments": ""}, "extra_content": {"google"', ""),
    "thought-signature-last": ('{"tool_calls": [{"extra_content": {"google"', ""),
    # Reasoning.
    "reasoning-field": ('{"reasoning": "2+"}', "reasoning_content"),
    "reasoning-text-field": ('{"reasoning_text": "2+"}', "reasoning_content"),
    "reasoning-twice": ('{"reasoning": "2+", "reasoning_content": "2+"}', ""),
    "reasoning-details": ('"index": 0, "text": "2+"}]', "reasoning_content"),
    "thinking-blocks": ('{"type": "thinking", "thinking": "", "signature": "U0lH"}', "reasoning_content"),
    "thinking-parts": (
        '"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "2+"}]}]',
        "ng_c",
    ),
    "summary-parts": ('"summary": [{"type": "summary_text", "text": "2+"}]', '"content": "H'),
    "content-parts": ('"content": [{"type": "text", "text": "Hel"}]', '"content": "H'),
    # Messages.
    "input-in-block-start": ('"input": {"b": 22}}', "input_json_delta"),
    "text-in-block-start": ('{"type": "text", "text": "Hel", "citations"', '"text_delta", "text": "Hel"'),
    "thinking-in-block-start": ('{"type": "thinking", "thinking": "2+", "sig', '_delta", "thinking": "2+"'),
    "usage-at-the-end": ('"input_tokens": 0', '"output_tokens": 1'),
    "usage-in-several-deltas": ('"delta": {"stop_reason": null}, "usage": {"output_tokens": 1, "iter', ""),
    "server-search": ('"index": 2, "content_block": {"type": "thinking"', ""),
    "unknown-events": ('event: note\ndata: {"type": "note"', ""),
    # Responses.
    "no-final-output": ('"total_tokens": 15}, "output": []', '"output": [{'),
    "no-final-response": ('data: {"type": "response.completed"}\n\n', ".done"),
    "deltas-only": ('data: {"type": "response.output_text.delta", "delta": "Hel"', "content_index"),
    "no-deltas": ('"content_index": 0, "text": "Hello"', ".delta"),
    "items-only": ('"total_tokens": 15}, "output": []', "text.done"),
    "last-event-only": ('"content": [{"type": "output_text", "text": "Hello"', "output_item"),
    "new-id-in-each-event": ('"item_id": "4-rs_1"', '"item_id": "rs_1"'),
    "content-index-counts-events": ('"sequence_number": 4, "content_index": 1', '"summary_index"'),
    "names-of-openrouter": ('data: {"type": "response.content_part.delta"', "response.completed"),
    "types-in-event-lines-only": ('event: response.created\ndata: {"response"', '"type": "response.'),
    "done-after-response": ('"sequence_number": 26}\n\ndata: [DONE]\n\n', ""),
    "error-beside-type": ('event: error\ndata: {"message": ', '"error": {'),
    "error-in-response": ('data: {"type": "response.failed", "response": {', '"type": "error"'),
    # Embeddings.
    "vectors-reversed": ('"data": [{"object": "embedding", "index": 1', ""),
    "vectors-without-index": ('"data": [{"object": "embedding", "embedding"', "index"),
    "floats-for-base64": ('"embedding": [0.5]', '"embedding": "'),
}


def script(provider: ScriptedProvider, quirk: str) -> None:
    if QUIRKS[quirk].api == "embeddings":
        provider.vectors([0.5], [0.25], quirk=quirk)
    elif quirk == "error-as-events":
        provider.fail(429, quirk=quirk)
    elif quirk.startswith(("error", "wait")):
        provider.fail_in_stream(quirk=quirk)
    elif quirk in ("tools-as-object", "function-call"):
        provider.tool_call("weather", {"a": 1}, quirk=quirk)
    else:
        provider.stream(["Hel", "lo"], quirk=quirk, **FULL)


@pytest.fixture
def mistaken() -> Iterator[ScriptedProvider]:
    """A provider for scripts with mistakes, which ``stop`` would raise."""
    with ScriptedProvider() as provider:
        yield provider
        provider.errors.clear()


def test_each_quirk_is_tested_and_documented() -> None:
    assert SHOWN.keys() | ENDLESS == QUIRKS.keys()
    assert all(quirk.about.endswith(".") for quirk in QUIRKS.values())


@pytest.mark.parametrize("name", SHOWN)
def test_a_quirk_changes_the_answer(llm_provider: ScriptedProvider, name: str) -> None:
    quirk, (present, absent) = QUIRKS[name], SHOWN[name]
    script(llm_provider, name)
    embeddings = {"encoding_format": "base64", "input": ["a", "b"]}
    body = embeddings if quirk.api == "embeddings" else {"stream": name not in JSON}
    text = read_some(llm_provider, PATHS[quirk.api], **body)
    assert present in text
    assert not absent or absent not in text


@pytest.mark.parametrize("name", sorted(ENDLESS))
def test_an_answer_without_an_end_is_there_before_the_silence(
    llm_provider: ScriptedProvider, name: str
) -> None:
    llm_provider.stream(["Hel", "lo"], quirk=name)
    wanted = '"finish_reason": "stop"}]}\n\n' if name == "silence-after-end" else ": keep-alive\n\n" * 2
    assert wanted in read_some(llm_provider, CHAT, until=wanted, stream=True)


@pytest.mark.parametrize(
    ("quirk", "path", "stream", "message"),
    [
        ("no-done", CHAT, False, "one of streams, and the answer is JSON"),
        ("json-then-done", CHAT, True, "one of JSON, and the answer is a stream"),
        ("empty-pings", CHAT, True, "one of messages, and the request was one of chat completions"),
        ("reasoning-field", CHAT, True, "changes nothing in this answer"),
    ],
)
def test_a_quirk_without_effect_is_an_error(
    mistaken: ScriptedProvider, quirk: str, path: str, stream: bool, message: str
) -> None:
    mistaken.reply("Hello", quirk=quirk)
    response = call(mistaken, path, stream=stream)
    assert response.status_code == 500 and message in response.json()["error"]["message"]
    assert message in str(mistaken.errors[0])


def test_quirks_combine(llm_provider: ScriptedProvider) -> None:
    llm_provider.reply("4", reasoning="2+2", quirk=["filter-events", "reasoning-field", "empty-data-frames"])
    text = read_some(llm_provider, CHAT, stream=True)
    assert "prompt_filter_results" in text and '{"reasoning": "2+2"}' in text and "\n\ndata:\n\n" in text


def test_quirks_apply_in_order(llm_provider: ScriptedProvider) -> None:
    calls = [ToolCall("weather", {"a": 1}), ToolCall("clock", {})]
    llm_provider.tool_call(calls, quirk=["tools-whole", "tools-at-index-0", "no-done"])
    text = read_some(llm_provider, CHAT, stream=True)
    assert text.count('"index": 0, "id"') == 2 and "[DONE]" not in text


def test_an_unknown_quirk_is_refused_at_once(llm_provider: ScriptedProvider) -> None:
    with pytest.raises(ValueError, match=r"Unknown quirk 'no-don': did you mean 'no-done'\?"):
        llm_provider.reply("Hello", quirk="no-don")


def test_a_connection_that_drops_has_no_end_of_the_body(llm_provider: ScriptedProvider) -> None:
    llm_provider.reply("Hello", quirk="dropped-after-end")
    with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
        call(llm_provider, CHAT, stream=True)
