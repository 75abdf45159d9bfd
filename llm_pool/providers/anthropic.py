"""Anthropic's Messages API: https://docs.anthropic.com/en/api/messages"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llm_pool.exceptions import InvalidParameter
from llm_pool.providers.base import CompletionRequest, Head, JSONProvider, Messages
from llm_pool.providers.event_stream import EventStreamReader, parse_index
from llm_pool.providers.json_schema import ANTHROPIC, UnsupportedSchema, strict
from llm_pool.providers.merging import MergedObject
from llm_pool.providers.requests import as_messages, check_params
from llm_pool.providers.results import Chunk, Completion, Timing, ToolCall, repair_surrogates

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm_pool.providers.sse import Event

__all__ = ["Anthropic", "AnthropicStreamReader"]


API_VERSION = "2023-06-01"
_BLOCK_PARTS = {
    "content_block_start": "content_block",
    "content_block_delta": "delta",
}  # fields by event type


class Anthropic(JSONProvider):
    """Anthropic's Messages API: ``POST /v1/messages``.

    Each call needs the parameter ``max_tokens``. A system prompt goes into the parameter ``system``.
    """

    name = "anthropic"
    base_url = "https://api.anthropic.com"
    base_url_env = "ANTHROPIC_BASE_URL"
    api_key_env = "ANTHROPIC_API_KEY"
    completion_path = "/v1/messages"
    models_path = "/v1/models"
    key_headers = frozenset({"x-api-key", "authorization"})
    request_id_headers = ("request-id", "x-request-id")
    usage_names = ("input_tokens", "output_tokens")

    def headers(self, api_key: str | None) -> dict[str, str]:
        """See ``Provider.headers``."""
        headers = {
            "content-type": "application/json",
            "accept": "application/json",
            "anthropic-version": API_VERSION,
        }
        if api_key:
            headers["x-api-key"] = api_key
        return headers

    def completion_request(
        self, messages: Messages, model: str | None, params: Mapping[str, Any], *, stream: bool
    ) -> CompletionRequest:
        """See ``Provider.completion_request``."""
        check_params(params, stream)
        if "max_tokens" not in params:
            raise InvalidParameter("max_tokens is missing; Anthropic's API requires it in every call.")
        body: dict[str, Any] = {"model": model} if model is not None else {}
        body["messages"] = as_messages(messages)
        body.update(params)
        if stream:
            body["stream"] = True
        return CompletionRequest(self.completion_path, body)

    def output_params(self, name: str, schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """See ``Provider.output_params``."""
        try:
            enforced = strict(schema, ANTHROPIC, name)
        except UnsupportedSchema as error:
            advice = "Use lists, and classes whose fields have types, instead."
            raise InvalidParameter(f"Anthropic's API cannot enforce {name}: {error}. {advice}") from None
        return {"output_config": {"format": {"type": "json_schema", "schema": enforced}}}

    def tool_definition(self, name: str, description: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """See ``Provider.tool_definition``."""
        return {"name": name, "description": description, "input_schema": parameters}

    def stream_reader(self, head: Head) -> AnthropicStreamReader:
        """See ``Provider.stream_reader``."""
        return AnthropicStreamReader(self, head)

    def completion_from(
        self, raw: Any, request_id: str | None, timing: Timing | None, text: str | None = None
    ) -> Completion:
        """See ``JSONProvider.completion_from``."""
        blocks = raw["content"]
        if text is None:
            texts = [block.get("text") or "" for block in blocks if block["type"] == "text"]
            text = repair_surrogates("".join(texts))
        calls = [block for block in blocks if block["type"] == "tool_use"]
        return Completion(
            text=text,
            model=raw.get("model"),
            finish_reason=raw.get("stop_reason"),
            tool_calls=tuple(_tool_call_of(block) for block in calls),
            usage=self._usage_from(raw.get("usage")),
            request_id=request_id,
            timing=timing,
            raw=raw,
        )

    def _describe_mismatch(self, _raw: Any) -> str:
        return "JSON that is not a message"


class AnthropicStreamReader(EventStreamReader):
    """Reads events up to ``message_stop``. An event of an unknown type becomes a chunk without text.

    A body that ends without ``message_stop`` is complete too if an event has reported a ``stop_reason``.
    The events are described at https://docs.anthropic.com/en/docs/build-with-claude/streaming
    """

    def __init__(self, provider: JSONProvider, head: Head) -> None:
        super().__init__(provider, head)
        self._message = MergedObject()
        self._blocks: dict[int, MergedObject] = {}
        self._stopped = False

    def _merged_answer(self) -> dict[str, Any]:
        blocks = [_with_parsed_input(block.to_dict()) for _, block in sorted(self._blocks.items())]
        return {**self._message.to_dict(), "content": blocks}

    def _is_end_marker(self, event: Event) -> bool:
        if event.event != "message_stop":
            return False
        if not self._message:
            raise self._provider.invalid_response(self._head, "a stream without a message", event.data)
        return True

    def _is_complete(self) -> bool:
        return self._stopped

    def _chunk_from(self, raw: dict[str, Any], data: str) -> Chunk:
        match raw["type"]:
            case "message_start":
                self._message.add(raw["message"], concatenate=False)
            case "content_block_start":
                return self._begin_block(raw, data)
            case "content_block_delta":
                return self._add_to_block(raw, data)
            case "message_delta":
                return self._add_to_message(raw)
        return Chunk("", raw)

    def is_content(self, chunk: Chunk) -> bool:
        """See ``StreamReader.is_content``. Counts every field of a content block but its type."""
        part = chunk.raw.get(_BLOCK_PARTS.get(chunk.raw["type"], ""), {})
        return super().is_content(chunk) or any(value for name, value in part.items() if name != "type")

    def _begin_block(self, raw: dict[str, Any], data: str) -> Chunk:
        start = raw["content_block"]
        text = start.get("text") if start["type"] == "text" else None
        block = self._blocks[parse_index(raw["index"])] = MergedObject()
        block.add(start)
        return Chunk(self._add_text(text or "", data), raw)

    def _add_to_block(self, raw: dict[str, Any], data: str) -> Chunk:
        block, delta = self._blocks[parse_index(raw["index"])], raw["delta"]
        fields = {**delta}
        kind = fields.pop("type")
        if kind == "citations_delta":
            fields["citations"] = [fields.pop("citation")]
        block.add(fields)
        text = delta.get("text") if kind == "text_delta" else None
        calls = [delta] if kind == "input_json_delta" else None
        return Chunk(self._add_text(text or "", data), raw, None, calls)

    def _add_to_message(self, raw: dict[str, Any]) -> Chunk:
        delta = raw["delta"]
        fields = {**raw, **delta}  # the usage is a field of the event, not of its delta
        del fields["type"], fields["delta"]
        self._message.add(fields, concatenate=False)
        reason = delta.get("stop_reason")
        self._stopped = self._stopped or reason is not None
        return Chunk("", raw, reason)


def _with_parsed_input(block: dict[str, Any]) -> dict[str, Any]:
    """Return a merged content block as it is in an answer without a stream. Changes ``block``.

    ``partial_json`` becomes ``input``: parsed, or a str if it is not valid JSON.
    """
    text = block.pop("partial_json", None)
    if text:
        try:
            block["input"] = json.loads(text)
        except (ValueError, RecursionError):
            block["input"] = text  # incomplete because of max_tokens, or invalid JSON from the model
    return block


def _tool_call_of(block: dict[str, Any]) -> ToolCall:
    arguments = block.get("input")
    if not isinstance(arguments, str):  # a str: invalid JSON of a stream
        arguments = json.dumps(arguments or {}, ensure_ascii=False)
    return ToolCall(block.get("id") or "", block.get("name") or "", repair_surrogates(arguments))
