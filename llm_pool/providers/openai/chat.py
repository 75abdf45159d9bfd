"""OpenAI's chat completions: https://platform.openai.com/docs/api-reference/chat

Many other servers offer the same API: vLLM, llama.cpp, Ollama, Azure.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from llm_pool.exceptions import with_article
from llm_pool.providers import embeddings
from llm_pool.providers.base import CompletionRequest, Messages
from llm_pool.providers.json_provider import JSONProvider
from llm_pool.providers.json_schema import OPENAI, SchemaRules, UnsupportedSchema, strict
from llm_pool.providers.openai.message import choices_in, in_turns, message_of, text_of, usage_in
from llm_pool.providers.openai.stream import OpenAIStreamReader
from llm_pool.providers.openai.tool_calls import as_list, tool_calls_of
from llm_pool.providers.requests import as_messages, check_params
from llm_pool.providers.results import Completion, Timing
from llm_pool.providers.texts import repair_surrogates, text_or_none

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llm_pool.providers.base import EmbeddingInput
    from llm_pool.providers.event_stream import EventStreamReader
    from llm_pool.providers.head import Head
    from llm_pool.providers.results import Embeddings

__all__ = ["OpenAI"]


class OpenAI(JSONProvider):
    """OpenAI's chat completions: ``POST /chat/completions``. Many other servers offer the same API."""

    name = "openai"
    base_url = "https://api.openai.com/v1"
    base_url_env = "OPENAI_BASE_URL"
    api_key_env = "OPENAI_API_KEY"
    completion_path = "/chat/completions"
    usage_names = ("prompt_tokens", "completion_tokens")
    max_embedding_inputs = 2048
    max_embedding_tokens = 300_000
    schema_rules: ClassVar[SchemaRules] = OPENAI
    answer_name = "choices"

    def headers(self, api_key: str | None) -> dict[str, str]:
        """See ``Provider.headers``."""
        headers = {"content-type": "application/json", "accept": "application/json"}
        if api_key:
            headers["authorization"] = f"Bearer {api_key}"
        return headers

    def completion_request(
        self, messages: Messages, model: str | None, params: Mapping[str, Any], *, stream: bool
    ) -> CompletionRequest:
        """See ``Provider.completion_request``.

        The request of a stream asks for the usage, unless ``params`` contains ``stream_options``. With
        ``stream_options=None`` the request has no ``stream_options``.
        """
        check_params(params, stream)
        body: dict[str, Any] = {"model": model} if model is not None else {}
        body["messages"] = as_messages(messages)
        body.update(params)
        if stream:
            body["stream"] = True
            body.setdefault("stream_options", {"include_usage": True})
            if body["stream_options"] is None:
                del body["stream_options"]  # some servers refuse unknown fields
        return CompletionRequest(self.completion_path, body)

    def embedding_request(
        self, inputs: Sequence[EmbeddingInput], model: str | None, params: Mapping[str, Any]
    ) -> CompletionRequest:
        """See ``Provider.embedding_request``."""
        return CompletionRequest(embeddings.PATH, embeddings.request_body(inputs, model, params))

    def parse_embeddings(
        self, head: Head, body: bytes, count: int, timing: Timing | None = None
    ) -> Embeddings:
        """See ``Provider.parse_embeddings``."""
        return embeddings.parse(self, head, body, count, timing)

    def output_params(self, name: str, schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """See ``Provider.output_params``."""
        return {"response_format": {"type": "json_schema", "json_schema": self._json_schema(name, schema)}}

    def _json_schema(self, name: str, schema: dict[str, Any]) -> dict[str, Any]:
        """Return the schema with its name; strict, unless it has parts that strict mode does not accept."""
        try:
            return {"name": name, "schema": strict(schema, self.schema_rules, name), "strict": True}
        except UnsupportedSchema:
            return {"name": name, "schema": schema, "strict": False}

    def tool_definition(self, name: str, description: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """See ``Provider.tool_definition``."""
        function = {"name": name, "description": description, "parameters": parameters}
        return {"type": "function", "function": function}

    def stream_reader(self, head: Head) -> EventStreamReader:
        """See ``Provider.stream_reader``."""
        return OpenAIStreamReader(self, head)

    def completion_from(
        self, raw: Any, head: Head, timing: Timing | None, text: str | None = None
    ) -> Completion:
        """See ``JSONProvider.completion_from``. The completion is the first choice."""
        choices = as_list(raw["choices"])
        if len(choices) > 1:
            choices = in_turns(choices, head.choices)
        choice = choices[0]
        message = message_of(choice)
        if text is None:
            content = message.get("content")
            text = repair_surrogates(content if type(content) is str else text_of(content))
        completion = Completion(
            text,
            model=text_or_none(raw.get("model")),
            finish_reason=text_or_none(choice.get("finish_reason")),
            tool_calls=tool_calls_of(message),
            usage=self.usage_from(usage_in(raw)),
            request_id=self.request_id(head),
            timing=timing,
            raw=raw,
            headers=head.headers,
            choices_in=choices_in if head.choices == 1 else partial(choices_in, expected=head.choices),
        )
        if len(choices) > 1:
            completion.choices  # noqa: B018  raises an error if one does not have the API's format
        return completion

    def _describe_mismatch(self, raw: Any) -> str:
        if not isinstance(raw, dict):
            return f"{with_article(raw)} instead of an object in its JSON"
        if "choices" not in raw:
            return "no choices in its JSON"
        if not raw["choices"]:
            return "an empty list of choices in its JSON"
        return "choices of an unexpected shape in its JSON"
