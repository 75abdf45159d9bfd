"""``format="ai-sdk"``, read by the AI SDK: by the first version with this protocol, and by the newest."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from llm_pool.exceptions import BUSY, PoolFull, visitor_message
from llm_pool.http import event_stream
from llm_pool.http.ai_sdk import UIMessageEvents
from llm_pool.providers.results import Choice, Chunk, Citation, Completion, ToolCall, ToolCallPart
from testbed.behaviours import events, json_reply
from testbed.chat import chat_event, usage
from tests.node import ui_message_reader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llm_pool.calling.pool import LLMPool
    from testbed import Script, ScriptedServer

ALL = ("reasoning", "tool_calls")


@pytest.fixture(scope="module", params=["ai-5", "ai"])
def read(request: pytest.FixtureRequest) -> Iterator[Callable[..., dict[str, Any]]]:
    """``read(body=...)``: the message and the errors that the AI SDK makes of it."""
    with ui_message_reader(request.config, request.param) as reader:
        yield reader


def parts_of(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The parts of the message, without those that begin a step and without what a version adds."""
    assert answer["errors"] == []
    kept = ("type", "text", "state", "toolCallId", "input", "rawInput", "errorText", "url", "title")
    parts = answer["message"]["parts"]
    assert parts[0]["type"] == "step-start"
    return [{name: part[name] for name in kept if name in part} for part in parts[1:]]


def body_of(*steps: list[Chunk], end: Completion | Exception, include: tuple[str, ...] = ALL) -> str:
    written = UIMessageEvents(include)
    body = "".join(written.chunks(chunks) for chunks in steps)
    if isinstance(end, Completion):
        return body + written.done(end)
    return body + written.failed(type(end).__name__, visitor_message(end))


TOOLS = (
    ToolCall("call_1", "add", '{"a": 1, "b": 2}'),
    ToolCall("", "now", "{}"),
    ToolCall("call_3", "cut", '{"a": '),
    ToolCall("call_4", "draw", "a blue square", {"type": "custom"}),
    ToolCall("call_5", "paint", "a red one", {"type": "custom_tool_call"}),
)


def test_an_answer_of_a_real_stream(
    read: Callable[..., dict[str, Any]],
    configure: Callable[..., LLMPool],
    serve_first: Callable[[Script], ScriptedServer],
) -> None:
    """Reasoning, text and a tool call, as OpenAI-compatible servers send them."""
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "add", "arguments": ""}}
    script = events(
        chat_event({"reasoning_content": "Let me "}),
        chat_event({"reasoning_content": "add."}),
        chat_event({"content": "I add"}),
        chat_event({"content": " them."}),
        chat_event({"tool_calls": [call]}),
        chat_event({"tool_calls": [{"index": 0, "function": {"arguments": '{"a": 1}'}}]}),
        chat_event({}, finish_reason="tool_calls"),
        chat_event(None, usage=usage(5)),
        b"data: [DONE]\n\n",
    )
    response = event_stream(configure(serve_first(script)).stream("hello"), format="ai-sdk")
    assert response["X-Vercel-AI-UI-Message-Stream"] == "v1"
    answer = read(headers=dict(response.items()), body=b"".join(response).decode())
    assert parts_of(answer) == [
        {"type": "reasoning", "text": "Let me add.", "state": "done"},
        {"type": "text", "text": "I add them.", "state": "done"},
        {"type": "tool-add", "toolCallId": "call_1", "state": "input-available", "input": {"a": 1}},
    ]
    metadata = answer["message"]["metadata"]
    assert metadata.pop("timing")["total"] > 0
    assert metadata == {
        "model": "test-model",
        "finishReason": "tool_calls",
        "usage": {
            "inputTokens": 3,
            "outputTokens": 5,
            "totalTokens": 8,
            "cachedInputTokens": 0,
            "reasoningTokens": 0,
        },
    }


def test_tool_calls_without_an_id_with_invalid_arguments_and_with_free_text(
    read: Callable[..., dict[str, Any]],
) -> None:
    starts = [ToolCallPart(index, call.id, call.name) for index, call in enumerate(TOOLS)]
    pieces = [ToolCallPart(index, arguments=call.arguments) for index, call in enumerate(TOOLS)]
    body = body_of(
        [Chunk("", {}, None, starts[:2])],
        [Chunk("", {}, None, [*starts[2:], *pieces])],
        end=Completion("", finish_reason="tool_use", tool_calls=TOOLS),
    )
    add, now, cut, draw, paint = parts_of(read(body=body))
    assert add == {
        "type": "tool-add",
        "toolCallId": "call_1",
        "state": "input-available",
        "input": {"a": 1, "b": 2},
    }
    assert now == {"type": "tool-now", "toolCallId": "call-2", "state": "input-available", "input": {}}
    assert cut["state"] == "output-error"
    assert cut.get("rawInput", cut.get("input")) == '{"a": '  # version 5, and 7
    assert cut["errorText"] == "The arguments are not valid JSON."
    assert (draw["state"], draw["input"]) == ("input-available", "a blue square")
    assert (paint["state"], paint["input"]) == ("input-available", "a red one")


@pytest.mark.parametrize(
    ("reason", "calls", "expected"),
    [
        ("completed", (), "stop"),
        ("completed", TOOLS[:1], "tool-calls"),
        ("tool_use", TOOLS[:1], "tool-calls"),
        ("max_output_tokens", TOOLS[:1], "length"),
        ("content_filter", (), "content-filter"),
        ("pause_turn", (), "other"),
        (None, (), "other"),
    ],
)
def test_the_finish_reason_has_the_protocols_name(
    reason: str | None, calls: tuple[ToolCall, ...], expected: str
) -> None:
    body = body_of(end=Completion("", finish_reason=reason, tool_calls=calls))
    assert f'"finishReason": "{expected}"' in body
    assert f'"finishReason": {json.dumps(reason)}' in body.partition("messageMetadata")[2]


def test_a_tool_call_that_came_whole(read: Callable[..., dict[str, Any]]) -> None:
    """As from a server that answers without a stream: no chunk has told of it."""
    (add,) = parts_of(read(body=body_of(end=Completion("", tool_calls=TOOLS[:1]))))
    assert (add["toolCallId"], add["input"]) == ("call_1", {"a": 1, "b": 2})


def test_text_again_after_a_tool_call_is_a_part_of_its_own(read: Callable[..., dict[str, Any]]) -> None:
    body = body_of(
        [Chunk("I ", {}), Chunk("add.", {}), Chunk("", {}, None, [ToolCallPart(0, "call_1", "add", "{}")])],
        [Chunk("Done.", {})],
        end=Completion("I add.Done.", tool_calls=(ToolCall("call_1", "add", "{}"),)),
    )
    parts = parts_of(read(body=body))
    assert [part.get("text", part["type"]) for part in parts] == ["I add.", "tool-add", "Done."]


def test_a_refusal_is_text_and_sources_are_named(read: Callable[..., dict[str, Any]]) -> None:
    sources = (
        Citation("https://a.example", "A"),
        Citation("https://b.example"),
        Citation(None, "a document"),
    )
    body = body_of(
        [Chunk("", {}, refusal="I may"), Chunk("", {}, refusal=" not.")],
        end=Completion("", finish_reason="refusal", choices_in=lambda raw: (Choice(citations=sources),)),
    )
    assert '"finishReason": "content-filter"' in body
    assert parts_of(read(body=body)) == [
        {"type": "text", "text": "I may not.", "state": "done"},
        {"type": "source-url", "url": "https://a.example", "title": "A"},
        {"type": "source-url", "url": "https://b.example"},
    ]


def test_an_error_in_mid_stream_keeps_the_text_so_far(read: Callable[..., dict[str, Any]]) -> None:
    answer = read(body=body_of([Chunk("It is", {})], end=PoolFull("secret")))
    assert answer["errors"] == [BUSY]
    assert answer["message"]["parts"][1]["text"] == "It is"


def test_an_error_before_the_first_token(
    read: Callable[..., dict[str, Any]],
    configure: Callable[..., LLMPool],
    serve_first: Callable[[Script], ScriptedServer],
) -> None:
    pool = configure(serve_first(json_reply({"error": {"message": "Not your key."}}, status=401)))
    response = event_stream(pool.stream("hello"), format="ai-sdk")
    answer = read(headers=dict(response.items()), body=b"".join(response).decode())
    assert answer["errors"] == ["The model gave no answer. Please try again later."]


def test_what_is_not_included_is_not_sent(read: Callable[..., dict[str, Any]]) -> None:
    chunk = Chunk("Hello", {}, None, [ToolCallPart(0, "call_1", "add", "{}")], reasoning="hm")
    body = body_of([chunk], end=Completion("Hello", tool_calls=TOOLS), include=())
    assert parts_of(read(body=body)) == [{"type": "text", "text": "Hello", "state": "done"}]
