"""Quirks of errors: in a stream (``fail_in_stream``) and with a status (``fail``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from testbed.provider.api import as_json
from testbed.provider.quirks.registry import CHAT, quirk
from testbed.provider.quirks.shapes import DONE, objects

if TYPE_CHECKING:
    from collections.abc import Callable

    from testbed.provider.api import APIRequest, Event


@quirk(CHAT, stream=True)
def error_field(events: list[Event], request: APIRequest) -> list[Event]:
    """The error in a field ``error:`` instead of ``data:``, then ``[DONE]`` (ggml-org/llama.cpp#16109)."""
    return [*_changed(events, lambda event: b"error: " + as_json(event["error"]) + b"\n\n"), DONE]


@quirk()
def error_unframed(events: list[Event], request: APIRequest) -> list[Event]:
    """The error as JSON without ``data:`` between the events (lemonade-sdk/lemonade#2826)."""
    return _changed(events, as_json)


@quirk()
def error_named(events: list[Event], request: APIRequest) -> list[Event]:
    """The error with a line ``event: error``, in OpenAI's streams too."""
    return _changed(events, lambda event: b"event: error\ndata: " + as_json(event) + b"\n\n")


@quirk(stream=True)
def error_then_done(events: list[Event], request: APIRequest) -> list[Event]:
    """``[DONE]`` after the error."""
    return [*events, DONE]


@quirk(CHAT, stream=True)
def error_beside_choice(events: list[Event], request: APIRequest) -> list[Event]:
    """The error beside a choice with the finish reason "error" (OpenRouter's page on errors)."""
    choice = {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}
    return _changed(events, lambda event: {"id": "gen-1", "choices": [choice], **event})


@quirk(CHAT, stream=True)
def error_in_choice(events: list[Event], request: APIRequest) -> list[Event]:
    """The error inside a choice, beside its finish reason "error" (OpenRouter, before 2025)."""
    choice = {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}
    return _changed(events, lambda event: {"id": "gen-1", "choices": [{**choice, "error": event["error"]}]})


@quirk(CHAT, stream=True)
def error_with_empty_choices(events: list[Event], request: APIRequest) -> list[Event]:
    """The error beside an empty list of choices (dcdpr/jp#978)."""
    return _changed(events, lambda event: {"id": "gen-1", "choices": [], **event})


@quirk()
def error_as_list(events: list[Event], request: APIRequest) -> list[Event]:
    """The error in a list of one (Gemini: FuzzAnything/PromptFuzz#42)."""
    return _changed(events, lambda event: [event])


@quirk()
def error_as_string(events: list[Event], request: APIRequest) -> list[Event]:
    """``{"error": "the sentence"}`` (Ollama)."""
    return _changed(events, lambda event: {"error": event["error"]["message"]})


@quirk()
def error_as_detail(events: list[Event], request: APIRequest) -> list[Event]:
    """``{"detail": "the sentence"}`` (FastAPI, and so vLLM's and many gateways')."""
    return _changed(events, lambda event: {"detail": event["error"]["message"]})


@quirk()
def error_as_google_has_it(events: list[Event], request: APIRequest) -> list[Event]:
    """Google's fields; 39.5 seconds to wait, only in its RetryInfo (AtomicBot-ai/atomic-agent#106)."""
    wait = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "39.5s"}
    fields = {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": [wait]}
    return _changed(events, lambda event: {"error": {"message": event["error"]["message"], **fields}})


@quirk()
def wait_in_message(events: list[Event], request: APIRequest) -> list[Event]:
    """The seconds to wait only in the sentence: "Please try again in 20s." (OpenAI)."""
    for event in objects(events):
        if "error" in event:
            event["error"]["message"] += " Please try again in 20s."
    return events


def _changed(events: list[Event], change: Callable[[dict[str, Any]], Event]) -> list[Event]:
    return [change(event) if isinstance(event, dict) and "error" in event else event for event in events]
