"""``event_stream``: a Django response that sends a stream to the browser, under WSGI and ASGI."""

from __future__ import annotations

from collections.abc import Mapping

from llm_pool.calling.stream import AsyncCompletionStream, CompletionStream
from llm_pool.exceptions import with_article
from llm_pool.http.events import JSONEvents
from llm_pool.http.outcome import OnDone
from llm_pool.http.response import EventStreamResponse

__all__ = ["EventStreamResponse", "event_stream"]


def event_stream(
    stream: CompletionStream | AsyncCompletionStream,
    *,
    on_done: OnDone | None = None,
    headers: Mapping[str, str] | None = None,
) -> EventStreamResponse:
    """Return a response that sends ``stream`` to the browser as server-sent events.

    The stream is closed when the browser disconnects. A HEAD request makes no call to the model.

    ``on_done``  a function, sync or async, that is called once with the ``Completion`` or the error, when the
                 last byte has been sent or the browser has left. In the latter case the error is a
                 ``StreamInterrupted``, whose ``partial`` is the text so far. Both kinds of functions can use
                 the ORM. What it raises is logged. It is not called if no call is made, as for HEAD
    ``headers``  are added to the response's own, and replace those of the same name

    Events (https://html.spec.whatwg.org/multipage/server-sent-events.html):

    ``data: {"text": "..."}``  a piece of text
    ``event: done``            the end of the answer: the whole text, refusal, citations, model,
                               finish_reason, tool_calls, usage and timing (in seconds)
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

    Raises TypeError if ``stream`` is not a stream, and ValueError if it has ended.
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
    return EventStreamResponse(stream, JSONEvents(), on_done=on_done, headers=headers)
