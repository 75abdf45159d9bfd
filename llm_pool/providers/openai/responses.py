"""OpenAI's Responses API: https://platform.openai.com/docs/api-reference/responses

Other servers offer it too: Azure, vLLM, llama.cpp, LM Studio, Ollama, OpenRouter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llm_pool.exceptions import InvalidParameter, with_article
from llm_pool.providers import requests
from llm_pool.providers.base import CompletionRequest, Messages
from llm_pool.providers.openai.chat import OpenAI
from llm_pool.providers.openai.responses_items import (
    FAILED,
    choices_in,
    failure_of,
    finish_reason_of,
    input_items,
    text_of,
    tool_calls_of,
)
from llm_pool.providers.openai.responses_stream import ResponsesStreamReader
from llm_pool.providers.results import Completion, Timing
from llm_pool.providers.texts import text_or_none

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm_pool.exceptions import APIError, LLMPoolError
    from llm_pool.providers.head import Head

__all__ = ["OpenAIResponses"]

# Parameters of chat completions that some servers of this API ignore, and what stands for them here.
_OF_CHAT = {
    "max_completion_tokens": "max_output_tokens=...",
    "max_tokens": "max_output_tokens=...",
    "reasoning_effort": 'reasoning={"effort": ...}',
    "response_format": 'text={"format": ...}',
}


class OpenAIResponses(OpenAI):
    """OpenAI's Responses API: ``POST /responses``. The rest, such as the key, is that of ``OpenAI``.

    ``messages`` become the parameter ``input``: messages with "role" and "content", and items with "type",
    such as ``{"type": "function_call_output", "call_id": ..., "output": ...}``. A ``Completion.message``
    stands for all items of its answer.

    ``Completion.finish_reason`` is the response's status, such as "completed", also if the model calls tools;
    of an incomplete response it is the reason: "max_output_tokens", "content_filter".
    ``Completion.logprobs`` is a list with those of all texts.
    """

    name = "openai-responses"
    completion_path = "/responses"
    usage_names = ("input_tokens", "output_tokens")
    answer_name = "output"

    def completion_request(
        self, messages: Messages, model: str | None, params: Mapping[str, Any], *, stream: bool
    ) -> CompletionRequest:
        """See ``Provider.completion_request``."""
        requests.check_params(params, stream)
        if "input" in params:
            raise InvalidParameter("input is given twice; give it as the first argument only.")
        for name, instead in _OF_CHAT.items():
            if name in params:
                raise InvalidParameter(
                    f"{name} is a parameter of chat completions; the Responses API has {instead} instead."
                )
        body: dict[str, Any] = {"model": model} if model is not None else {}
        body["input"] = input_items(requests.as_messages(messages, typed=True))
        body.update(params)
        if stream:
            body["stream"] = True
        return CompletionRequest(self.completion_path, body)

    def encode(self, body: Mapping[str, Any]) -> bytes:
        """See ``Provider.encode``."""
        return requests.encode(body, messages="input")

    def output_params(self, name: str, schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """See ``Provider.output_params``."""
        return {"text": {"format": {"type": "json_schema", **self._json_schema(name, schema)}}}

    def tool_definition(self, name: str, description: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """See ``Provider.tool_definition``.

        By default this API makes functions strict, and each of their parameters required:
        https://platform.openai.com/docs/guides/function-calling#strict-mode
        """
        function = {"name": name, "description": description, "parameters": parameters}
        return {"type": "function", **function, "strict": False}

    def stream_reader(self, head: Head) -> ResponsesStreamReader:
        """See ``Provider.stream_reader``."""
        return ResponsesStreamReader(self, head)

    def completion_from(
        self, raw: Any, head: Head, timing: Timing | None, text: str | None = None
    ) -> Completion:
        """See ``JSONProvider.completion_from``."""
        items = raw["output"] or []
        whole = text_of(items)
        return Completion(
            text=whole if text is None else text,
            model=text_or_none(raw.get("model")),
            finish_reason=finish_reason_of(raw),
            tool_calls=tool_calls_of(items),
            usage=self.usage_from(raw.get("usage")),
            request_id=self.request_id(head),
            timing=timing,
            raw=raw,
            headers=head.headers,
            choices_in=choices_in,
        )

    def error_from_object(self, head: Head, value: Any, partial: str = "") -> APIError:
        """See ``Provider.error_from_object``. Of a whole response only its error counts."""
        if isinstance(value, dict):
            value = _without_response(value)
        return super().error_from_object(head, value, partial)

    def _completion_or_error(
        self, head: Head, body: bytes, timing: Timing | None
    ) -> Completion | LLMPoolError:
        result = super()._completion_or_error(head, body, timing)
        if isinstance(result, Completion) and result.finish_reason in FAILED:
            return self.error_from_object(head, failure_of(result.raw))
        return result

    def _describe_mismatch(self, raw: Any) -> str:
        if not isinstance(raw, dict):
            return f"{with_article(raw)} instead of an object in its JSON"
        return "no output in its JSON" if "output" not in raw else "output of an unexpected shape in its JSON"


def _without_response(value: dict[str, Any]) -> Any:
    """Return ``value``, an answer or an event with an error, without the rest of its response."""
    if "output" in value or value.get("object") == "response":
        return failure_of(value)
    if not isinstance(response := value.get("response"), dict):
        return value
    rest = {name: field for name, field in value.items() if name != "response"}
    return rest if rest.get("error") or rest.get("message") else failure_of(response)
