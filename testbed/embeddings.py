"""A script that responds like a server with OpenAI's embeddings."""

from __future__ import annotations

import base64
import json
import struct
from typing import TYPE_CHECKING, Any

from testbed.behaviours import JSON

if TYPE_CHECKING:
    from collections.abc import Iterable

    from testbed.connection import ServerConnection

__all__ = ["embeddings", "embeddings_reply", "item", "vector_of"]


def vector_of(text: Any) -> list[float]:
    """The vector that ``embeddings`` gives to a text, or to a list of tokens: exact as float32."""
    codes = list(text.encode()) if isinstance(text, str) else list(text)
    return [float(len(codes)), float(sum(codes)), -0.5]


async def embeddings(conn: ServerConnection) -> None:
    """Respond to one request, in base64 if it asks for that; the items come in reverse order."""
    request = await conn.read_request()
    asked = request.json()
    as_base64 = asked.get("encoding_format") == "base64"
    items = [item(vector_of(text), index, as_base64) for index, text in enumerate(asked["input"])]
    ident = {"X-Request-Id": str(len(conn.server.requests))}
    await conn.respond(200, {**JSON, **ident}, embeddings_reply(reversed(items), tokens=len(items)))


def embeddings_reply(items: Iterable[Any], *, tokens: int = 1) -> bytes:
    """The body of a response with these items."""
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    value = {"object": "list", "data": list(items), "model": "test-embedder", "usage": usage}
    return json.dumps(value).encode()


def item(vector: list[float], index: int | None = None, as_base64: bool = False) -> dict[str, Any]:
    """One item of a response; without "index" if that is None."""
    packed = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    place = {} if index is None else {"index": index}
    return {"object": "embedding", **place, "embedding": packed if as_base64 else vector}
