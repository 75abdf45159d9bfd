"""OpenAI's embeddings: https://platform.openai.com/docs/api-reference/embeddings"""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from testbed.provider.api import as_json
from testbed.provider.chat_completions import error_object

if TYPE_CHECKING:
    from testbed.provider.api import APIRequest, Event
    from testbed.provider.errors import APIError

__all__ = ["EMBEDDINGS", "Embeddings", "inputs_of", "vector"]

DIMENSIONS = 8
EMBEDDINGS = "embeddings"


class Embeddings:
    """``POST */embeddings``: floats, or base64 of little-endian 32-bit floats if the request asks for it."""

    name = EMBEDDINGS
    generates = False
    request_id_header = "x-request-id"
    heartbeat = b"\n"

    def whole(self, answer: Sequence[Sequence[float]] | None, request: APIRequest) -> dict[str, Any]:
        """The vectors, or one made of each input where ``answer`` is None."""
        inputs = inputs_of(request)
        size = request.body.get("dimensions") or DIMENSIONS
        vectors = [vector(each, size) for each in inputs] if answer is None else answer
        encode = _base64 if request.body.get("encoding_format") == "base64" else list
        data = [
            {"object": "embedding", "index": index, "embedding": encode(each)}
            for index, each in enumerate(vectors)
        ]
        tokens = sum(len(each) if isinstance(each, list) else len(each.split()) for each in inputs)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"object": "list", "data": data, "model": request.model, "usage": usage}

    def events(self, answer: Any, request: APIRequest) -> list[Event]:
        raise ValueError("Embeddings are not sent as a stream.")

    def frame(self, event: dict[str, Any] | list[Any]) -> bytes:
        return as_json(event)

    def is_piece(self, event: Event) -> bool:
        return False

    def status(self, error: APIError) -> int:
        return error.status

    def error(self, error: APIError) -> dict[str, Any]:
        return error_object(error)


def inputs_of(request: APIRequest) -> list[Any]:
    """The inputs of a request: texts, or lists of tokens."""
    given = request.body.get("input")
    if isinstance(given, str) or (isinstance(given, list) and given and isinstance(given[0], int)):
        return [given]
    return list(given or [])


def vector(text: str | Sequence[int], dimensions: int = DIMENSIONS) -> list[float]:
    """The vector of a text or of its tokens: the same for the same input, exact in 32-bit floats."""
    seed = text if isinstance(text, str) else " ".join(map(str, text))
    digest = hashlib.shake_128(seed.encode()).digest(dimensions)
    return [byte / 128 - 1 for byte in digest]


def _base64(values: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
