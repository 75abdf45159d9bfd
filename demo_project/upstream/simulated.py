"""A simulated model server, for machines on which the model cannot be installed. Its answers say so.

It implements the parts of HTTP/1.1 and of the OpenAI API that the demo needs: ``GET /health``,
``GET /v1/models`` and ``POST /v1/chat/completions``, streamed or not, over keep-alive connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from itertools import count
from typing import TYPE_CHECKING, Any

from demo_project.upstream.tcp_server import tcp_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

MODEL = "simulated"
FIRST_TOKEN = 0.08  # seconds from the request to the first token
NEXT_TOKEN = 0.015  # seconds between tokens
MAX_BODY = 10_000_000  # bytes

_completion_numbers = count(1)


class _HTTPError(Exception):
    """An error response: ``status`` is the code and the reason, the message goes into the body."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


@contextlib.asynccontextmanager
async def model_server() -> AsyncIterator[int]:
    """Serve while the context lasts; yields the loopback port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await _serve_request(reader, writer):
            pass

    async with tcp_server(serve) as port:
        yield port


def answer_tokens(question: str) -> list[str]:
    """Return the answer to ``question`` as a list of tokens: words with the space that follows them."""
    answer = (
        "This answer is simulated: there is no language model on this machine, so a small program answers in "
        f"its place. You asked: “{question.strip()[:200]}”. A real model would answer the question. The rest "
        "is real: the request went through the pool, over a TCP connection, and these words come back one by "
        "one as they are sent."
    )
    return re.findall(r"\S+\s*", answer)


async def _serve_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Answer one request. Returns whether the connection stays open for another one."""
    try:
        method, path, body = await _read_request(reader)
        if method == "GET" and path == "/health":
            await _send(writer, "200 OK", {"status": "ok"})
        elif method == "GET" and path == "/v1/models":
            await _send(writer, "200 OK", {"object": "list", "data": [{"id": MODEL, "object": "model"}]})
        elif method == "POST" and path == "/v1/chat/completions":
            await _complete(writer, body)
        else:
            raise _HTTPError("404 Not Found", f"{method} {path} does not exist.")
    except _HTTPError as problem:
        error = {"message": str(problem), "type": "invalid_request_error", "code": None}
        await _send(writer, problem.status, {"error": error}, close=True)
        return False
    return True


async def _read_request(reader: asyncio.StreamReader) -> tuple[str, str, bytes]:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.LimitOverrunError:
        raise _HTTPError("431 Request Header Fields Too Large", "The request's head is too large.") from None
    request_line, *lines = head.split("\r\n")
    fields = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in fields}
    parts = request_line.split(" ")
    length = headers.get("content-length", "0")
    if len(parts) != 3 or not length.isascii() or not length.isdigit() or "transfer-encoding" in headers:
        raise _HTTPError("400 Bad Request", "The request's head is not supported.")
    if int(length) > MAX_BODY:
        raise _HTTPError("413 Content Too Large", "The request's body is too large.")
    return parts[0], parts[1].partition("?")[0], await reader.readexactly(int(length))


async def _complete(writer: asyncio.StreamWriter, body: bytes) -> None:
    request = _read_completion_request(body)
    tokens = answer_tokens(request["question"])
    finish_reason = "stop" if len(tokens) <= request["max_tokens"] else "length"
    tokens = tokens[: request["max_tokens"]]
    usage = {"prompt_tokens": len(request["question"].split()), "completion_tokens": len(tokens)}
    usage["total_tokens"] = sum(usage.values())
    common = {"id": f"simulated-{next(_completion_numbers)}", "created": int(time.time()), "model": MODEL}
    if request["stream"]:
        await _stream(writer, common, tokens, finish_reason, usage if request["include_usage"] else None)
        return
    await asyncio.sleep(FIRST_TOKEN + NEXT_TOKEN * (len(tokens) - 1))
    message = {"role": "assistant", "content": "".join(tokens)}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    await _send(
        writer, "200 OK", {**common, "object": "chat.completion", "choices": [choice], "usage": usage}
    )


def _read_completion_request(body: bytes) -> dict[str, Any]:
    """Return ``question`` (the last message's content), ``max_tokens``, ``stream`` and ``include_usage``."""
    try:
        request = json.loads(body)
        question = request["messages"][-1]["content"]
        max_tokens = request.get("max_tokens")
        include_usage = bool((request.get("stream_options") or {}).get("include_usage"))
        return {
            "question": str(question),
            "max_tokens": 1_000 if max_tokens is None else max(1, int(max_tokens)),
            "stream": bool(request.get("stream")),
            "include_usage": include_usage,
        }
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        raise _HTTPError("400 Bad Request", "The body is not a chat completion request.") from None


async def _stream(
    writer: asyncio.StreamWriter,
    common: dict[str, Any],
    tokens: list[str],
    finish_reason: str,
    usage: dict[str, int] | None,
) -> None:
    head = ["HTTP/1.1 200 OK", "Content-Type: text/event-stream", "Transfer-Encoding: chunked"]
    writer.write("\r\n".join([*head, "", ""]).encode())
    pause = FIRST_TOKEN
    for event in _events({**common, "object": "chat.completion.chunk"}, tokens, finish_reason, usage):
        await asyncio.sleep(pause)
        _write_chunk(writer, f"data: {event}\n\n".encode())
        await writer.drain()
        pause = NEXT_TOKEN
    _write_chunk(writer, b"data: [DONE]\n\n")
    _write_chunk(writer, b"")
    await writer.drain()


def _events(
    common: dict[str, Any], tokens: list[str], finish_reason: str, usage: dict[str, int] | None
) -> Iterator[str]:
    def chunk(delta: dict[str, str], reason: str | None = None) -> str:
        return json.dumps({**common, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})

    for number, token in enumerate(tokens):
        yield chunk({"role": "assistant", "content": token} if number == 0 else {"content": token})
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
