"""Error reports such as Django's page show the local variables of each frame: none may contain the key."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from llm_pool import exceptions
from llm_pool.providers import PROVIDERS
from llm_pool.providers.base import Head
from llm_pool.redaction import without_frames

KEY = "sk-secret"
HEAD = Head(200, {}, (KEY,))
BODIES = {
    "no JSON": f"<p>{KEY}</p>",
    "no answer": json.dumps({"echo": KEY}),
    "an error": json.dumps({"error": {"message": f"no {KEY}"}}),
    "another shape": json.dumps(
        {
            "choices": [{"message": KEY, "delta": KEY}],
            "type": "message_start",
            "message": KEY,
            "content": [KEY],
            "output": [KEY],
        }
    ),
    "an item": json.dumps({"type": "response.output_item.done", "item": KEY}),
}


def caught_in(function: Callable[..., Any], *args: Any) -> traceback.StackSummary:
    with pytest.raises(exceptions.LLMPoolError) as caught:
        function(*args)
    error = caught.value
    assert KEY not in str(error) + str(vars(error))
    assert error.__cause__ is None
    assert error.__context__ is None
    trace = error.__traceback__
    assert trace is not None
    return traceback.StackSummary.extract(traceback.walk_tb(trace.tb_next), capture_locals=True)


def assert_hidden(frames: traceback.StackSummary) -> None:
    own = [frame for frame in frames if "llm_pool" in frame.filename]
    assert own
    assert [(frame.name, frame.locals) for frame in own if KEY in str(frame.locals)] == []


@pytest.mark.parametrize("provider", ["openai", "openai-responses", "anthropic"])
@pytest.mark.parametrize("what", BODIES)
def test_no_frame_of_an_invalid_answer_contains_the_key(what: str, provider: str) -> None:
    assert_hidden(caught_in(PROVIDERS[provider]().parse_completion, HEAD, BODIES[what].encode()))


@pytest.mark.parametrize(
    ("what", "provider"),
    [
        *product(["no JSON", "an error", "another shape"], ["openai", "anthropic"]),
        *product(["no JSON", "an error", "an item"], ["openai-responses"]),
    ],
)
def test_no_frame_of_an_invalid_event_contains_the_key(what: str, provider: str) -> None:
    reader = PROVIDERS[provider]().stream_reader(HEAD)
    body = f"data: {BODIES[what]}\n\n".encode()
    assert_hidden(caught_in(reader.feed, body))
    assert_hidden(caught_in(reader.feed, body))
    assert_hidden(caught_in(reader.completion))


def test_the_repr_of_a_head_does_not_contain_the_key() -> None:
    assert KEY not in repr(HEAD)


def raise_with_cause_and_other_context() -> None:
    try:
        raise ValueError("a context")
    except ValueError:
        try:
            raise KeyError("a cause")
        except KeyError as error:
            cause = error
    try:
        raise OSError("another context")
    except OSError:
        raise RuntimeError("an error") from cause


def test_without_frames_removes_the_tracebacks_of_causes_and_of_contexts() -> None:
    with pytest.raises(RuntimeError) as caught:
        raise_with_cause_and_other_context()
    error = caught.value
    cause, context = error.__cause__, error.__context__
    assert cause is not None and context is not None and cause is not context
    chain = [error, cause, context, cause.__context__]
    assert all(link is not None and link.__traceback__ is not None for link in chain)
    assert without_frames(error) is error
    assert all(link is not None and link.__traceback__ is None for link in chain)
