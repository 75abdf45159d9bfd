"""Reads a choice of a chat completion: whole, or the delta of one event of a stream.

The fields are those of https://platform.openai.com/docs/api-reference/chat/object, and those that compatible
servers add: docs/dialects.md names them. A field of the wrong type that is not needed is read as if it were
not there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llm_pool.providers.openai.tool_calls import as_list, tool_calls_of
from llm_pool.providers.results import Choice, Citation
from llm_pool.providers.texts import repair_surrogates, text_or_empty, text_or_none

__all__ = [
    "choices_in",
    "citations_of",
    "in_turns",
    "message_of",
    "reasoning_of",
    "refusal_of",
    "text_of",
    "usage_in",
]

# The names of the reasoning, in the order in which they are looked up: some servers send the same text twice.
_REASONING = (
    "reasoning_content",
    "reasoning",
    "reasoning_text",
    "thinking",
    "thinking_blocks",
    "reasoning_details",
)
_REASONING_PARTS = frozenset({"thinking", "reasoning", "redacted_thinking"})
_TEXTS = (
    "thinking",
    "reasoning",
    "text",
    "summary",
    "content",
)  # the names of the text in a part of a reasoning


def choices_in(raw: dict[str, Any], expected: int = 1) -> tuple[Choice, ...]:
    """Return the choices of a whole answer. ``expected`` is how many the request asked for.

    Raises one of ``SHAPE_ERRORS`` if a choice does not have the API's format.
    """
    choices = as_list(raw["choices"])
    if len(choices) > 1:
        choices = in_turns(choices, expected)
    return tuple(_choice_of(raw, choice, index) for index, choice in enumerate(choices))


def in_turns(choices: list[dict[str, Any]], expected: int) -> list[dict[str, Any]]:
    """Return two or more choices in the order of their indexes. ``expected``: how many were asked for.

    Some servers put the text and the tool calls of one turn into choices of their own: if one choice was
    asked for, and at most one of them has text, they become one choice.
    """
    ordered = sorted(choices, key=lambda choice: bool(choice.get("index")))
    if expected > 1:
        return ordered
    messages = [message_of(choice) for choice in ordered]
    calls = [call for message in messages for call in as_list(message.get("tool_calls"))]
    texts = [message for message in messages if text_of(message.get("content"))]
    if not calls or len(texts) > 1:
        return ordered
    message = {**messages[0], **(texts[0] if texts else {}), "tool_calls": calls}
    calling = next(choice for choice in ordered if message_of(choice).get("tool_calls"))
    return [{**ordered[0], "finish_reason": calling.get("finish_reason"), "message": message}]


def _choice_of(raw: dict[str, Any], choice: dict[str, Any], index: int) -> Choice:
    message = message_of(choice)
    audio = message.get("audio") or None
    return Choice(
        index=index,
        text=repair_surrogates(text_of(message.get("content"))),
        finish_reason=text_or_none(choice.get("finish_reason")),
        tool_calls=tool_calls_of(message),
        reasoning=repair_surrogates(reasoning_of(message)),
        refusal=repair_surrogates(refusal_of(message)),
        citations=citations_of(raw, message),
        message=_to_send(message),
        logprobs=choice.get("logprobs"),
        audio=audio if isinstance(audio, dict) else None,
    )


def message_of(choice: dict[str, Any]) -> dict[str, Any]:
    """Return the message of a whole choice; {} if a filter has stopped the answer before its first word.

    Raises KeyError if there is neither a message nor a finish reason.
    """
    message = choice.get("message") or choice.get("delta")
    if message is None and isinstance(choice.get("text"), str):
        return {"role": "assistant", "content": choice["text"]}
    if message is None and not choice.get("finish_reason"):
        raise KeyError("message")
    return message or {}


def text_of(content: Any) -> str:
    """Return the text of a message's content, which is a string, None or a list of parts.

    Parts with reasoning are left out.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or "" for part in content if part.get("type") not in _REASONING_PARTS)


def reasoning_of(message: dict[str, Any]) -> str:
    """Return the reasoning in a message or a delta; "" if there is none."""
    for name in _REASONING:
        if (value := message.get(name)) and (text := "".join(_texts_in(value))):
            return text
    content = message.get("content")
    if isinstance(content, list):
        return "".join(_texts_in([part for part in content if part.get("type") in _REASONING_PARTS]))
    return ""


def _texts_in(value: Any) -> Iterator[str]:
    """Yield the texts in a reasoning, which is a string, an object with a text, or a list of these."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts_in(item)
    elif isinstance(value, dict):
        yield from _texts_in(next((value[name] for name in _TEXTS if value.get(name)), None))


def refusal_of(message: dict[str, Any]) -> str:
    """Return the refusal in a message or a delta; "" if there is none."""
    if refusal := text_or_empty(message.get("refusal")):
        return refusal
    content = message.get("content")
    if not isinstance(content, list):
        return ""
    return "".join(text_or_empty(part.get("refusal")) for part in content if part.get("type") == "refusal")


def citations_of(raw: dict[str, Any], message: dict[str, Any]) -> tuple[Citation, ...]:
    """Return the citations in an answer or an event: OpenAI's annotations, Perplexity's and Azure's lists."""
    found = [_of_annotation(item) for item in _objects(message.get("annotations"))]
    context = message.get("context")
    for cited in (
        message.get("citations"),
        context.get("citations") if isinstance(context, dict) else None,
        raw.get("citations"),
    ):
        if cited and not found and isinstance(cited, list):
            results = {
                text_or_empty(result.get("url")): result for result in _objects(raw.get("search_results"))
            }
            found = [_of_source(results.get(item, item) if isinstance(item, str) else item) for item in cited]
    return tuple(found or [_of_source(result) for result in _objects(raw.get("search_results"))])


def _of_annotation(annotation: dict[str, Any]) -> Citation:
    details = annotation.get(text_or_empty(annotation.get("type")))
    source = details if isinstance(details, dict) else annotation
    return Citation(
        text_or_none(source.get("url")),
        text_or_none(source.get("title") or source.get("filename")),
        text_or_empty(source.get("content")),
        annotation,
    )


def _of_source(source: Any) -> Citation:
    if not isinstance(source, dict):
        return Citation(text_or_none(source), raw=source)
    return Citation(
        text_or_none(source.get("url")),
        text_or_none(source.get("title") or source.get("filepath")),
        text_or_empty(source.get("content") or source.get("snippet")),
        source,
    )


def usage_in(raw: dict[str, Any]) -> Any:
    """Return the usage object of an answer or an event, wherever the server puts it; None if it has none."""
    if usage := raw.get("usage"):
        return usage
    groq = raw.get("x_groq")
    if isinstance(groq, dict) and (usage := groq.get("usage")):
        return usage
    return next((usage for choice in as_list(raw.get("choices")) if (usage := choice.get("usage"))), None)


def _to_send(message: dict[str, Any]) -> dict[str, Any]:
    """Return ``message`` as a message for the next call.

    Null fields are left out, since some servers refuse them. A spoken answer is sent back by its id:
    https://platform.openai.com/docs/guides/audio#multi-turn-conversations.
    """
    sent: dict[str, Any] = {"role": "assistant", "content": None}
    sent.update((name, value) for name, value in message.items() if value is not None)
    audio = message.get("audio")
    if isinstance(audio, dict) and "id" in audio:
        sent["audio"] = {"id": audio["id"]}
    if calls := message.get("tool_calls"):
        sent["tool_calls"] = [_call_to_send(call) for call in as_list(calls)]
    return sent


def _call_to_send(call: dict[str, Any]) -> dict[str, Any]:
    """Return ``call`` with arguments: servers that parse the arguments of a history refuse an empty text."""
    function = call.get("function")
    if isinstance(function, dict) and not function.get("arguments"):
        return {**call, "function": {**function, "arguments": "{}"}}
    return call


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
