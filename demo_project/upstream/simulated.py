"""A stand-in for a model's HTTP API, where no model can be installed. Its answers say what it is.

It speaks as much HTTP/1.1 and as much of the OpenAI API as the demo needs: ``GET /v1/models`` and
``POST /v1/chat/completions``, streamed or whole, over connections that are kept alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from itertools import count
from typing import TYPE_CHECKING, Any

from demo_project.upstream.tcp_server import listening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

MODEL = "simulated"
FIRST_TOKEN = 0.08  # seconds
NEXT_TOKEN = 0.015  # seconds
MAX_BODY = 10_000_000  # bytes

_numbers = count(1)


class _Refused(Exception):
    """The request cannot be answered: a status and a message for the caller."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


@contextlib.asynccontextmanager
async def simulated_upstream() -> AsyncIterator[int]:
    """Serve while the context lasts; yields the loopback port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await _serve_one(reader, writer):
            pass

    async with listening(serve) as port:
        yield port


def words_of_answer(question: str) -> list[str]:
    """Return the answer to ``question``, cut into the pieces that stand for tokens."""
    answer = (
        "This answer is simulated: there is no language model on this machine, so a small stand-in speaks in "
        f"its place. You asked: “{question.strip()[:200]}”. A real model would have something to say about "
        "that. All else is real: the request went through the pool, over a TCP connection, and these words "
        "come back one by one as they are sent."
    )
    return re.findall(r"\S+\s*", answer)


async def _serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Answer one request; False when the connection is not to be used again."""
    try:
        method, path, body = await _read_request(reader)
        if method == "GET" and path == "/health":
            await _send(writer, "200 OK", {"status": "ok"})
        elif method == "GET" and path == "/v1/models":
            await _send(writer, "200 OK", {"object": "list", "data": [{"id": MODEL, "object": "model"}]})
        elif method == "POST" and path == "/v1/chat/completions":
            await _complete(writer, body)
        else:
            raise _Refused("404 Not Found", f"There is no {method} {path} here.")
    except _Refused as refusal:
        error = {"message": str(refusal), "type": "invalid_request_error", "code": None}
        await _send(writer, refusal.status, {"error": error}, close=True)
        return False
    return True


async def _read_request(reader: asyncio.StreamReader) -> tuple[str, str, bytes]:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.LimitOverrunError:
        raise _Refused("431 Request Header Fields Too Large", "The request's head is too large.") from None
    request_line, *lines = head.split("\r\n")
    fields = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in fields}
    parts = request_line.split(" ")
    length = headers.get("content-length", "0")
    if len(parts) != 3 or not length.isascii() or not length.isdigit() or "transfer-encoding" in headers:
        raise _Refused("400 Bad Request", "The request's head cannot be read here.")
    if int(length) > MAX_BODY:
        raise _Refused("413 Content Too Large", "The request's body is too large.")
    return parts[0], parts[1].partition("?")[0], await reader.readexactly(int(length))


async def _complete(writer: asyncio.StreamWriter, body: bytes) -> None:
    asked = _read_question(body)
    words = words_of_answer(asked["question"])
    finish_reason = "stop" if len(words) <= asked["max_tokens"] else "length"
    words = words[: asked["max_tokens"]]
    usage = {"prompt_tokens": len(asked["question"].split()), "completion_tokens": len(words)}
    usage["total_tokens"] = sum(usage.values())
    common = {"id": f"simulated-{next(_numbers)}", "created": int(time.time()), "model": MODEL}
    if asked["stream"]:
        await _stream(writer, common, words, finish_reason, usage if asked["include_usage"] else None)
        return
    await asyncio.sleep(FIRST_TOKEN + NEXT_TOKEN * (len(words) - 1))
    message = {"role": "assistant", "content": "".join(words)}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    await _send(
        writer, "200 OK", {**common, "object": "chat.completion", "choices": [choice], "usage": usage}
    )


def _read_question(body: bytes) -> dict[str, Any]:
    try:
        asked = json.loads(body)
        question = asked["messages"][-1]["content"]
        max_tokens = asked.get("max_tokens")
        include_usage = bool((asked.get("stream_options") or {}).get("include_usage"))
        return {
            "question": str(question),
            "max_tokens": 1_000 if max_tokens is None else max(1, int(max_tokens)),
            "stream": bool(asked.get("stream")),
            "include_usage": include_usage,
        }
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        raise _Refused("400 Bad Request", "The body is no chat completion request.") from None


async def _stream(
    writer: asyncio.StreamWriter,
    common: dict[str, Any],
    words: list[str],
    finish_reason: str,
    usage: dict[str, int] | None,
) -> None:
    head = ["HTTP/1.1 200 OK", "Content-Type: text/event-stream", "Transfer-Encoding: chunked"]
    writer.write("\r\n".join([*head, "", ""]).encode())
    pause = FIRST_TOKEN
    for event in _events({**common, "object": "chat.completion.chunk"}, words, finish_reason, usage):
        await asyncio.sleep(pause)
        _write_chunk(writer, f"data: {event}\n\n".encode())
        await writer.drain()
        pause = NEXT_TOKEN
    _write_chunk(writer, b"data: [DONE]\n\n")
    _write_chunk(writer, b"")
    await writer.drain()


def _events(
    common: dict[str, Any], words: list[str], finish_reason: str, usage: dict[str, int] | None
) -> Iterator[str]:
    def chunk(delta: dict[str, str], reason: str | None = None) -> str:
        return json.dumps({**common, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})

    for number, word in enumerate(words):
        yield chunk({"role": "assistant", "content": word} if number == 0 else {"content": word})
    yield chunk({}, finish_reason)
    if usage is not None:
        yield json.dumps({**common, "choices": [], "usage": usage})


def _write_chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n%s\r\n" % (len(data), data))


async def _send(
    writer: asyncio.StreamWriter, status: str, value: dict[str, Any], *, close: bool = False
) -> None:
    body = json.dumps(value).encode()
    head = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    if close:
        head.append("Connection: close")
    writer.write("\r\n".join([*head, "", ""]).encode() + body)
    await writer.drain()
