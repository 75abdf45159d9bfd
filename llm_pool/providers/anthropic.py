"""Anthropic's Messages API: https://docs.anthropic.com/en/api/messages"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_pool.completions import Completion, Timing
from llm_pool.exceptions import InvalidParameter
from llm_pool.providers.anthropic_shapes import completion_of
from llm_pool.providers.anthropic_stream import AnthropicStreamReader
from llm_pool.providers.base import CompletionRequest, Head, Messages, Provider
from llm_pool.providers.requests import as_messages, check_params
from llm_pool.providers.whole import read_completion

__all__ = ["Anthropic"]

API_VERSION = "2023-06-01"


class Anthropic(Provider):
    """``POST /v1/messages``. ``max_tokens`` comes with every call, and the system prompt as ``system``."""

    name = "anthropic"
    base_url = "https://api.anthropic.com"
    base_url_env = "ANTHROPIC_BASE_URL"
    api_key_env = "ANTHROPIC_API_KEY"
    completion_path = "/v1/messages"
    models_path = "/v1/models"
    key_headers = frozenset({"x-api-key", "authorization"})
    request_id_headers = ("request-id", "x-request-id")

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
            raise InvalidParameter("max_tokens is missing; Anthropic's API wants it with every call.")
        body: dict[str, Any] = {"model": model} if model is not None else {}
        body["messages"] = as_messages(messages)
        body.update(params)
        if stream:
            body["stream"] = True
        return CompletionRequest(self.completion_path, body)

    def parse_completion(self, head: Head, body: bytes, timing: Timing | None = None) -> Completion:
        """See ``Provider.parse_completion``."""
        found = read_completion(self, head, body, timing, completion_of=completion_of, misfit=_misfit)
        del body  # reports of errors show the variables of their frames, and it may repeat the key
        if isinstance(found, Completion):
            return found
        raise found

    def stream_reader(self, head: Head) -> AnthropicStreamReader:
        """See ``Provider.stream_reader``."""
        return AnthropicStreamReader(self, head)


def _misfit(_raw: Any) -> str:
    return "JSON that is no message"
