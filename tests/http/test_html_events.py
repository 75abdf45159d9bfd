"""``render`` of ``event_stream``: HTML as the data of events, and the arguments that go with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.template import TemplateDoesNotExist
from django.utils.html import format_html

from llm_pool.http import event_stream
from llm_pool.http.events import HTMLEvents
from llm_pool.providers.results import Chunk, ToolCallPart
from testbed.behaviours import events, json_reply
from testbed.chat import chat_event
from tests.fixtures.events import Event, events_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llm_pool.calling.pool import LLMPool
    from testbed import Script, ScriptedServer

MARKUP = [chat_event({"content": text}) for text in ("<b>", "a\nb\r\nc\rd", " e")]
ANSWER = events(*MARKUP, chat_event({}, finish_reason="stop"), b"data: [DONE]\n\n")


def paragraph(chunk: Chunk) -> str:
    return format_html("<p>{}</p>", chunk.text)


@pytest.fixture
def template(settings: Any, tmp_path: Path) -> str:
    backend = "django.template.backends.django.DjangoTemplates"
    settings.TEMPLATES = [{"BACKEND": backend, "DIRS": [tmp_path]}]
    (tmp_path / "chunk.html").write_text("<p>{{ chunk.text }}</p>")
    return "chunk.html"


@pytest.mark.parametrize("kind", ["stream", "astream"])
@pytest.mark.parametrize("render", ["function", "template"])
def test_each_piece_of_text_is_an_event_with_its_html(
    render: str,
    kind: str,
    template: str,
    configure: Callable[..., LLMPool],
    serve_first: Callable[[Script], ScriptedServer],
) -> None:
    """A line that ends in any way goes on in the next ``data``. The model's text is escaped."""
    stream = getattr(configure(serve_first(ANSWER)), kind)("hello")
    sent = events_of(event_stream(stream, render=template if render == "template" else paragraph))
    assert sent == [
        Event("message", "1", "<p>&lt;b&gt;</p>"),
        Event("message", "2", "<p>a\nb\nc\nd</p>"),
        Event("message", "3", "<p> e</p>"),
        Event("done", "end", ""),
    ]


def test_an_error_is_a_sentence_and_ends_the_events_too(
    settings: Any, configure: Callable[..., LLMPool], serve_first: Callable[[Script], ScriptedServer]
) -> None:
    """HTMX's ``sse-close`` names one event."""
    settings.DEBUG = True
    pool = configure(serve_first(json_reply({"error": {"message": "<No>"}}, status=401)))
    failed, done = events_of(event_stream(pool.stream("hello"), render=paragraph))
    assert (failed.name, failed.id) == ("failed", "end")
    assert "&lt;No&gt;" in failed.text
    assert done == Event("done", "end", "")


def test_what_is_included_is_rendered_too() -> None:
    def render(chunk: Chunk) -> str:
        return chunk.text or chunk.reasoning or chunk.tool_calls[0].name

    written = HTMLEvents(render, ["reasoning", "tool_calls"])
    chunks = [
        Chunk("", {}, reasoning="hm"),
        Chunk("Hi", {}),
        Chunk("", {}, None, [ToolCallPart(0, "call_1", "add"), ToolCallPart(1, "call_2", "now")]),
    ]
    assert events_of([written.chunks(chunks).encode()]) == [
        Event("reasoning", "1", "hm"),
        Event("message", "2", "Hi"),
        Event("tool_call", "3", "add"),
    ]


def test_a_function_that_returns_no_html_is_named_in_the_log(
    configure: Callable[..., LLMPool], upstream: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    stream = configure(upstream).stream("hello")
    failed, _ = events_of(event_stream(stream, render=lambda chunk: None))  # type: ignore[arg-type, return-value]
    assert failed.name == "failed"
    assert "render must return HTML as a str, and returned None" in caplog.text


def test_a_template_that_is_missing_is_an_error_at_once(
    template: str, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    with pytest.raises(TemplateDoesNotExist, match="missing"):
        event_stream(configure(upstream).stream("hello"), render="missing.html")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"format": "sse"}, ValueError, 'format must be "events" or "ai-sdk", not \'sse\''),
        ({"include": "reasoning"}, TypeError, 'include must be a tuple or list with some of "reasoning"'),
        ({"include": ["tools"]}, ValueError, '"reasoning", "tool_calls", "message", not \'tools\''),
        ({"include": ["message"], "format": "ai-sdk"}, ValueError, "with format=\"ai-sdk\", not 'message'"),
        ({"include": ["message"], "render": paragraph}, ValueError, "with render, not 'message'"),
        ({"render": paragraph, "format": "ai-sdk"}, ValueError, "leave out one of them"),
        ({"render": 1}, TypeError, "a function of a chunk, or a template's name, not an int"),
    ],
)
def test_wrong_arguments_are_refused_at_once(
    arguments: dict[str, Any],
    error: type[Exception],
    message: str,
    configure: Callable[..., LLMPool],
    upstream: ScriptedServer,
) -> None:
    with pytest.raises(error) as raised:
        event_stream(configure(upstream).stream("hello"), **arguments)
    assert message in str(raised.value)
