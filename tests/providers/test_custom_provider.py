"""A custom provider, written from scratch for an API unlike the others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from llm_pool.exceptions import NotFound, StreamInterrupted
from llm_pool.providers.base import CompletionRequest, Provider, StreamReader
from llm_pool.providers.results import Chunk, Completion
from testbed.behaviours import reply
from tests.fixtures.calls import CALLS, STREAMS, ask

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_pool.calling.pool import LLMPool
    from testbed import Script, ScriptedServer


class Parrot(Provider):
    """``POST /say``: the response repeats the words, one on each line."""

    name = "parrot"
    base_url = "https://parrot.example"
    base_url_env = "PARROT_BASE_URL"
    api_key_env = "PARROT_API_KEY"
    completion_path = "/say"

    def headers(self, api_key: str | None) -> dict[str, str]:
        return {"Authorization": f"Parrot {api_key}", "Content-Type": "text/words", "X-Team": "theirs"}

    def completion_request(
        self, messages: Any, model: Any, params: Any, *, stream: bool
    ) -> CompletionRequest:
        return CompletionRequest(self.completion_path, {"say": messages, **params})

    def parse_completion(self, head: Any, body: bytes, timing: Any = None) -> Completion:
        reader = Words(self, head)
        reader.feed(body)
        reader.end()
        return reader.completion(timing)

    def stream_reader(self, head: Any) -> Words:
        return Words(self, head)


class Words(StreamReader):
    """Reads lines; the last one is a full stop."""

    def __init__(self, provider: Parrot, head: Any) -> None:
        self._provider = provider
        self._head = head
        self._text = ""
        self._rest = b""

    def feed(self, data: bytes) -> list[Chunk]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        words = [line.decode() for line in lines]
        self.finished = "." in words
        self._text += "".join(word for word in words if word != ".")
        return [Chunk(text=word, raw=word) for word in words if word != "."]

    def end(self) -> list[Chunk]:
        if not self.finished:
            raise self.interruption("it did not come to the point")
        return []

    def completion(self, timing: Any = None) -> Completion:
        return Completion(self._text, "parrot-1", "stop", (), None, None, timing, {"words": self._text})

    @property
    def partial(self) -> str:
        return self._text

    def interruption(self, reason: str) -> StreamInterrupted:
        return StreamInterrupted(reason, partial=self._text)


@pytest.fixture
def parrot(
    configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> Callable[..., tuple[LLMPool, ScriptedServer]]:
    """``parrot(script)``: a pool of this provider, and its server."""

    def make(script: Script, **settings: Any) -> tuple[LLMPool, ScriptedServer]:
        server = serve(script)
        return configure(server, PROVIDER=f"{__name__}.Parrot", **settings), server

    return make


@pytest.mark.parametrize("call", CALLS)
def test_a_custom_provider_serves_every_kind_of_call(call: str, parrot: Any, secret: str) -> None:
    pool, server = parrot(reply(200, b"Pretty\n Polly\n.\n"))
    completion = ask(call, pool, "Polly?", loudly=True)
    assert (completion.text, completion.model) == ("Pretty Polly", "parrot-1")
    assert completion.timing is not None
    [request] = server.requests
    assert (request.method, request.target) == ("POST", "/v1/say")
    assert json.loads(request.body) == {"say": "Polly?", "loudly": True}
    assert request.headers["authorization"] == f"Parrot {secret}"


@pytest.mark.parametrize("hooked", [False, True])
def test_headers_are_sent_once_in_whatever_case(hooked: bool, parrot: Any) -> None:
    """HEADERS of the settings replace those of the provider."""
    pool, server = parrot(reply(200, b"Hi\n.\n"), HEADERS={"x-team": "ours"})
    if hooked:
        pool.client.event_hooks = {"request": [lambda _: None]}
    pool.complete("Polly?")
    lines = server.requests[0].head.decode().lower().split("\r\n")
    assert [line for line in lines if line.startswith("x-team")] == ["x-team: ours"]
    assert [line for line in lines if line.startswith("content-type")] == ["content-type: text/words"]
    assert len([line for line in lines if line.startswith("authorization")]) == 1


@pytest.mark.parametrize("call", CALLS)
def test_an_error_status_raises_the_error_of_that_status(call: str, parrot: Any) -> None:
    pool, _ = parrot(reply(404, b"no such bird", {"Content-Type": "text/plain"}))
    with pytest.raises(NotFound, match="parrot answered 404 Not Found: no such bird"):
        ask(call, pool, "Polly?")


@pytest.mark.parametrize("call", STREAMS)
def test_a_stream_without_its_end_is_interrupted(call: str, parrot: Any) -> None:
    pool, _ = parrot(reply(200, b"Pretty\n"))
    with pytest.raises(StreamInterrupted) as caught:
        ask(call, pool, "Polly?")
    assert caught.value.partial == "Pretty"
