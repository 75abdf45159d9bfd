"""A scripted provider of models: a server that speaks OpenAI's and Anthropic's APIs as a test says."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from testbed.behaviours import close, fin, hold, reset
from testbed.provider.answers import AnswerOptions, ToolCall, answer
from testbed.provider.api import APIRequest, Event
from testbed.provider.chat_completions import ChatCompletions
from testbed.provider.embeddings import EMBEDDINGS, Embeddings, inputs_of
from testbed.provider.errors import error_of
from testbed.provider.messages import Messages
from testbed.provider.models import AnthropicModels, OpenAIModels
from testbed.provider.quirks import quirks_of
from testbed.provider.replies import (
    CutBody,
    Data,
    Failure,
    Fault,
    Played,
    RawBody,
    RawEvents,
    Reply,
    Scripted,
)
from testbed.provider.responses import Responses
from testbed.provider.sending import beats, send
from testbed.scripted import ScriptedServer

if TYPE_CHECKING:
    from testbed.board import Gate
    from testbed.connection import ReceivedRequest, ServerConnection
    from testbed.provider.api import API
    from testbed.scripted import Script

__all__ = ["ScriptedProvider"]

NAMES = str | Iterable[str]

_POST: dict[str, API] = {
    "/chat/completions": ChatCompletions(),
    "/v1/messages": Messages(),
    "/responses": Responses(),
    "/embeddings": Embeddings(),
}  # by the end of the path
_MODELS: dict[bool, API] = {False: OpenAIModels(), True: AnthropicModels()}  # by whether Anthropic's is asked


class ScriptedProvider(ScriptedServer):
    """Answers calls to a model as a test has scripted, on one port for all APIs. A context manager.

    It speaks ``POST */chat/completions``, ``POST */responses``, ``POST */v1/messages``,
    ``POST */embeddings`` and ``GET */models``.

    Each call of ``reply`` and the methods after it scripts one answer. They are given in this order, each to
    one request; when none is left, the last one is given again. An answer is sent as a stream if the request
    has ``"stream": true``. A request without a scripted answer gets a 500 that says so, and so does one whose
    answer cannot be made; ``stop`` raises that error too.

    ``quirk=`` is the name of a dialect, or names in the order in which they apply: see ``QUIRKS``.
    """

    def __init__(
        self, *, models: Sequence[str] = ("test-model",), max_inputs: int = 2048, **options: Any
    ) -> None:
        """Make a provider with these models, whose embeddings take ``max_inputs`` at once.

        ``options`` are those of ScriptedServer, such as ``tls``.
        """
        super().__init__(self._serve, **options)
        self.models, self.max_inputs = models, max_inputs
        self._scripted: deque[Scripted] = deque()
        self._last: Scripted | None = None
        self._number = 0

    @property
    def openai_url(self) -> str:
        """The base URL of OpenAI's APIs."""
        return f"{self.url}/v1"

    @property
    def anthropic_url(self) -> str:
        """The base URL of Anthropic's API."""
        return self.url

    def settings(self, provider: str = "openai", **more: Any) -> dict[str, Any]:
        """An entry of ``LLM_POOL`` that calls this provider, as ``provider`` names its API."""
        return {
            "PROVIDER": provider,
            "BASE_URL": self.anthropic_url if provider == "anthropic" else self.openai_url,
            "API_KEY": "sk-test-0123456789",
            "MODEL": "test-model",
            "PROXY": "",  # not the environment's
            **more,
        }

    # Answers.

    def reply(
        self,
        *texts: str,
        headers: Mapping[str, str] | None = None,
        quirk: NAMES = (),
        **options: Unpack[AnswerOptions],
    ) -> None:
        """Answer with this text, in one piece; several texts are the choices of a call with ``n``."""
        self._add(Reply(answer=answer(texts, options), headers=headers or {}, quirks=quirks_of(quirk)))

    def stream(
        self,
        *choices: Iterable[str],
        gap: float | Gate | str = 0.0,
        heartbeats: float | None = None,
        headers: Mapping[str, str] | None = None,
        quirk: NAMES = (),
        **options: Unpack[AnswerOptions],
    ) -> None:
        """Answer with a text in these pieces; several lists are the choices of a call with ``n``.

        Before each piece a stream waits ``gap`` seconds, or at this gate (an object, or the name of one of
        the server's gates); while it waits, it sends a heartbeat every ``heartbeats`` seconds.
        """
        self._add(
            Reply(
                answer=answer(choices, options),
                gap=gap,
                heartbeats=heartbeats,
                headers=headers or {},
                quirks=quirks_of(quirk),
            )
        )

    def tool_call(
        self,
        name: str | Sequence[ToolCall],
        arguments: Mapping[str, Any] | str = "",
        *,
        id: str | None = None,  # noqa: A002 - the API's word
        text: str = "",
        headers: Mapping[str, str] | None = None,
        quirk: NAMES = (),
        **options: Unpack[AnswerOptions],
    ) -> None:
        """Answer with a call of this tool, or with the calls of a list; with ``text`` before them."""
        calls = [ToolCall(name, arguments, id)] if isinstance(name, str) else name
        self.reply(text, headers=headers, quirk=quirk, **{**options, "tool_calls": calls})

    def vectors(
        self, *vectors: Sequence[float], headers: Mapping[str, str] | None = None, quirk: NAMES = ()
    ) -> None:
        """Answer a request for embeddings with these vectors.

        Without them, each input has the vector that ``testbed.provider.vector`` makes of it.
        """
        self._add(Data(EMBEDDINGS, vectors, headers or {}, quirks_of(quirk)))

    # Faults.

    def fail(
        self,
        error: int | str = "server_error",
        *,
        message: str | None = None,
        type: str | None = None,  # noqa: A002 - the API's word
        code: str | int | None = None,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
        quirk: NAMES = (),
    ) -> None:
        """Answer with an error in the API's own JSON: a status, or a word of ``ERRORS`` such as "overloaded".

        ``retry_after`` is the number of seconds in the header ``Retry-After``.
        """
        wait = {} if retry_after is None else {"Retry-After": f"{retry_after:g}"}
        failure = Failure(
            error_of(error, message=message, type=type, code=code),
            {**wait, **(headers or {})},
            quirks_of(quirk),
        )
        self._add(failure)

    def fail_in_stream(
        self,
        error: int | str = "server_error",
        *,
        after: int = 1,
        pieces: Sequence[str] | None = None,
        message: str | None = None,
        type: str | None = None,  # noqa: A002 - the API's word
        code: str | int | None = None,
        gap: float | Gate | str = 0.0,
        quirk: NAMES = (),
        **options: Unpack[AnswerOptions],
    ) -> None:
        """Send an error event after so many pieces of a stream. Without a stream: as ``fail``."""
        failed = error_of(error, message=message, type=type, code=code)
        quirks = quirks_of(quirk)
        fault = Fault(after, lambda request: [request.api.error(failed)], Failure(failed, {}, quirks))
        self._break(fault, pieces, options, gap=gap, quirks=quirks)

    def cut_after(
        self,
        after: int,
        *,
        pieces: Sequence[str] | None = None,
        fin: bool = False,
        reset: bool = False,
        gap: float | Gate | str = 0.0,
        quirk: NAMES = (),
        **options: Unpack[AnswerOptions],
    ) -> None:
        """End the connection after so many pieces of a stream, without the end of the body.

        The connection is closed, with TLS's close if there is TLS; with ``fin`` only a FIN is sent, with
        ``reset`` a RST. Without a stream, it ends in the middle of the JSON.
        """
        end = _RESET if reset else _FIN if fin else close
        parts = _numbers(after) if pieces is None else pieces
        fault = Fault(after, lambda _: [end], CutBody(answer([parts], options), end))
        self._break(fault, parts, options, gap=gap, quirks=quirks_of(quirk))

    def silence(
        self,
        *,
        after: int | None = None,
        pieces: Sequence[str] | None = None,
        heartbeats: float | None = None,
        gap: float | Gate | str = 0.0,
        quirk: NAMES = (),
        **options: Unpack[AnswerOptions],
    ) -> None:
        """Send nothing more on an open connection: at once, or after so many pieces of a stream.

        With ``heartbeats`` send the API's heartbeat every so many seconds; without a stream, blank lines.
        """
        unstreamed = Played(hold) if heartbeats is None else Played(beats(b"\n", heartbeats), 200)
        if after is None and heartbeats is None:
            self._add(unstreamed)
            return

        def rest(request: APIRequest) -> list[Event]:
            return [hold if heartbeats is None else beats(request.api.heartbeat, heartbeats)]

        fault = Fault(after or 0, rest, unstreamed)
        self._break(fault, pieces, options, gap=gap, quirks=quirks_of(quirk))

    # Whatever no word covers.

    def events(self, *events: Event, headers: Mapping[str, str] | None = None) -> None:
        """Answer with an event stream of these events, and nothing else.

        JSON is framed as the API frames it, bytes are sent as they stand, a script is played in its place.
        """
        self._add(RawEvents(events, headers or {}))

    def body(self, body: Any = b"", status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Answer with this body: bytes as they stand, anything else as JSON."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._add(RawBody(raw, status, headers or {}))

    def redirect(self, location: str, status: int = 307) -> None:
        """Redirect to this address."""
        self.body(b"", status, {"Location": location})

    def play(self, script: Script) -> None:
        """Play this script after the request was read; it sends everything, the head too."""
        self._add(Played(script))

    # Serving.

    def _add(self, scripted: Scripted) -> None:
        with self.change():
            self._scripted.append(scripted)

    def _break(self, fault: Fault, pieces: Sequence[str] | None, options: AnswerOptions, **more: Any) -> None:
        texts = _numbers(fault.after) if pieces is None else pieces
        self._add(Reply(answer=answer([texts], options), fault=fault, **more))

    async def _serve(self, conn: ServerConnection) -> None:
        received = await conn.read_request()
        with self.change():
            self._number += 1
            number = self._number
        api = _api_of(received)
        if api is None:
            message = f"The scripted provider has no {received.method} {received.path}."
            await conn.respond(404, {"Content-Type": "application/json"}, _message(message))
            return
        try:
            body = json.loads(received.body or b"{}")
            request = APIRequest(api, body, number, bool(body.get("stream")))
            response, request = self._next(request).response(request)
        except Exception as error:  # noqa: BLE001 - stop() raises it, in the test's own thread
            with self.change():
                self.errors.append(error)
            await conn.respond(500, {"Content-Type": "application/json"}, _message(str(error)))
            return
        await send(conn, response, request)

    def _next(self, request: APIRequest) -> Scripted:
        """Take the next answer, or the last one again; leave one that does not fit this request's API."""
        if request.api.name == EMBEDDINGS and (count := len(inputs_of(request))) > self.max_inputs:
            most = (
                f"Expected an array with maximum length {self.max_inputs}, but got one with length {count}."
            )
            return Failure(error_of(400, message=f"Invalid 'input': array too long. {most}"))
        with self.change():
            if self._scripted and self._scripted[0].fits(request):
                self._last = self._scripted.popleft()
                return self._last
            if not self._scripted and self._last is not None and self._last.fits(request):
                return self._last
        if not request.api.generates:
            return Data(request.api.name, None if request.api.name == EMBEDDINGS else self.models)
        raise AssertionError(
            "No answer is scripted for this call: use reply(), stream(), tool_call() or fail() before it."
        )


_FIN, _RESET = fin, reset


def _api_of(received: ReceivedRequest) -> API | None:
    if received.method == "GET" and received.path.endswith("/models"):
        return _MODELS["anthropic-version" in received.headers]
    if received.method == "POST":
        return next((api for end, api in _POST.items() if received.path.endswith(end)), None)
    return None


def _numbers(count: int) -> list[str]:
    """One piece of text more than ``count``."""
    return [f"{number} " for number in range(1, count + 2)]


def _message(text: str) -> bytes:
    return json.dumps({"error": {"message": text, "type": "scripted_provider"}}).encode()
