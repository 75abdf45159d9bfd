"""Answers in each provider's own shape, whole and as a stream, and what must be found in them."""

from __future__ import annotations

from typing import Any, NamedTuple

from llm_pool.providers.results import Citation, Completion
from tests.providers import responses_events as responses

__all__ = ["SHAPES", "Shape", "assert_found"]

JSON = dict[str, Any]


class Shape(NamedTuple):
    """One shape of an answer, and what must be found in it.

    ``whole``     the answer without a stream
    ``events``    the same answer as a stream
    ``expected``  attributes of the completion
    """

    provider: str
    whole: JSON
    events: list[JSON]
    expected: JSON


def chat(message: JSON, *deltas: JSON, expected: JSON, last: JSON | None = None, **beside: Any) -> Shape:
    """An answer of chat completions. ``last`` is in the last choice, ``beside`` beside the choices."""
    ending = {"finish_reason": "stop", **(last or {})}
    top: JSON = {"id": "c1", "created": 1, "model": "m"}
    whole = {"index": 0, "message": {"role": "assistant", "content": None, **message}, **ending}
    events = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    events.append({"choices": [{"index": 0, "delta": {}, **ending}], **beside})
    return Shape(
        "openai",
        {**top, "object": "chat.completion", "usage": None, **beside, "choices": [whole]},
        [{**top, "object": "chat.completion.chunk", **event} for event in events],
        expected,
    )


def message(blocks: list[JSON], *events: JSON, expected: JSON, **last: Any) -> Shape:
    """An answer of Messages; the blocks are numbered by their start. ``last`` is in ``message_delta``."""
    start = {"id": "m1", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None}
    usage = last.pop("usage", {})
    ending = {"stop_reason": "end_turn", **last}
    numbered, number = [], -1
    for event in events:
        number += event["type"] == "content_block_start"
        numbered.append({**event, "index": number})
    return Shape(
        "anthropic",
        {**start, "content": blocks, "usage": {"input_tokens": 3, **usage}, **ending},
        [
            {"type": "message_start", "message": {**start, "content": [], "stop_reason": None,
                                                  "usage": {"input_tokens": 3}}},
            *numbered,
            {"type": "message_delta", "delta": ending, "usage": usage},
            {"type": "message_stop"},
        ],
        expected,
    )  # fmt: skip


def response(*items: JSON, expected: JSON, **fields: Any) -> Shape:
    """An answer of the Responses API."""
    whole = responses.response(*items, **fields)
    return Shape("openai-responses", whole, responses.events_of(whole), expected)


def begin(**block: Any) -> JSON:
    return {"type": "content_block_start", "content_block": block}


def add(**delta: Any) -> JSON:
    return {"type": "content_block_delta", "delta": delta}


STOP = {"type": "content_block_stop"}
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
SIGNED = {**CALL, "extra_content": {"google": {"thought_signature": "SIG"}}}
ROWS = {"rows": [{"index": 0, "a": 1}, {"index": 0, "b": 2}]}
ANNOTATION = {
    "type": "url_citation",
    "url_citation": {"url": "https://a.test", "title": "A", "start_index": 0, "end_index": 5},
}
CITED = {"type": "web_search_result_location", "url": "https://a.test", "title": "A", "cited_text": "x"}
DOCUMENT = {"type": "char_location", "document_title": "D", "cited_text": "y", "document_index": 0}
LOGPROBS = {"content": [{"token": "a", "logprob": -0.1}, {"token": "a", "logprob": -0.1}], "refusal": None}
AUDIO = {"id": "au", "expires_at": 9, "data": "AAAA", "transcript": "Hello"}
USAGE = {"prompt_tokens": 9, "completion_tokens": 7, "total_tokens": 16}

SHAPES: dict[str, Shape] = {
    # Reasoning.
    "reasoning_content (DeepSeek, xAI, Qwen, Kimi)": chat(
        {"content": "4", "reasoning_content": "2+2"},
        {"role": "assistant", "content": None, "reasoning_content": "2"},
        {"content": None, "reasoning_content": "+2"},
        {"content": "4", "reasoning_content": None},
        expected={"reasoning": "2+2", "text": "4",
                  "message": {"role": "assistant", "content": "4", "reasoning_content": "2+2"}},
    ),
    "reasoning (vLLM, Groq)": chat(
        {"content": "4", "reasoning": "2+2", "channel": "analysis"},
        {"channel": "analysis", "reasoning": "2"},
        {"channel": "analysis", "reasoning": "+2"},
        {"content": "4"},
        expected={"reasoning": "2+2"},
    ),
    "reasoning and its details (OpenRouter)": chat(
        {"content": "4", "reasoning": "haha", "reasoning_details": [
            {"type": "reasoning.text", "text": "haha", "format": "f", "index": 0, "signature": "SIG"}]},
        {"content": "", "reasoning": "ha", "reasoning_details": [
            {"type": "reasoning.text", "text": "ha", "format": "f", "index": 0}]},
        {"content": "", "reasoning": "ha", "reasoning_details": [
            {"type": "reasoning.text", "text": "ha", "format": "f", "index": 0}]},
        {"content": "4", "reasoning_details": [
            {"type": "reasoning.text", "signature": "SIG", "format": "f", "index": 0}]},
        expected={"reasoning": "haha"},
    ),
    "thinking_blocks (LiteLLM)": chat(
        {"content": "4", "thinking_blocks": [{"type": "thinking", "thinking": "2+2", "signature": "SIG"}]},
        {"thinking_blocks": [{"type": "thinking", "thinking": "2", "signature": ""}]},
        {"thinking_blocks": [{"type": "thinking", "thinking": "+2", "signature": ""}]},
        {"thinking_blocks": [{"type": "thinking", "thinking": "", "signature": "SIG"}]},
        {"content": "4"},
        expected={"reasoning": "2+2"},
    ),
    "parts of the content (Mistral)": chat(
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "2+2"}]},
                     {"type": "text", "text": "4!"}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "2"}]}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "+2"}]}]},
        {"content": "4"},
        {"content": "!"},
        expected={"reasoning": "2+2", "text": "4!"},
    ),
    "summaries in the content (Databricks)": chat(
        {"content": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "2+2"}]},
                     {"type": "text", "text": "4"}]},
        {"content": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "2"}]}]},
        {"content": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "+2"}]}]},
        {"content": [{"type": "text", "text": "4"}]},
        expected={"reasoning": "2+2", "text": "4"},
    ),
    "thinking (Anthropic)": message(
        [{"type": "thinking", "thinking": "2+2", "signature": "SIG"},
         {"type": "redacted_thinking", "data": "XYZ"}, {"type": "text", "text": "4"}],
        begin(type="thinking", thinking="2", signature=""), add(type="thinking_delta", thinking="+2"),
        add(type="signature_delta", signature="SIG"), STOP,
        begin(type="redacted_thinking", data="XYZ"), STOP,
        begin(type="text", text=""), add(type="text_delta", text="4"), STOP,
        expected={"reasoning": "2+2", "text": "4", "message": {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "2+2", "signature": "SIG"},
            {"type": "redacted_thinking", "data": "XYZ"}, {"type": "text", "text": "4"}]}},
    ),
    # Refusals.
    "refusal (OpenAI)": chat(
        {"refusal": "I cannot."}, {"role": "assistant", "refusal": "I "}, {"refusal": "cannot."},
        expected={"refusal": "I cannot.", "text": "", "finish_reason": "stop"},
    ),
    "refusal (Anthropic)": message(
        [],
        stop_reason="refusal", stop_details={"type": "refusal", "explanation": "I cannot."},
        expected={"refusal": "I cannot.", "finish_reason": "refusal",
                  "message": {"role": "assistant", "content": []}},
    ),
    # Citations.
    "annotations (OpenAI)": chat(
        {"content": "Found", "annotations": [ANNOTATION]},
        {"content": "Found"}, {"annotations": [ANNOTATION]},
        expected={"citations": (Citation("https://a.test", "A"),)},
    ),
    "citations (Perplexity)": chat(
        {"content": "Found"}, {"content": "Found"},
        citations=["https://a.test", "https://b.test"],
        search_results=[{"url": "https://a.test", "title": "A", "snippet": "x"}],
        expected={"citations": (Citation("https://a.test", "A", "x"), Citation("https://b.test"))},
    ),
    "context (Azure's own data)": chat(
        {"content": "Found", "context": {"citations": [{"title": "A", "content": "x", "filepath": "a.md"}]}},
        {"context": {"citations": [{"title": "A", "content": "x", "filepath": "a.md"}]}},
        {"content": "Found"},
        expected={"citations": (Citation(None, "A", "x"),)},
    ),
    "citations (Anthropic)": message(
        [{"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}},
         {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
         {"type": "text", "text": "Found", "citations": [CITED, DOCUMENT]}],
        begin(type="server_tool_use", id="s", name="web_search", input={}),
        add(type="input_json_delta", partial_json='{"query"'),
        add(type="input_json_delta", partial_json=':"q"}'), STOP,
        begin(type="web_search_tool_result", tool_use_id="s", content=[]), STOP,
        begin(type="text", text="", citations=[]), add(type="citations_delta", citation=CITED),
        add(type="text_delta", text="Found"), add(type="citations_delta", citation=DOCUMENT), STOP,
        stop_reason="pause_turn",
        expected={"citations": (Citation("https://a.test", "A", "x"), Citation(None, "D", "y")),
                  "tool_calls": (), "finish_reason": "pause_turn"},
    ),
    # Usage.
    "usage (OpenAI)": chat(
        {"content": "a"}, {"content": "a"},
        usage={**USAGE, "prompt_tokens_details": {"cached_tokens": 4},
               "completion_tokens_details": {"reasoning_tokens": 5}},
        expected={"usage": (9, 7, 4, 5)},
    ),
    "usage (DeepSeek)": chat(
        {"content": "a"}, {"content": "a"}, usage={**USAGE, "prompt_cache_hit_tokens": 4},
        expected={"usage": (9, 7, 4, 0)},
    ),
    "usage (Perplexity)": chat(
        {"content": "a"}, {"content": "a"}, usage={**USAGE, "reasoning_tokens": 5},
        expected={"usage": (9, 7, 0, 5)},
    ),
    "usage in x_groq": chat(
        {"content": "a"}, {"content": "a"}, x_groq={"id": "r", "usage": USAGE},
        expected={"usage": (9, 7, 0, 0)},
    ),
    "usage in the choice (Moonshot)": chat(
        {"content": "a"}, {"content": "a"}, last={"usage": {**USAGE, "cached_tokens": 4}},
        expected={"usage": (9, 7, 4, 0)},
    ),
    "usage (Anthropic)": message(
        [{"type": "text", "text": "a"}], begin(type="text", text="a"), STOP,
        usage={"output_tokens": 7, "cache_read_input_tokens": 4,
               "output_tokens_details": {"thinking_tokens": 5}},
        expected={"usage": (3, 7, 4, 5)},
    ),
    # Tool calls and messages.
    "tool calls with a signature (Gemini)": chat(
        {"tool_calls": [SIGNED]}, {"tool_calls": [{"index": 0, **SIGNED}]},
        last={"finish_reason": "tool_calls"},
        expected={"finish_reason": "tool_calls",
                  "message": {"role": "assistant", "content": None, "tool_calls": [SIGNED]}},
    ),
    "tools of the server (Groq)": chat(
        {"content": "Sunny", "executed_tools": [
            {"index": 0, "type": "search", "arguments": "{}", "output": "sunny"}]},
        {"executed_tools": [{"index": 0, "type": "search", "arguments": "{}"}]},
        {"executed_tools": [{"index": 0, "type": "search", "arguments": "{}", "output": "sunny"}]},
        {"content": "Sunny"},
        expected={"tool_calls": ()},
    ),
    "tool use (Anthropic)": message(
        [{"type": "text", "text": "Let me see."},
         {"type": "tool_use", "id": "t", "name": "f", "input": {"x": 1}}],
        begin(type="text", text=""), add(type="text_delta", text="Let me see."), STOP,
        begin(type="tool_use", id="t", name="f", input={}), add(type="input_json_delta", partial_json='{"x"'),
        add(type="input_json_delta", partial_json=": 1}"), STOP,
        stop_reason="tool_use",
        expected={"finish_reason": "tool_use"},
    ),
    "tool use, whole in its start (Anthropic)": message(
        [{"type": "tool_use", "id": "t", "name": "f", "input": ROWS}],
        begin(type="tool_use", id="t", name="f", input=ROWS), STOP,
        stop_reason="tool_use",
        expected={"finish_reason": "tool_use"},
    ),
    "tool use without input (Anthropic)": message(
        [{"type": "tool_use", "id": "t", "name": "f", "input": {}}],
        begin(type="tool_use", id="t", name="f", input={}),
        add(type="input_json_delta", partial_json=""), STOP,
        stop_reason="tool_use",
        expected={"finish_reason": "tool_use"},
    ),
    # What else a choice can have.
    "log probabilities": chat(
        {"content": "aa"},
        {"content": "aa"}, last={"logprobs": LOGPROBS},
        expected={"logprobs": LOGPROBS},
    ),
    "audio": chat(
        {"audio": AUDIO},
        {"audio": {"id": "au", "transcript": "Hel"}}, {"audio": {"data": "AA"}},
        {"audio": {"data": "AA", "transcript": "lo"}}, {"audio": {"expires_at": 9}},
        expected={"audio": AUDIO, "message": {"role": "assistant", "content": None, "audio": {"id": "au"}}},
    ),
    # The Responses API.
    "summaries (Responses)": response(
        responses.reasoning("2+2", "4+0", encrypted_content="XYZ"), responses.message("4"),
        expected={"reasoning": "2+2\n\n4+0", "text": "4", "finish_reason": "completed", "message": {
            "role": "assistant",
            "output": [responses.reasoning("2+2", "4+0", encrypted_content="XYZ"), responses.message("4")]}},
    ),
    "reasoning of open models (Responses)": response(
        responses.reasoning(content=[{"type": "reasoning_text", "text": "2+2"}]), responses.message("4"),
        expected={"reasoning": "2+2", "text": "4"},
    ),
    "refusal (Responses)": response(
        {**responses.message(), "content": [{"type": "refusal", "refusal": "I cannot."}]},
        expected={"refusal": "I cannot.", "text": ""},
    ),
    "annotations (Responses)": response(
        {"type": "web_search_call", "id": "ws", "status": "completed"},
        responses.message("Found", annotations=[
            {"type": "url_citation", "url": "https://a.test", "title": "A", "start_index": 0, "end_index": 5},
            {"type": "file_citation", "file_id": "f", "filename": "a.md", "index": 3}]),
        expected={"citations": (Citation("https://a.test", "A"), Citation(None, "a.md"))},
    ),
    "citations beside the output (Responses)": response(
        responses.message("Found"), citations=["https://a.test"],
        expected={"citations": (Citation("https://a.test"),)},
    ),
    "tools (Responses)": response(
        responses.message("Let me see."), responses.call(), responses.call('{"y": [1]}', 2),
        {"id": "ct", "type": "custom_tool_call", "call_id": "c3", "name": "g", "input": '"free text"'},
        {"id": "mc", "type": "mcp_call", "name": "h", "arguments": "{}", "output": "x"},
        expected={"finish_reason": "completed"},
    ),
    "usage (Responses)": response(
        responses.message("a"), status="incomplete", incomplete_details={"reason": "max_output_tokens"},
        usage={"input_tokens": 9, "output_tokens": 7, "input_tokens_details": {"cached_tokens": 4},
               "output_tokens_details": {"reasoning_tokens": 5}},
        expected={"usage": (9, 7, 4, 5), "finish_reason": "max_output_tokens"},
    ),
    "log probabilities (Responses)": response(
        responses.message("ab", logprobs=LOGPROBS["content"]), expected={"logprobs": LOGPROBS["content"]},
    ),
}  # fmt: skip


def assert_found(completion: Completion, expected: JSON) -> None:
    """Assert that ``completion`` has the attributes of ``Shape.expected``."""
    for name, value in expected.items():
        found = getattr(completion, name)
        if name == "usage":
            found = (found.input_tokens, found.output_tokens, found.cached_tokens, found.reasoning_tokens)
        assert found == value, name
