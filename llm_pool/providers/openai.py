"""OpenAI's chat completions, and the many servers that speak the same: vLLM, llama.cpp, Ollama, Azure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llm_pool.exceptions import with_article
from llm_pool.providers.base import CompletionRequest, Head, Messages, Provider, read_completion, usage_of
from llm_pool.providers.errors import mend
from llm_pool.providers.event_stream import EventStreamReader, place
from llm_pool.providers.merging import Merged
from llm_pool.providers.requests import as_messages, check_params
from llm_pool.providers.results import Chunk, Completion, Timing, ToolCall

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm_pool.providers.sse import Event

__all__ = ["OpenAI", "OpenAIStreamReader"]


class OpenAI(Provider):
    """``POST /chat/completions``."""

    name = "openai"
    base_url = "https://api.openai.com/v1"
    base_url_env = "OPENAI_BASE_URL"
    api_key_env = "OPENAI_API_KEY"
    completion_path = "/chat/completions"

    def headers(self, api_key: str | None) -> dict[str, str]:
        """See ``Provider.headers``."""
        headers = {"content-type": "application/json", "accept": "application/json"}
        if api_key:
            headers["authorization"] = f"Bearer {api_key}"
        return headers

    def completion_request(
        self, messages: Messages, model: str | None, params: Mapping[str, Any], *, stream: bool
    ) -> CompletionRequest:
        """See ``Provider.completion_request``. A stream asks for its usage, unless it is told how."""
        check_params(params, stream)
        body: dict[str, Any] = {"model": model} if model is not None else {}
        body["messages"] = as_messages(messages)
        body.update(params)
        if stream:
            body["stream"] = True
            body.setdefault("stream_options", {"include_usage": True})
            if body["stream_options"] is None:
                del body["stream_options"]  # for servers that refuse a field that they do not know
        return CompletionRequest(self.completion_path, body)

    def parse_completion(self, head: Head, body: bytes, timing: Timing | None = None) -> Completion:
        """See ``Provider.parse_completion``."""
        found = read_completion(self, head, body, timing, completion_of=completion_of, misfit=_misfit)
        del body  # reports of errors show the variables of their frames, and it may repeat the key
        if isinstance(found, Completion):
            return found
        raise found

    def stream_reader(self, head: Head) -> OpenAIStreamReader:
        """See ``Provider.stream_reader``."""
        return OpenAIStreamReader(self, head)


def _misfit(raw: Any) -> str:
    if not isinstance(raw, dict):
        return f"{with_article(raw)} for an object in its JSON"
    if "choices" not in raw:
        return "no choices in its JSON"
    if not raw["choices"]:
        return "an empty list of choices in its JSON"
    return "choices of another shape in its JSON"


class OpenAIStreamReader(EventStreamReader):
    """Reads ``data: {...}`` events up to ``data: [DONE]``.

    There are servers that leave the latter out: finish reasons and then a clean end of the body will do.
    """

    def __init__(self, provider: Provider, head: Head) -> None:
        super().__init__(provider, head)
        self._choices: dict[int, _Choice] = {}
        self._beside: dict[str, Any] = {}  # what the events tell beside their choices

    def _whole(self, request_id: str | None, timing: Timing | None) -> Completion:
        choices = [choice.whole() for _, choice in sorted(self._choices.items())]
        raw = {**self._beside, "object": "chat.completion", "choices": choices}
        raw.setdefault("usage", None)
        return completion_of(raw, request_id, timing, self.partial)

    def _is_last(self, event: Event) -> bool:
        if event.data != "[DONE]":
            return False
        if 0 not in self._choices:
            what = "a stream without its first choice" if self._choices else "a stream without choices"
            raise self._provider.invalid_response(self._head, what, json.dumps(self._beside))
        return True

    def _is_complete(self) -> bool:
        return 0 in self._choices and all(choice.is_finished for choice in self._choices.values())

    def _chunk(self, raw: dict[str, Any], data: str) -> Chunk:
        beside = self._beside
        for name, value in raw.items():
            if value or name not in beside:  # the last word stands, and some events know less
                beside[name] = value
        text, reason, calls = "", None, None
        for part in raw.get("choices") or ():  # none with the usage at the end, or a filter's findings
            index = part.get("index") or 0
            choice = self._choices.get(index) or self._choice(place(index))
            delta = choice.add(part)
            if choice.index == 0:
                content = delta.get("content") or ""
                text += self._keep(content if type(content) is str else text_of(content), data)
                reason, calls = part.get("finish_reason") or reason, delta.get("tool_calls") or calls
        return Chunk(text, raw, reason, calls)

    def _choice(self, index: int) -> _Choice:
        return self._choices.setdefault(index, _Choice(index))


_PLACED = frozenset({"delta", "index"})  # fields of a choice's part that are no fields of the choice


class _Choice:
    """One of the choices, put together from its parts as a call without a stream would have brought it."""

    __slots__ = ("_calls", "_fields", "_message", "index")

    def __init__(self, index: int) -> None:
        self.index = index
        self._fields: Merged | None = None  # most have one, with their last part
        self._message = Merged(role="assistant", content=None)
        self._calls = 0

    @property
    def is_finished(self) -> bool:
        return self._fields is not None and bool(self._fields.get("finish_reason"))

    def add(self, part: dict[str, Any]) -> dict[str, Any]:
        """Add a part, and return its delta."""
        delta: dict[str, Any] = part.get("delta") or {}
        for name, value in part.items():
            if value is not None and name not in _PLACED:
                if self._fields is None:
                    self._fields = Merged()
                self._fields.add({name: value}, growing=False)
        if "tool_calls" in delta:
            calls = [self._counted(call) for call in delta["tool_calls"] or ()]
            self._message.add({**delta, "tool_calls": calls or None})
        else:
            self._message.add(delta)
        return delta

    def whole(self) -> dict[str, Any]:
        message = self._message.whole()
        if calls := message.get("tool_calls"):
            message["tool_calls"] = [_call(call) for call in sorted(calls, key=lambda call: call["index"])]
        fields = self._fields.whole() if self._fields is not None else {}
        return {"finish_reason": None, **fields, "index": self.index, "message": message}

    def _counted(self, call: dict[str, Any]) -> dict[str, Any]:
        """A part of a tool call with its index: some servers send whole calls, and do not count them."""
        index = call.get("index")
        if index is None:
            index = self._calls if call.get("id") or not self._calls else self._calls - 1
        index = place(index)
        self._calls = max(self._calls, index + 1)
        return {**call, "index": index}


def _call(call: dict[str, Any]) -> dict[str, Any]:
    del call["index"]  # it counted the parts only
    return {"id": None, "type": "custom" if "custom" in call else "function", **call}


def completion_of(
    raw: dict[str, Any], request_id: str | None, timing: Timing | None, text: str | None = None
) -> Completion:
    """A chat completion; its first choice is read. Raises what reading another shape raises.

    ``text`` is that choice's, where it is known already.
    """
    choices = raw["choices"]
    choice = next((choice for choice in choices if not choice.get("index")), choices[0])
    message = choice["message"]
    if text is None:
        text = mend(text_of(message.get("content")))
    calls = message.get("tool_calls")
    return Completion(
        text,
        raw.get("model"),
        choice.get("finish_reason") or None,
        tuple(_tool_call_of(call) for call in calls) if calls else (),
        usage_of(raw.get("usage"), "prompt_tokens", "completion_tokens"),
        request_id,
        timing,
        raw,
    )


def text_of(content: Any) -> str:
    """The text of a message's content: a string, nothing, or a list of parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or "" for part in content)


def _arguments_of(part: dict[str, Any]) -> str:
    """A tool call's arguments as the JSON text they are meant to be; "custom" tools take free text."""
    arguments = part.get("arguments", part.get("input"))
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _tool_call_of(call: dict[str, Any]) -> ToolCall:
    part = call.get("function") or call.get("custom") or {}
    return ToolCall(call.get("id") or "", part.get("name") or "", mend(_arguments_of(part)))
