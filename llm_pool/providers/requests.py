"""Checks requests before they are sent, and encodes them. Only what no provider accepts raises an error."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from json.encoder import c_make_encoder, encode_basestring  # type: ignore[attr-defined]
from typing import Any

from llm_pool.exceptions import InvalidMessages, InvalidParameter, InvalidRequest, with_article
from llm_pool.providers.results import Completion

__all__ = ["as_messages", "check_params", "encode", "is_text"]

_MAX_DEPTH = 100  # levels that the search for an invalid value enters: longer paths take more memory

_NOT_PARAMETERS = {
    **{name: f"use with_options({name}=...)" for name in ("timeout", "headers", "query", "idempotency_key")},
    "extra_headers": "use with_options(headers=...)",
    "extra_query": "use with_options(query=...)",
    "extra_body": "give its fields to the call itself, as parameters of their own",
    "max_retries": "catch the error and call again: the pool sends nothing twice that may have arrived",
}
"""Options of calls, here and in SDKs, which no API has as parameters. The values say what to do instead."""
_NAMES = _NOT_PARAMETERS.keys()


def is_text(value: Any) -> bool:
    """Return whether ``value`` is a str, or stands for one, as what Django's ``gettext_lazy`` returns."""
    return isinstance(value, str) or hasattr(type(value), "casefold")


def _as_text(value: Any) -> str:
    """Return ``value`` as a str: at the time of the call, and so in the language of its request."""
    if is_text(value):
        return str(value)
    raise TypeError(f"{with_article(value)} is not JSON")


# ``json.JSONEncoder.encode`` makes an encoder for each call. This one keeps no state of a call.
_encoder = c_make_encoder(
    markers=None,  # a value that contains itself is noticed as one that is nested too deeply
    default=_as_text,
    encoder=encode_basestring,
    indent=None,
    key_separator=":",
    item_separator=",",
    sort_keys=False,
    skipkeys=False,
    allow_nan=False,
)


def as_messages(messages: Any, *, typed: bool = False) -> list[Mapping[str, Any]]:
    """Return ``messages`` as a list for the request's body. A str becomes one user message.

    With ``typed`` a dict with a "type" needs no "role".

    What ``gettext_lazy`` returns counts as a str. Raises ``InvalidMessages`` if ``messages`` is neither a str
    nor a sequence of one or more dicts, if a dict has no "role", or if a "role" or "content" has the wrong
    type.
    """
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    if isinstance(messages, Mapping):
        raise InvalidMessages("messages is one dict; put it into a list: [message].")
    if isinstance(messages, (bytes, bytearray)) or not isinstance(messages, Sequence):
        if is_text(messages):
            return [{"role": "user", "content": messages}]
        raise InvalidMessages(f"messages is {with_article(messages)}; give a str, or a list of dicts.")
    if not messages:
        raise InvalidMessages("messages is empty; give at least one message.")
    for index, message in enumerate(messages):
        _check_message(f"messages[{index}]", message, typed)
    return list(messages)


def _check_message(name: str, message: Any, typed: bool) -> None:
    """Raise ``InvalidMessages`` for a message that is invalid. ``name`` is its place among the messages."""
    if not isinstance(message, Mapping):
        give = 'a dict such as {"role": "user", "content": "..."}'
        if isinstance(message, Completion):
            give = "completion.message"
        raise InvalidMessages(f"{name} is {with_article(message)}; give {give}.")
    role = message.get("role")
    if not isinstance(role, str) and not (typed and role is None and isinstance(message.get("type"), str)):
        problem = "is missing" if "role" not in message else f"is {with_article(role)}"
        raise InvalidMessages(f'{name}["role"] {problem}; give a str such as "user".')
    content = message.get("content")
    if not (content is None or isinstance(content, (str, list, tuple)) or is_text(content)):
        raise InvalidMessages(
            f'{name}["content"] is {with_article(content)}; give a str, or a list of parts.'
        )


def check_params(params: Mapping[str, Any], stream: bool) -> None:
    """Raise ``InvalidParameter`` for parameters that contradict the call, and for ``_NOT_PARAMETERS``.

    So do tools that are not in a list. ``stream``: whether the call is for a stream.
    """
    if "messages" in params:
        raise InvalidParameter("messages is given twice; give it as the first argument only.")
    if "stream" in params and params["stream"] is not stream:
        other = "complete() or acomplete()" if stream else "stream() or astream()"
        raise InvalidParameter(f"stream={params['stream']!r} contradicts the call; use {other} instead.")
    if not _NAMES.isdisjoint(params):
        name = next(name for name in params if name in _NOT_PARAMETERS)
        raise InvalidParameter(f"{name} is not a parameter of the API; {_NOT_PARAMETERS[name]}.")
    if "tools" in params and (isinstance(tools := params["tools"], Mapping) or callable(tools)):
        give = "list(tools.values())" if isinstance(tools, Mapping) else "[function]"
        raise InvalidParameter(f"tools is {with_article(tools)}; give a list: {give}.")


def encode(body: Mapping[str, Any], *, messages: str = "messages") -> bytes:
    """Return ``body`` as JSON in UTF-8, with each lazy str as text.

    ``messages`` is the name of the field with the messages.

    Raises ``InvalidMessages`` or ``InvalidParameter`` with the path of the value that cannot be encoded.
    """
    try:
        return "".join(_encoder(body, 0)).encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        # UnicodeEncodeError is a ValueError too. To search for the value first would make each call slower.
        raise _encoding_error(body, messages, error) from None


def _encoding_error(body: Mapping[str, Any], messages: str, error: Exception) -> InvalidRequest:
    for path, value in _walk(body):
        for check in (_text_problem, _number_problem, _type_problem):
            if problem := check(value):
                kind = InvalidMessages if path[:1] == (messages,) else InvalidParameter
                return kind(f"{_path_text(path)} {problem}")
    if isinstance(error, RecursionError):
        return InvalidParameter(
            "The request is nested too deeply to be written as JSON, or contains itself; give it flatter."
        )
    return InvalidParameter(f"The request cannot be written as JSON: {error}.")


def _text_problem(value: Any) -> str | None:
    if not is_text(value):
        return None
    text = str(value)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return (
            f"holds a lone surrogate (U+{ord(text[error.start]):04X} at index {error.start}), "
            'which UTF-8 cannot carry; clean the text with text.encode("utf-8", "replace").decode().'
        )
    return None


def _number_problem(value: Any) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return f"is {value!r}, which JSON cannot carry; give a finite number."
    return None


def _type_problem(value: Any) -> str | None:
    if value is None or isinstance(value, (int, float, dict, list, tuple)) or is_text(value):
        return None
    return f"is {with_article(value)}, which JSON cannot carry; give a str, number, bool, list or dict."


def _walk(body: Mapping[str, Any]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield each value and each key in ``body`` with its path.

    Each container is entered once, and at most ``_MAX_DEPTH`` levels deep.
    """
    seen: set[int] = set()
    stack: list[tuple[tuple[Any, ...], Any]] = [((), body)]
    while stack:
        path, value = stack.pop()
        yield path, value
        if not isinstance(value, (dict, list, tuple)) or id(value) in seen or len(path) > _MAX_DEPTH:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            for key in value:
                yield (*path, "a key of it"), key
            items = [((*path, key), item) for key, item in value.items()]
        else:
            items = [((*path, index), item) for index, item in enumerate(value)]
        stack.extend(reversed(items))


def _path_text(path: Sequence[Any]) -> str:
    """Return ``path`` as Python code, such as ``messages[2]["content"]``; "The request" if it is empty."""
    if not path:
        return "The request"
    return str(path[0]) + "".join(f"[{_key_text(key)}]" for key in path[1:])


def _key_text(key: Any) -> str:
    return json.dumps(key) if isinstance(key, str) else repr(key)
