"""OpenAI's embeddings: https://platform.openai.com/docs/api-reference/embeddings

Many other servers offer the same API: vLLM, llama.cpp, Ollama, Azure, Mistral, Voyage.
"""

from __future__ import annotations

import sys
from array import array
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llm_pool.exceptions import InvalidParameter, with_article
from llm_pool.providers.error_objects import error_in
from llm_pool.providers.errors import SHAPE_ERRORS
from llm_pool.providers.json_provider import parse_json
from llm_pool.providers.requests import check_params, is_text
from llm_pool.providers.results import Embeddings, Timing
from llm_pool.providers.usage import Usage, token_count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llm_pool.exceptions import LLMPoolError
    from llm_pool.providers.base import EmbeddingInput, Head
    from llm_pool.providers.json_provider import JSONProvider

__all__ = ["PATH", "as_inputs", "join", "parse", "request_body", "split"]

PATH = "/embeddings"

_BYTES_PER_TOKEN = 2  # fewer than in almost all texts (English: 4), so that an estimate is rarely too low
# Parameters by which some servers send numbers that are not float32. They are read from a list, not base64.
_NUMBER_TYPES = ("output_dtype", "embed_dtype", "embedding_type", "endianness")


def as_inputs(inputs: Any) -> list[EmbeddingInput]:
    """Return ``inputs`` as a list of texts: ``str``, what stands for one, or lists of tokens.

    A ``str`` or a list of tokens (int) is one text. Raises ``InvalidParameter`` for any other type, and if
    there is no text. An empty ``str`` is left to the server, because some servers accept it.
    """
    if is_text(inputs):
        return [inputs]
    if isinstance(inputs, (bytes, bytearray)) or not isinstance(inputs, Sequence):
        raise InvalidParameter(f"inputs is {with_article(inputs)}; give a str, or a list of str.")
    if not inputs:
        raise InvalidParameter("inputs is empty; give at least one text.")
    if all(type(item) is int for item in inputs):
        return [inputs]
    for index, item in enumerate(inputs):
        if is_text(item):
            continue
        if not isinstance(item, (list, tuple)):
            raise InvalidParameter(
                f"inputs[{index}] is {with_article(item)}; give a str, or a list of tokens."
            )
        if not item or not all(type(token) is int for token in item):
            raise InvalidParameter(
                f"inputs[{index}] is not a list of one or more tokens; give a list of int."
            )
    return list(inputs)


def split(
    inputs: list[EmbeddingInput], max_inputs: int | None, max_tokens: int | None
) -> Iterator[list[EmbeddingInput]]:
    """Yield ``inputs`` in parts within both limits, in order. A limit of None is no limit.

    The number of tokens is estimated: only the provider can count them. A text that exceeds ``max_tokens``
    is a part of its own, so that the provider refuses it.
    """
    part: list[EmbeddingInput] = []
    tokens = 0
    for item in inputs:
        more = _estimate_tokens(item) if max_tokens is not None else 0
        if part and (len(part) == max_inputs or (max_tokens is not None and tokens + more > max_tokens)):
            yield part
            part, tokens = [], 0
        part.append(item)
        tokens += more
    yield part


def request_body(
    inputs: Sequence[EmbeddingInput], model: str | None, params: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the body of a request.

    It asks for base64, which has a quarter of the bytes of numbers in JSON, unless ``params`` contains
    ``encoding_format``, or says that the numbers are to be of another type. With ``encoding_format=None`` the
    body has no ``encoding_format``.
    """
    for name in ("input", "messages"):
        if name in params:
            raise InvalidParameter(
                f"{name} is not a parameter of embed(); give the texts as the first argument."
            )
    check_params(params, stream=False)
    number_type = next((name for name in _NUMBER_TYPES if params.get(name) is not None), None)
    if number_type is not None and params.get("encoding_format") == "base64":
        raise InvalidParameter(
            f'encoding_format="base64" is read as float32, which {number_type} can change; '
            "leave encoding_format out to get a list of numbers."
        )
    body: dict[str, Any] = {"model": model} if model is not None else {}
    body["input"] = inputs
    body.update(params)
    if number_type is None:
        body.setdefault("encoding_format", "base64")
    if body.get("encoding_format", "") is None:
        del body["encoding_format"]  # some servers refuse unknown fields
    return body


def parse(provider: JSONProvider, head: Head, body: bytes, count: int, timing: Timing | None) -> Embeddings:
    """Return the vectors in ``body``. See ``Provider.parse_embeddings``.

    Each vector can be base64 of little-endian float32 or a list of numbers, whatever was asked for.
    """
    result = _embeddings_or_error(provider, head, body, count, timing)
    del body  # error reports show the local variables of each frame, and the body may contain the key
    if isinstance(result, Embeddings):
        return result
    raise result


def join(parts: Sequence[Embeddings]) -> Embeddings:
    """Return the embeddings of all ``parts``, the answers to a call that was split, as one.

    ``raw`` is the answer to the whole: the items of all parts, with "index" counted on, and the summed usage.
    """
    if len(parts) == 1:
        return parts[0]
    last = parts[-1]
    usages = [part.usage for part in parts if part.usage is not None]
    usage = Usage(sum(usage.input_tokens for usage in usages), 0, _sum([usage.raw for usage in usages]))
    timings = [part.timing for part in parts if part.timing is not None]
    return replace(
        last,
        vectors=[vector for part in parts for vector in part.vectors],
        usage=usage if usages else None,
        timing=_whole_timing(timings) if timings else None,
        raw={**last.raw, "data": _all_items(parts), **({"usage": usage.raw} if usages else {})},
    )


def _estimate_tokens(item: EmbeddingInput) -> int:
    if not is_text(item):
        return len(item)
    return len(str(item).encode("utf-8", "surrogatepass")) // _BYTES_PER_TOKEN + 1


def _embeddings_or_error(
    provider: JSONProvider, head: Head, body: bytes, count: int, timing: Timing | None
) -> Embeddings | LLMPoolError:
    """Return the embeddings or the error. A raised error would have a traceback that holds ``body``."""
    try:
        raw = parse_json(body)
    except (ValueError, RecursionError):
        return provider.invalid_response(head, "what is not JSON" if body.strip() else "an empty body", body)
    if (reported := error_in(raw)) is not None:
        return provider.error_from_object(head, reported)
    try:
        items = _in_order(raw["data"], count)
        vectors = [_vector(item["embedding"]) for item in items]
        model, usage = raw.get("model"), raw.get("usage")
    except _WrongAnswer as error:
        return provider.invalid_response(head, str(error), body)
    except (*SHAPE_ERRORS, ValueError):
        return provider.invalid_response(head, "JSON without embeddings", body)
    return Embeddings(
        vectors,
        model,
        _usage(usage),
        provider.request_id(head),
        timing,
        raw,
        head.headers,
    )


class _WrongAnswer(Exception):
    """The answer has not one vector for each text."""


def _in_order(items: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Return ``items`` in the order of the texts: by "index", or as they are if no item has one.

    Raises ``_WrongAnswer`` if there is not exactly one item for each of the ``count`` texts.
    """
    if len(items) != count:
        raise _WrongAnswer(f"{len(items)} embeddings for {count} inputs")
    indexes = [item.get("index") for item in items]
    if all(index is None for index in indexes):
        return items
    by_index = {index: item for index, item in zip(indexes, items, strict=True) if type(index) is int}
    if by_index.keys() != set(range(count)):
        raise _WrongAnswer("embeddings whose indexes are not those of the inputs")
    return [by_index[index] for index in range(count)]


def _vector(value: Any) -> list[float]:
    """Return a vector from base64, or a list of numbers unchanged.

    Raises TypeError or ValueError if ``value`` is neither.
    """
    if type(value) is list:
        if not set(map(type, value)) <= {float, int}:
            raise TypeError
        return value
    numbers = array("f")
    numbers.frombytes(b64decode(value, validate=True))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()


def _usage(raw: Any) -> Usage | None:
    """Return the usage in ``raw``, the usage object of an answer; None if ``raw`` is not an object."""
    if not isinstance(raw, dict):
        return None
    # Voyage states only the total.
    return Usage(token_count(raw.get("prompt_tokens")) or token_count(raw.get("total_tokens")), 0, raw)


def _sum(usages: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the usage objects of several answers as one: numbers are added, other values are the last."""
    total: dict[str, Any] = {}
    for usage in usages:
        for name, value in usage.items():
            previous = total.get(name)
            both_numbers = {type(value), type(previous)} <= {int, float}
            total[name] = previous + value if both_numbers else value
    return total


def _whole_timing(timings: list[Timing]) -> Timing:
    """Return the timing of requests that were sent one after the other."""
    return replace(
        timings[0],
        queued=sum(timing.queued for timing in timings),
        dialing=sum(timing.dialing for timing in timings),
        total=sum(timing.total for timing in timings),
    )


def _all_items(parts: Sequence[Embeddings]) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    for part in parts:
        offset = len(items)
        items += [
            {**item, "index": item["index"] + offset} if type(item.get("index")) is int else item
            for item in part.raw["data"]
        ]
    return items
