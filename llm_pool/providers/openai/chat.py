"""OpenAI's chat completions: https://platform.openai.com/docs/api-reference/chat

Many other servers offer the same API: vLLM, llama.cpp, Ollama, Azure.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llm_pool.exceptions import with_article
from llm_pool.providers.base import CompletionRequest, JSONProvider, Messages, count_in
from llm_pool.providers.openai.message import choice_of, message_of, text_of, usage_in
from llm_pool.providers.openai.stream import OpenAIStreamReader
from llm_pool.providers.openai.tool_calls import as_list
from llm_pool.providers.requests import as_messages, check_params
from llm_pool.providers.results import Completion, Timing, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm_pool.providers.event_stream import EventStreamReader
    from llm_pool.providers.head import Head

__all__ = ["OpenAI"]


class OpenAI(JSONProvider):
    """OpenAI's chat completions: ``POST /chat/completions``. Many other servers offer the same API."""

    name = "openai"
    base_url = "https://api.openai.com/v1"
    base_url_env = "OPENAI_BASE_URL"
    api_key_env = "OPENAI_API_KEY"
    completion_path = "/chat/completions"
    usage_names = ("prompt_tokens", "completion_tokens")

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

    def stream_reader(self, head: Head) -> EventStreamReader:
        """See ``Provider.stream_reader``."""
        return OpenAIStreamReader(self, head)

    def completion_from(
        self, raw: Any, head: Head, timing: Timing | None, text: str | None = None
    ) -> Completion:
        """See ``JSONProvider.completion_from``. The completion is the first choice."""
        choices = _in_turns(as_list(raw["choices"]), head.choices)
        if not choices:
            raise IndexError("there is no choice")
        first, *others = (
            choice_of(raw, choice, index, None if index else text) for index, choice in enumerate(choices)
        )
        return Completion(
            text=first.text,
            model=raw.get("model"),
            finish_reason=first.finish_reason,
            tool_calls=first.tool_calls,
            usage=self.usage_from(usage_in(raw)),
            request_id=self.request_id(head),
            timing=timing,
            raw=raw,
            reasoning=first.reasoning,
            refusal=first.refusal,
            citations=first.citations,
            message=first.message,
            logprobs=first.logprobs,
            audio=first.audio,
            headers=head.headers,
            more_choices=tuple(others),
        )

    def usage_from(self, raw: Any) -> Usage | None:
        """Return the usage in ``raw``, with the tokens of the cache and of the reasoning.

        https://platform.openai.com/docs/api-reference/chat/object#chat/object-usage; DeepSeek, Moonshot and
        Perplexity put them beside the others.
        """
        usage = super().usage_from(raw)
        if usage is None:
            return None
        details = ("prompt_tokens_details", "cached_tokens")
        cached = count_in(raw, details, "prompt_cache_hit_tokens", "cached_tokens")
        reasoning = count_in(raw, ("completion_tokens_details", "reasoning_tokens"), "reasoning_tokens")
        if not (cached or reasoning):
            return usage
        return replace(usage, cached_tokens=cached, reasoning_tokens=reasoning)

    def _describe_mismatch(self, raw: Any) -> str:
        if not isinstance(raw, dict):
            return f"{with_article(raw)} instead of an object in its JSON"
        if "choices" not in raw:
            return "no choices in its JSON"
        if not raw["choices"]:
            return "an empty list of choices in its JSON"
        return "choices of an unexpected shape in its JSON"


def _in_turns(choices: list[dict[str, Any]], expected: int) -> list[dict[str, Any]]:
    """Return the choices in the order of their indexes. ``expected`` is how many the request asked for.

    Some servers put the text and the tool calls of one turn into choices of their own: if one choice was
    asked for, and at most one of them has text, they become one choice.
    """
    ordered = sorted(choices, key=lambda choice: bool(choice.get("index"))) if len(choices) > 1 else choices
    if expected > 1 or len(ordered) < 2:
        return ordered
    messages = [message_of(choice) for choice in ordered]
    calls = [call for message in messages for call in as_list(message.get("tool_calls"))]
    texts = [message for message in messages if text_of(message.get("content"))]
    if not calls or len(texts) > 1:
        return ordered
    message = {**messages[0], **(texts[0] if texts else {}), "tool_calls": calls}
    calling = next(choice for choice in ordered if message_of(choice).get("tool_calls"))
    return [{**ordered[0], "finish_reason": calling.get("finish_reason"), "message": message}]
