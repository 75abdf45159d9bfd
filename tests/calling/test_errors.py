"""Invalid input and bad responses raise an exception of the package; later calls succeed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import pytest

from llm_pool import exceptions
from testbed.behaviours import events, json_reply, reply, send, steps
from tests.fixtures.calls import CALLS, STREAMS, WHOLE, ask

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_pool.calling.pool import LLMPool
    from testbed import Script, ScriptedServer

REQUEST_ID = {"X-Request-Id": "req-7"}
HTML = {"Content-Type": "text/html", **REQUEST_ID}
PAGE = b"<html><body><h1>Bad gateway</h1></body></html>"
TEXT = {"Content-Type": "text/plain", **REQUEST_ID}
JSON = {"Content-Type": "application/json", **REQUEST_ID}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("messages", "params", "kind", "says"),
    [
        (None, {}, exceptions.InvalidMessages, "messages is None"),
        (b"hello", {}, exceptions.InvalidMessages, "messages is a bytes"),
        ({"role": "user", "content": "hi"}, {}, exceptions.InvalidMessages, "[message]"),
        ([], {}, exceptions.InvalidMessages, "empty"),
        (["hi"], {}, exceptions.InvalidMessages, "messages[0] is a str"),
        ([{"content": "hi"}], {}, exceptions.InvalidMessages, 'messages[0]["role"]'),
        ([{"role": "user", "content": 7}], {}, exceptions.InvalidMessages, 'messages[0]["content"]'),
        ("half a \ud83d pair", {}, exceptions.InvalidMessages, "surrogate"),
        ("hi", {"user": "\udc00"}, exceptions.InvalidParameter, "user"),
        ("hi", {"temperature": float("nan")}, exceptions.InvalidParameter, "temperature"),
        ("hi", {"tools": [{"function": object()}]}, exceptions.InvalidParameter, "tools"),
        ("hi", {"stream": "both"}, exceptions.InvalidParameter, "stream='both'"),
    ],
)
def test_invalid_input_is_refused_before_a_connection_is_opened(
    call: str,
    messages: Any,
    params: dict[str, Any],
    kind: type[Exception],
    says: str,
    configure: Callable[..., LLMPool],
    upstream: ScriptedServer,
) -> None:
    with pytest.raises(kind) as caught:
        ask(call, configure(upstream), messages, **params)
    assert says in str(caught.value)
    assert isinstance(caught.value, exceptions.LLMPoolError)
    assert isinstance(caught.value, ValueError)
    assert upstream.connections_accepted == 0


class Bad(NamedTuple):
    """A response that is not a completion, and the error that it raises.

    answer   the server's script
    kind     the exception's class
    status   its ``status_code``
    says     a part of its text
    """

    answer: Script
    kind: type[exceptions.LLMPoolError]
    status: int
    says: str


def error(status: int, code: str, **headers: str) -> Script:
    value = {"error": {"message": f"It is {code}.", "type": "some_error", "code": code}}
    return json_reply(value, status=status, headers={**REQUEST_ID, **headers})


ANSWERS = {
    "unknown model": Bad(error(404, "model_not_found"), exceptions.NotFound, 404, "It is model_not_found."),
    "wrong key": Bad(error(401, "invalid_key"), exceptions.AuthenticationFailed, 401, "API_KEY"),
    "too many": Bad(
        error(429, "slow_down", **{"Retry-After": "7"}), exceptions.RateLimited, 429, "It is slow_down."
    ),
    "HTML with 502": Bad(reply(502, PAGE, HTML), exceptions.ServerFailed, 502, "Bad gateway"),
    "nothing with 500": Bad(reply(500, b"", TEXT), exceptions.ServerFailed, 500, "500"),
    "HTML with 200": Bad(reply(200, PAGE, HTML), exceptions.InvalidResponse, 200, "Bad gateway"),
    "an empty body": Bad(reply(200, b"", JSON), exceptions.InvalidResponse, 200, "an empty body"),
    "no JSON": Bad(reply(200, b"Hello!", TEXT), exceptions.InvalidResponse, 200, "Hello!"),
    "half a JSON": Bad(reply(200, b'{"choices": [', JSON), exceptions.InvalidResponse, 200, "choices"),
    "JSON in no UTF": Bad(reply(200, b'{"a": "\xff"}', JSON), exceptions.InvalidResponse, 200, "not"),
    "an overload with 200": Bad(error(200, "overloaded"), exceptions.Overloaded, 200, "It is overloaded."),
    "an unknown error with 200": Bad(error(200, "odd"), exceptions.APIError, 200, "It is odd."),
}
WHOLE_ANSWERS = {
    "a list": Bad(reply(200, b"[]", JSON), exceptions.InvalidResponse, 200, "list"),
    "no choices": Bad(reply(200, b'{"id": "a"}', JSON), exceptions.InvalidResponse, 200, "no choices"),
    "empty choices": Bad(
        reply(200, b'{"choices": []}', JSON), exceptions.InvalidResponse, 200, "empty list of choices"
    ),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("what", ANSWERS)
def test_a_bad_answer_is_one_error_and_keeps_the_connection(
    what: str,
    call: str,
    configure: Callable[..., LLMPool],
    serve_first: Callable[[Script], ScriptedServer],
) -> None:
    assert_one_error(ANSWERS[what], call, configure, serve_first)


@pytest.mark.parametrize("call", WHOLE)
@pytest.mark.parametrize("what", WHOLE_ANSWERS)
def test_an_answer_without_choices_is_one_error(
    what: str,
    call: str,
    configure: Callable[..., LLMPool],
    serve_first: Callable[[Script], ScriptedServer],
) -> None:
    assert_one_error(WHOLE_ANSWERS[what], call, configure, serve_first)


def assert_one_error(
    bad: Bad,
    call: str,
    configure: Callable[..., LLMPool],
    serve_first: Callable[[Script], ScriptedServer],
) -> Any:
    server = serve_first(bad.answer)
    pool = configure(server)
    with pytest.raises(exceptions.LLMPoolError) as caught:
        ask(call, pool)
    error: Any = caught.value
    assert type(error) is bad.kind
    assert isinstance(error, httpx.HTTPError)
    assert (error.status_code, error.request_id) == (bad.status, "req-7")
    assert bad.says in str(error)
    assert ask(call, pool).text
    assert server.connections_accepted == 1
    return error


@pytest.mark.parametrize("call", CALLS)
def test_a_429_has_the_time_to_retry_after(
    call: str, configure: Callable[..., LLMPool], serve_first: Callable[[Script], ScriptedServer]
) -> None:
    refused = assert_one_error(ANSWERS["too many"], call, configure, serve_first)
    assert refused.retry_after == 7.0
    assert refused.code == "slow_down"
    assert refused.response.status_code == 429


@pytest.mark.parametrize("call", STREAMS)
def test_an_error_object_within_a_stream_is_raised_after_the_text_before_it(
    call: str, configure: Callable[..., LLMPool], serve_first: Callable[[Script], ScriptedServer]
) -> None:
    broken = events(
        b'data: {"choices": [{"index": 0, "delta": {"content": "Hel"}}]}\n\n',
        b'data: {"error": {"message": "It is overloaded.", "code": "overloaded"}}\n\ndata: [DONE]\n\n',
    )
    server = serve_first(broken)
    pool = configure(server)
    with pytest.raises(exceptions.APIError, match=r"It is overloaded\.") as caught:
        ask(call, pool)
    assert caught.value.partial == "Hel"
    assert caught.value.status_code == 200
    assert ask(call, pool).text == "onetwothree"
    assert server.connections_accepted == 1


@pytest.mark.parametrize("call", STREAMS)
def test_a_stream_without_a_choice_is_an_error(
    call: str, configure: Callable[..., LLMPool], serve_first: Callable[[Script], ScriptedServer]
) -> None:
    server = serve_first(events(b'data: {"choices": []}\n\n', b"data: [DONE]\n\n"))
    pool = configure(server)
    with pytest.raises(exceptions.LLMPoolError):
        ask(call, pool)
    assert ask(call, pool).text == "onetwothree"
    assert server.connections_accepted == 1


@pytest.mark.parametrize("call", CALLS)
def test_a_prompt_of_five_megabytes_arrives_whole(
    call: str, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    pool = configure(upstream)
    prompt = "é" * 2_500_000
    for _ in range(2):
        assert ask(call, pool, prompt, marker="m").text
    assert [request.json()["messages"][0]["content"] == prompt for request in upstream.requests] == [True] * 2
    assert upstream.connections_accepted == 1


@pytest.mark.parametrize("call", CALLS)
def test_a_connection_that_breaks_in_the_answer_is_not_used_again(
    call: str, configure: Callable[..., LLMPool], serve_first: Callable[[Script], ScriptedServer]
) -> None:
    async def break_off(conn: Any) -> None:
        await conn.read_request()
        await conn.send_head(200, {**JSON, "Content-Length": "100"})
        await conn.send(b'{"cho')
        await conn.close()

    server = serve_first(steps(break_off))
    pool = configure(server)
    with pytest.raises((exceptions.ProtocolError, exceptions.StreamInterrupted)):
        ask(call, pool)
    assert ask(call, pool).text
    assert server.connections_accepted == 2
    assert pool.stats().closed


CONTROLS = "no\x1b[31m\r\n\u202e[INFO] all is well"
ON_ONE_LINE = r"no\u001b[31m \u202e[INFO] all is well ***"


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("place", "shown"),
    [
        ("message", ON_ONE_LINE),
        ("code", r"no\u001b[31m\u000d\u000a\u202e[INFO] all is well ***"),
        ("text", ON_ONE_LINE),
        ("header", r"no\u009b[31m"),
        ("error in a 200", ON_ONE_LINE),
    ],
)
def test_control_characters_of_an_answer_are_escaped_in_the_message(
    place: str,
    shown: str,
    call: str,
    secret: str,
    configure: Callable[..., LLMPool],
    serve_first: Callable[[Script], ScriptedServer],
) -> None:
    """The key in the same text is hidden. ``body`` has the characters that were sent."""
    text = f"{CONTROLS} {secret}"
    says = {"error": {"message": text}}
    answers = {
        "message": json_reply(says, status=400),
        "code": json_reply({"error": {"code": text}}, status=400),
        "text": reply(500, text.encode(), TEXT),
        "header": reply(500, b"no", {"X-Request-Id": "no\x9b[31m"}),
        "error in a 200": json_reply(says),
    }
    with pytest.raises(exceptions.APIError) as caught:
        ask(call, configure(serve_first(answers[place])))
    assert shown in str(caught.value)
    assert str(caught.value).isprintable()
    if place == "message":
        assert caught.value.body == {"error": {"message": f"{CONTROLS} ***"}}


@pytest.mark.parametrize("call", CALLS)
def test_control_characters_of_a_server_that_breaks_http_are_escaped(
    call: str, configure: Callable[..., LLMPool], serve: Callable[..., ScriptedServer]
) -> None:
    pool = configure(serve(send(b"HTTP/1.1 2\x1b[31m OK\r\n\r\n")))
    with pytest.raises(exceptions.LLMPoolError) as caught:
        ask(call, pool)
    assert str(caught.value).isprintable()
