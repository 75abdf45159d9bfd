"""Anthropic's Messages API: https://docs.anthropic.com/en/api/messages"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llm_pool.exceptions import InvalidParameter
from llm_pool.providers.anthropic.blocks import (
    citations_of,
    message_of,
    reasoning_of,
    refusal_of,
    text_of,
    tool_call_of,
)
from llm_pool.providers.anthropic.stream import AnthropicStreamReader
from llm_pool.providers.base import CompletionRequest, JSONProvider, Messages, count_in
from llm_pool.providers.requests import as_messages, check_params
from llm_pool.providers.results import Completion, Timing, Usage, text_or_empty

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm_pool.providers.head import Head

__all__ = ["Anthropic"]

API_VERSION = "2023-06-01"


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

    def stream_reader(self, head: Head) -> AnthropicStreamReader:
        """See ``Provider.stream_reader``."""
        return AnthropicStreamReader(self, head)

    def completion_from(
        self, raw: Any, head: Head, timing: Timing | None, text: str | None = None
    ) -> Completion:
        """See ``JSONProvider.completion_from``."""
        blocks = raw["content"]
        return Completion(
            text=text_of(blocks) if text is None else text,
            model=text_or_empty(raw.get("model")) or None,
            finish_reason=text_or_empty(raw.get("stop_reason")) or None,
            tool_calls=tuple(tool_call_of(block) for block in blocks if block["type"] == "tool_use"),
            usage=self.usage_from(raw.get("usage")),
            request_id=self.request_id(head),
            timing=timing,
            raw=raw,
            reasoning=reasoning_of(blocks),
            refusal=refusal_of(raw),
            citations=citations_of(blocks),
            message=message_of(blocks),
            headers=head.headers,
        )

    def usage_from(self, raw: Any) -> Usage | None:
        """Return the usage in ``raw``. What was read from the cache is not in ``input_tokens``:

        https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching#tracking-cache-performance
        """
        usage = super().usage_from(raw)
        if usage is None:
            return None
        cached = count_in(raw, "cache_read_input_tokens")
        reasoning = count_in(raw, ("output_tokens_details", "thinking_tokens"))
        if not (cached or reasoning):
            return usage
        return replace(usage, cached_tokens=cached, reasoning_tokens=reasoning)

    def _describe_mismatch(self, _raw: Any) -> str:
        return "JSON that is not a message"
