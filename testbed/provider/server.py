"""The server of the scripted provider: its APIs, its settings, and which request gets which answer."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from testbed.behaviours import JSON
from testbed.provider.api import APIRequest
from testbed.provider.chat_completions import ChatCompletions
from testbed.provider.embeddings import EMBEDDINGS, Embeddings, inputs_of
from testbed.provider.errors import error_of
from testbed.provider.messages import Messages
from testbed.provider.models import AnthropicModels, OpenAIModels
from testbed.provider.replies import Data, Failure
from testbed.provider.responses import Responses
from testbed.provider.sending import send
from testbed.scripted import ScriptedServer

if TYPE_CHECKING:
    from testbed.connection import ReceivedRequest, ServerConnection
    from testbed.provider.api import API
    from testbed.provider.replies import Scripted

__all__ = ["AnsweringServer"]

_POST: dict[str, API] = {
    "/chat/completions": ChatCompletions(),
    "/responses": Responses(),
    "/v1/messages": Messages(),
    "/embeddings": Embeddings(),
}  # by the end of the path
_MODELS: dict[bool, API] = {False: OpenAIModels(), True: AnthropicModels()}  # by whether Anthropic's is asked


class AnsweringServer(ScriptedServer):
    """Answers requests to several APIs on one port. A context manager.

    It speaks ``POST */chat/completions``, ``POST */responses``, ``POST */v1/messages``,
    ``POST */embeddings`` and ``GET */models``.
    Scripted answers are given in their order, each to one request; when none is left, the last one is given
    again. Requests for embeddings and models leave the answers of a model to later requests: without a script
    they get data that are made here. An answer is sent as a stream if the request has ``"stream": true``.

    A request without an answer gets a 500 that says so, and so does one whose answer cannot be made; ``stop``
    raises that error too.
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

    def answer_next(self, scripted: Scripted) -> None:
        """Give this answer to the next request that none is scripted for yet."""
        with self.change():
            self._scripted.append(scripted)

    async def _serve(self, conn: ServerConnection) -> None:
        received = await conn.read_request()
        with self.change():
            self._number += 1
            number = self._number
        api = _api_of(received)
        if api is None:
            await _respond(conn, 404, f"The scripted provider has no {received.method} {received.path}.")
            return
        body = _object(received.body or b"{}")
        if body is None:
            await _respond(conn, 400, "The body of the request is not a JSON object.")
            return
        try:
            request = APIRequest(api, body, number, bool(body.get("stream")))
            response = self._next(request).response(request)
        except Exception as error:  # noqa: BLE001 - stop() raises it, in the test's own thread
            with self.change():
                self.errors.append(error)
            await _respond(conn, 500, str(error))
            return
        await send(conn, response)

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


def _api_of(received: ReceivedRequest) -> API | None:
    if received.method == "GET" and received.path.endswith("/models"):
        return _MODELS["anthropic-version" in received.headers]
    if received.method == "POST":
        return next((api for end, api in _POST.items() if received.path.endswith(end)), None)
    return None


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(body)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


async def _respond(conn: ServerConnection, status: int, message: str) -> None:
    """Answer with a sentence of the provider's own, in the JSON that both vendors' clients read."""
    body = json.dumps({"error": {"message": message, "type": "scripted_provider"}}).encode()
    await conn.respond(status, JSON, body)
