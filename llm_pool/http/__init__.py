"""``event_stream``: a Django response that sends a stream to the browser, under WSGI and ASGI."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

from llm_pool.calling.stream import AsyncCompletionStream, CompletionStream
from llm_pool.exceptions import with_article
from llm_pool.http.formats import Render, make_format
from llm_pool.http.outcome import OnDone
from llm_pool.http.response import EventStreamResponse

__all__ = ["EventStreamResponse", "event_stream"]


def event_stream(
    stream: CompletionStream | AsyncCompletionStream,
    *,
    on_done: OnDone | None = None,
    render: Render | None = None,
    include: Collection[str] | None = None,
    format: Literal["events", "ai-sdk"] = "events",  # noqa: A002  the word that callers expect
    headers: Mapping[str, str] | None = None,
) -> EventStreamResponse:
    """Return a response that sends ``stream`` to the browser as server-sent events.

    The stream is closed when the browser disconnects. A HEAD request makes no call to the model.

    ``on_done``  a function, sync or async, that is called once with the ``Completion`` or the error, when the
                 last byte has been sent or the browser has left. In the latter case the error is a
                 ``StreamInterrupted``, whose ``partial`` is the text so far. Both kinds of functions can use
                 the ORM. What it raises is logged. It is not called if no call is made, as for HEAD
    ``render``   a function that returns HTML for a ``Chunk``, or the name of a template that gets ``chunk``.
                 The HTML is then the data of each event, as for HTMX. ``done`` has no data and follows on
                 ``failed`` too, whose data is the sentence. Escape the model's text (``format_html``)
    ``include``  what is sent besides the text: "reasoning", "tool_calls", "message". By default nothing;
                 reasoning and tool calls with "ai-sdk"
    ``format``   "events", or "ai-sdk": the UI message stream protocol of Vercel's AI SDK
                 (https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol), for its ``useChat``
    ``headers``  are added to the response's own, and replace those of the same name

    The format "events" (https://html.spec.whatwg.org/multipage/server-sent-events.html):

    ``data: {"text": "..."}``  a piece of text
    ``event: reasoning``       a piece of reasoning, {"text": "..."}, if included
    ``event: tool_call``       a piece of a tool call, {"index": 0, "id": "", "name": "", "arguments": ""}, as
                               in ``ToolCallPart``, if included
    ``event: done``            the end of the answer: the whole text, refusal, citations, model,
                               finish_reason, tool_calls, usage and timing (in seconds); if included,
                               reasoning, and message: ``Completion.message``
    ``event: failed``          an error: its class name, and a sentence for the visitor

    Each event has an ``id``. A browser's EventSource asks again when a response has ended, and states the
    last id as ``Last-Event-ID``. Such a request makes no call. It is answered with 204 after the last event
    of an answer, which ends the EventSource, and with ``event: failed`` if the answer had broken off.

    A step of the stream that brings no event, as while the model reasons, becomes a comment
    (https://html.spec.whatwg.org/multipage/server-sent-events.html#authoring-notes). So do each
    ``reading.HEARTBEAT_SECONDS`` in which the model is silent. Proxies close a silent connection, and a WSGI
    server notices only when it sends that the browser has disconnected.

    The message of the error is logged. It is sent to the browser only under ``DEBUG``, because it may
    describe the provider, the network and the pool.

    Raises TypeError and ValueError for other arguments, and ValueError if ``stream`` has ended.
    """
    if not isinstance(stream, CompletionStream | AsyncCompletionStream):
        raise TypeError(
            f"event_stream takes a stream, not {with_article(stream)}: call it with pools[...].stream(...)"
            " or pools[...].astream(...). Django's StreamingHttpResponse sends iterators of your own."
        )
    if on_done is not None and not callable(on_done):
        raise TypeError(f"on_done must be a function of one argument, not {with_article(on_done)}")
    if stream.ended:
        raise ValueError("event_stream reads the stream itself, and this one has ended. Make a new one.")
    return EventStreamResponse(stream, make_format(format, include, render), on_done=on_done, headers=headers)
