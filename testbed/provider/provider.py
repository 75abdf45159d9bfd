"""A scripted provider of models: a server that speaks OpenAI's and Anthropic's APIs as a test says."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from testbed.behaviours import close, fin, hold, reset, steps
from testbed.provider.answers import AnswerOptions, ToolCall, answer
from testbed.provider.embeddings import EMBEDDINGS
from testbed.provider.errors import error_of
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
)
from testbed.provider.sending import beats
from testbed.provider.server import AnsweringServer

if TYPE_CHECKING:
    from testbed.board import Gate
    from testbed.provider.api import APIRequest, Event
    from testbed.scripted import Script

__all__ = ["ScriptedProvider"]

NAMES = str | Iterable[str]

FIN, RESET = steps(fin, hold), reset  # cut_after has arguments of these names


class ScriptedProvider(AnsweringServer):
    """Answers calls to a model as a test has scripted, on one port for all APIs. A context manager.

    Each method scripts one answer; ``AnsweringServer`` says which request gets it. ``quirk=`` is the name of
    a dialect, or several names in the order in which they apply: see ``QUIRKS``.
    """

    # Answers.

    def reply(
        self,
        *texts: str,
        headers: Mapping[str, str] | None = None,
        quirk: NAMES = (),
        **options: Unpack[AnswerOptions],
    ) -> None:
        """Answer with this text, in one piece; several texts are the choices of a call with ``n``."""
        self.answer_next(Reply(answer=answer(texts, options), headers=headers or {}, quirks=quirks_of(quirk)))

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
        if heartbeats is not None and gap == 0:
            raise ValueError("Heartbeats come while the stream waits: give a gap, in seconds or as a gate.")
        self.answer_next(
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
        """Answer with a call of this tool, or with the calls of a list, and with ``text`` before them."""
        calls = [ToolCall(name, arguments, id)] if isinstance(name, str) else name
        whole = answer([text], {**options, "tool_calls": calls})
        self.answer_next(Reply(answer=whole, headers=headers or {}, quirks=quirks_of(quirk)))

    def vectors(
        self, *vectors: Sequence[float], headers: Mapping[str, str] | None = None, quirk: NAMES = ()
    ) -> None:
        """Answer a request for embeddings with these vectors.

        Without them, each input has the vector that ``testbed.provider.vector`` makes of it.
        """
        self.answer_next(Data(EMBEDDINGS, vectors, headers or {}, quirks_of(quirk)))

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
        self.answer_next(failure)

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
        last_chunk: bool = False,
        gap: float | Gate | str = 0.0,
        quirk: NAMES = (),
        **options: Unpack[AnswerOptions],
    ) -> None:
        """End the connection after so many pieces of a stream, without the end of the body.

        The connection is closed, with TLS's close if there is TLS; with ``fin`` only a FIN is sent, with
        ``reset`` a RST. With ``last_chunk`` the body has its end, and the connection stays open: only the
        answer is cut. Without a stream, all this happens in the middle of the JSON.
        """
        if fin + reset + last_chunk > 1:
            raise ValueError("A connection ends in one way: give one of fin, reset and last_chunk.")
        end: list[Event] = [] if last_chunk else [RESET if reset else FIN if fin else close]
        parts = _numbers(after) if pieces is None else pieces
        fault = Fault(after, lambda _: end, CutBody(answer([parts], options), end))
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
        """Send nothing more on an open connection: no head, or with ``after`` so many pieces of a stream.

        With ``heartbeats``, send the API's heartbeat every so many seconds; without a stream, blank lines.
        """
        if after is None and heartbeats is None:
            if pieces or gap or quirk or options:
                raise ValueError("Nothing comes before this silence: give ``after``, the number of pieces.")
            self.answer_next(Played(hold))
            return
        unstreamed = Played(hold) if heartbeats is None else Played(beats(b"\n", heartbeats), 200)

        def rest(request: APIRequest) -> list[Event]:
            return [hold if heartbeats is None else beats(request.api.heartbeat, heartbeats)]

        fault = Fault(after or 0, rest, unstreamed)
        self._break(fault, pieces, options, gap=gap, quirks=quirks_of(quirk))

    # Whatever no word covers.

    def events(self, *events: Event, headers: Mapping[str, str] | None = None) -> None:
        """Answer with an event stream of these events, and nothing else.

        JSON is framed as the API frames it, bytes are sent as they stand, a script is played in its place.
        """
        self.answer_next(RawEvents(events, headers or {}))

    def body(self, body: Any = b"", status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Answer with this body: bytes as they stand, anything else as JSON."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.answer_next(RawBody(raw, status, headers or {}))

    def redirect(self, location: str, status: int = 307) -> None:
        """Redirect to this address."""
        self.body(b"", status, {"Location": location})

    def play(self, script: Script) -> None:
        """Play this script after the request was read; it sends everything, the head too."""
        self.answer_next(Played(script))

    def _break(self, fault: Fault, pieces: Sequence[str] | None, options: AnswerOptions, **more: Any) -> None:
        texts = _numbers(fault.after) if pieces is None else pieces
        self.answer_next(Reply(answer=answer([texts], options), fault=fault, **more))


def _numbers(count: int) -> list[str]:
    """One piece of text more than ``count``."""
    return [f"{number} " for number in range(1, count + 2)]
