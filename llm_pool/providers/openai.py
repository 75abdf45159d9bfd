"""OpenAI's chat completions, and the many servers that speak the same: vLLM, llama.cpp, Ollama, Azure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llm_pool.completions import Completion, Timing
from llm_pool.providers.base import CompletionRequest, Head, Messages, Provider
from llm_pool.providers.openai_shapes import completion_of
from llm_pool.providers.openai_stream import OpenAIStreamReader
from llm_pool.providers.requests import as_messages, check_params
from llm_pool.providers.whole import read_completion
from llm_pool.wording import a

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["OpenAI"]


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
        return f"{a(raw)} for an object in its JSON"
    if "choices" not in raw:
        return "no choices in its JSON"
    if not raw["choices"]:
        return "an empty list of choices in its JSON"
    return "choices of another shape in its JSON"
