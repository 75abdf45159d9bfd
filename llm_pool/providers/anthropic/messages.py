"""Anthropic's Messages API: https://docs.anthropic.com/en/api/messages"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llm_pool.exceptions import InvalidParameter
from llm_pool.providers.anthropic.blocks import choices_in, text_of, tool_calls_of
from llm_pool.providers.anthropic.stream import AnthropicStreamReader
from llm_pool.providers.base import CompletionRequest, Messages
from llm_pool.providers.json_provider import JSONProvider
from llm_pool.providers.json_schema import ANTHROPIC, UnsupportedSchema, strict
from llm_pool.providers.requests import as_messages, check_params
from llm_pool.providers.results import Completion, Timing
from llm_pool.providers.texts import text_or_none

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
    answer_name = "content"

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
        self, raw: Any, head: Head, timing: Timing | None, text: str | None = None
    ) -> Completion:
        """See ``JSONProvider.completion_from``."""
        blocks = raw["content"]
        return Completion(
            text_of(blocks) if text is None else text,
            model=text_or_none(raw.get("model")),
            finish_reason=text_or_none(raw.get("stop_reason")),
            tool_calls=tool_calls_of(blocks),
            usage=self.usage_from(raw.get("usage")),
            request_id=self.request_id(head),
            timing=timing,
            raw=raw,
            headers=head.headers,
            choices_in=choices_in,
        )

    def _describe_mismatch(self, _raw: Any) -> str:
        return "JSON that is not a message"
