"""OpenAI's chat completions: https://platform.openai.com/docs/api-reference/chat

Many other servers offer the same API: vLLM, llama.cpp, Ollama, Azure.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

from llm_pool.exceptions import with_article
from llm_pool.providers import embeddings
from llm_pool.providers.base import CompletionRequest, Head, JSONProvider, Messages
from llm_pool.providers.event_stream import EventStreamReader, parse_index
from llm_pool.providers.json_schema import OPENAI, SchemaRules, UnsupportedSchema, strict
from llm_pool.providers.merging import MergedObject
from llm_pool.providers.requests import as_messages, check_params
from llm_pool.providers.results import Chunk, Completion, Timing, ToolCall, repair_surrogates

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llm_pool.providers.base import EmbeddingInput
    from llm_pool.providers.results import Embeddings
    from llm_pool.providers.sse import Event

__all__ = ["OpenAI", "OpenAIStreamReader"]


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

    def stream_reader(self, head: Head) -> OpenAIStreamReader:
        """See ``Provider.stream_reader``."""
        return OpenAIStreamReader(self, head)

    def completion_from(
        self, raw: Any, request_id: str | None, timing: Timing | None, text: str | None = None
    ) -> Completion:
        """See ``JSONProvider.completion_from``. The text and the tool calls are those of the first choice."""
        choices = raw["choices"]
        choice = next((choice for choice in choices if not choice.get("index")), choices[0])
        message = choice["message"]
        if text is None:
            text = repair_surrogates(text_of(message.get("content")))
        calls = message.get("tool_calls")
        return Completion(
            text=text,
            model=raw.get("model"),
            finish_reason=choice.get("finish_reason") or None,
            tool_calls=tuple(_tool_call_of(call) for call in calls) if calls else (),
            usage=self._usage_from(raw.get("usage")),
            request_id=request_id,
            timing=timing,
            raw=raw,
        )

    def _describe_mismatch(self, raw: Any) -> str:
        if not isinstance(raw, dict):
            return f"{with_article(raw)} instead of an object in its JSON"
        if "choices" not in raw:
            return "no choices in its JSON"
        if not raw["choices"]:
            return "an empty list of choices in its JSON"
        return "choices of an unexpected shape in its JSON"


class OpenAIStreamReader(EventStreamReader):
    """Reads ``data: {...}`` events up to ``data: [DONE]``.

    Some servers leave out ``[DONE]``. A body that ends without ``[DONE]`` is complete too if each choice has
    a finish reason.
    """

    def __init__(self, provider: JSONProvider, head: Head) -> None:
        super().__init__(provider, head)
        self._choices: dict[int, _Choice] = {}
        self._top_level: dict[str, Any] = {}  # the fields of the events; "choices" is replaced at the end

    def _merged_answer(self) -> dict[str, Any]:
        choices = [choice.to_dict() for _, choice in sorted(self._choices.items())]
        raw = {**self._top_level, "object": "chat.completion", "choices": choices}
        raw.setdefault("usage", None)
        return raw

    def _is_end_marker(self, event: Event) -> bool:
        if event.data != "[DONE]":
            return False
        if 0 not in self._choices:
            what = "a stream without its first choice" if self._choices else "a stream without choices"
            raise self._provider.invalid_response(self._head, what, json.dumps(self._top_level))
        return True

    def _is_complete(self) -> bool:
        return 0 in self._choices and all(choice.is_finished for choice in self._choices.values())

    def _chunk_from(self, raw: dict[str, Any], data: str) -> Chunk:
        top_level = self._top_level
        for name, value in raw.items():
            if value or name not in top_level:  # some events repeat a field with an empty value
                top_level[name] = value
        text, reason, calls = "", None, None
        for part in raw.get("choices") or ():  # events with the usage or a filter's results have no choices
            index = part.get("index") or 0
            choice = self._choices.get(index) or self._choice(parse_index(index))
            delta = choice.add(part)
            if choice.index == 0:
                content = delta.get("content") or ""
                text += self._add_text(content if type(content) is str else text_of(content), data)
                reason, calls = part.get("finish_reason") or reason, delta.get("tool_calls") or calls
        return Chunk(text, raw, reason, calls)

    def is_content(self, chunk: Chunk) -> bool:
        """See ``StreamReader.is_content``. Counts every field of every choice but the role."""
        deltas = [part.get("delta") or {} for part in chunk.raw.get("choices") or ()]
        return super().is_content(chunk) or any(
            value for delta in deltas for name, value in delta.items() if name != "role"
        )

    def _choice(self, index: int) -> _Choice:
        return self._choices.setdefault(index, _Choice(index))


_NOT_MERGED = frozenset({"delta", "index"})  # fields of a part that ``_Choice`` does not merge


class _Choice:
    """One choice of a streamed answer, built from its parts.

    ``to_dict`` returns the choice as it is in an answer without a stream.
    """

    __slots__ = ("_call_count", "_fields", "_message", "index")

    def __init__(self, index: int) -> None:
        self.index = index
        self._fields: MergedObject | None = None  # of most choices only the last part has fields
        self._message = MergedObject(role="assistant", content=None)
        self._call_count = 0

    @property
    def is_finished(self) -> bool:
        return self._fields is not None and bool(self._fields.get("finish_reason"))

    def add(self, part: dict[str, Any]) -> dict[str, Any]:
        """Add ``part``, the choice's part of one event. Return the part's delta; {} if there is none."""
        delta: dict[str, Any] = part.get("delta") or {}
        for name, value in part.items():
            if value is not None and name not in _NOT_MERGED:
                if self._fields is None:
                    self._fields = MergedObject()
                self._fields.add({name: value}, concatenate=False)
        if "tool_calls" in delta:
            calls = [self._with_index(call) for call in delta["tool_calls"] or ()]
            self._message.add({**delta, "tool_calls": calls or None})
        else:
            self._message.add(delta)
        return delta

    def to_dict(self) -> dict[str, Any]:
        message = self._message.to_dict()
        if calls := message.get("tool_calls"):
            ordered = sorted(calls, key=lambda call: call["index"])
            message["tool_calls"] = [_without_index(call) for call in ordered]
        fields = self._fields.to_dict() if self._fields is not None else {}
        return {"finish_reason": None, **fields, "index": self.index, "message": message}

    def _with_index(self, call: dict[str, Any]) -> dict[str, Any]:
        """Return ``call``, a part of a tool call, with its "index".

        Servers that send whole calls can leave out the index. Then the first part, and each part with an
        "id", begins a new call, and any other part belongs to the last call.
        """
        index = call.get("index")
        if index is None:
            index = self._call_count if call.get("id") or not self._call_count else self._call_count - 1
        index = parse_index(index)
        self._call_count = max(self._call_count, index + 1)
        return {**call, "index": index}


def _without_index(call: dict[str, Any]) -> dict[str, Any]:
    """Return a merged tool call as it is in an answer without a stream. Changes ``call``.

    The result has no "index", and always an "id" and a "type".
    """
    del call["index"]
    return {"id": None, "type": "custom" if "custom" in call else "function", **call}


def text_of(content: Any) -> str:
    """Return the text of a message's content, which is a string, None or a list of parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or "" for part in content)


def _arguments_of(part: dict[str, Any]) -> str:
    """Return a tool call's arguments as text: JSON, or the free text of a "custom" tool.

    ``part`` is the call's field "function" or "custom". The API defines the arguments as a string of JSON;
    some servers send an object.
    """
    arguments = part.get("arguments", part.get("input"))
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _tool_call_of(call: dict[str, Any]) -> ToolCall:
    part = call.get("function") or call.get("custom") or {}
    return ToolCall(call.get("id") or "", part.get("name") or "", repair_surrogates(_arguments_of(part)))
