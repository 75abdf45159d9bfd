"""The faults of the scripted provider: errors, ends of the connection, silence, and the pace of a stream."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import httpx
import pytest

from testbed import Gate
from testbed.behaviours import send
from testbed.provider import ERRORS, ScriptedProvider
from tests.testbed.provider_calls import CHAT, MESSAGES, call, events_in, read_some

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REQUEST = b'POST /v1/messages HTTP/1.1\r\nContent-Length: 16\r\n\r\n{"stream": true}'
PING = b'event: ping\ndata: {"type": "ping"}\n\n'


@pytest.fixture
def ask(llm_provider: ScriptedProvider) -> Iterator[Callable[[], socket.socket]]:
    """``ask()``: a socket that has asked for a stream of Anthropic's API."""
    with contextlib.ExitStack() as opened:

        def connect() -> socket.socket:
            sock = socket.create_connection((llm_provider.host, llm_provider.port), timeout=5)
            opened.enter_context(sock)
            sock.sendall(REQUEST)
            return sock

        yield connect


def read_until(sock: socket.socket, wanted: bytes) -> bytes:
    data = b""
    while wanted not in data:
        piece = sock.recv(65536)
        assert piece, data
        data += piece
    return data


@pytest.mark.parametrize("word", ERRORS)
def test_an_error_has_the_status_and_the_type_of_each_api(llm_provider: ScriptedProvider, word: str) -> None:
    llm_provider.fail(word)
    error, chat, message = ERRORS[word], call(llm_provider, CHAT), call(llm_provider, MESSAGES)
    assert (chat.status_code, message.status_code) == (error.status, error.anthropic_status)
    fields = chat.json()["error"]
    assert (fields["type"], fields["code"], fields["message"]) == (error.type, error.code, error.message)
    assert message.json() == {
        "type": "error",
        "error": {"type": error.anthropic_type, "message": error.message},
    }


def test_an_error_can_have_its_own_words(llm_provider: ScriptedProvider) -> None:
    llm_provider.fail(
        418, message="Short.", type="teapot", code="short", retry_after=0.5, headers={"X-A": "b"}
    )
    response = call(llm_provider, CHAT)
    assert response.json()["error"] == {"message": "Short.", "type": "teapot", "param": None, "code": "short"}
    assert (response.status_code, response.headers["retry-after"], response.headers["x-a"]) == (
        418,
        "0.5",
        "b",
    )
    assert call(llm_provider, MESSAGES).json()["error"] == {"type": "teapot", "message": "Short."}


def test_an_unknown_error_is_refused_at_once(llm_provider: ScriptedProvider) -> None:
    with pytest.raises(ValueError, match="did you mean 'overloaded'"):
        llm_provider.fail("overload")


@pytest.mark.parametrize(
    ("path", "kind"), [(CHAT, "service_unavailable_error"), (MESSAGES, "overloaded_error")]
)
def test_an_error_in_a_stream_comes_after_its_pieces(
    llm_provider: ScriptedProvider, path: str, kind: str
) -> None:
    llm_provider.fail_in_stream("overloaded", after=2, message="Busy.")
    *events, last = events_in(call(llm_provider, path, stream=True))
    assert (last["error"]["type"], last["error"]["message"]) == (kind, "Busy.")
    assert str(events).count("1 ") and str(events).count("2 ") and "'3 '" not in str(events)
    assert call(llm_provider, path).status_code in (503, 529)


@pytest.mark.parametrize("options", [{}, {"fin": True}, {"reset": True}])
def test_a_connection_ends_after_the_pieces(
    llm_provider: ScriptedProvider, ask: Callable[[], socket.socket], options: dict[str, bool]
) -> None:
    llm_provider.cut_after(2, pieces=["a", "b", "c"], **options)
    asked = ask()
    data = read_until(asked, b'"text_delta", "text": "b"}}\n\n\r\n')
    assert b'"text": "c"' not in data
    if options.get("reset"):
        with pytest.raises(ConnectionResetError):
            asked.recv(1)
    else:
        assert asked.recv(1) == b""
        llm_provider.wait_until(lambda server: server.connections_open == bool(options.get("fin")))


def test_json_is_cut_in_its_middle(llm_provider: ScriptedProvider) -> None:
    llm_provider.cut_after(1)
    text = read_some(llm_provider, CHAT)
    assert text.startswith('{"id"') and not text.endswith("}")


def test_an_answer_can_be_cut_in_a_whole_body(llm_provider: ScriptedProvider) -> None:
    llm_provider.cut_after(1, last_chunk=True)
    assert not call(llm_provider, CHAT).text.endswith("}")
    *_, last = events_in(call(llm_provider, CHAT, stream=True))
    assert last["choices"][0]["delta"] == {"content": "1 "}


def test_a_connection_ends_in_one_way(llm_provider: ScriptedProvider) -> None:
    with pytest.raises(ValueError, match="one of fin, reset and last_chunk"):
        llm_provider.cut_after(1, fin=True, reset=True)


def test_a_fault_after_more_pieces_than_there_are_is_an_error() -> None:
    with ScriptedProvider() as provider:
        provider.cut_after(3, pieces=["a"])
        assert "has only 1" in call(provider, CHAT, stream=True).json()["error"]["message"]
        provider.errors.clear()


def test_silence_has_no_head(llm_provider: ScriptedProvider) -> None:
    llm_provider.silence()
    with pytest.raises(httpx.ReadTimeout):
        call(llm_provider, CHAT, timeout=0.05)


@pytest.mark.parametrize(("path", "beat"), [(CHAT, ": keep-alive\n\n"), (MESSAGES, PING.decode())])
def test_silence_in_a_stream_can_have_heartbeats(
    llm_provider: ScriptedProvider, path: str, beat: str
) -> None:
    llm_provider.silence(after=1, heartbeats=0.01)
    text = read_some(llm_provider, path, until=beat * 2, stream=True)
    assert '"1 "' in text and '"2 "' not in text


def test_silence_without_a_stream_can_have_blank_lines(llm_provider: ScriptedProvider) -> None:
    llm_provider.silence(heartbeats=0.01)
    assert read_some(llm_provider, CHAT, until="\n\n\n") == "\n\n\n"


def test_a_stream_waits_at_a_gate_before_each_piece(
    llm_provider: ScriptedProvider, ask: Callable[[], socket.socket]
) -> None:
    gate = Gate()
    llm_provider.stream(["a", "b"], gap=gate)
    asked = ask()
    gate.wait_reached()
    assert b"text_delta" not in read_until(asked, b"event: ping\n")
    gate.admit()
    gate.wait_reached(2)
    assert b'"text": "b"' not in read_until(asked, b'"text": "a"')
    gate.open()
    read_until(asked, b"0\r\n\r\n")


def test_a_stream_sends_heartbeats_while_it_waits(
    llm_provider: ScriptedProvider, ask: Callable[[], socket.socket]
) -> None:
    llm_provider.stream(["a"], gap="token", heartbeats=0.01)
    asked = ask()
    data = b""
    while data.count(PING) < 3:  # one is a part of each stream
        data += read_until(asked, PING)
    assert b"text_delta" not in data
    llm_provider.gate("token").open()
    read_until(asked, b'"text": "a"')


def test_heartbeats_without_a_gap_are_refused(llm_provider: ScriptedProvider) -> None:
    with pytest.raises(ValueError, match="give a gap"):
        llm_provider.stream(["a"], heartbeats=1)


def test_a_script_can_send_everything(llm_provider: ScriptedProvider) -> None:
    llm_provider.play(send(b"HTTP/1.1 204 No Content\r\n\r\n"))
    assert call(llm_provider, CHAT).status_code == 204


def test_a_silence_without_a_head_takes_nothing_that_comes_before_it(llm_provider: ScriptedProvider) -> None:
    with pytest.raises(ValueError, match="give ``after``"):
        llm_provider.silence(gap=1)


def test_a_redirect_names_its_place(llm_provider: ScriptedProvider) -> None:
    llm_provider.redirect("/v2/chat/completions", 308)
    response = call(llm_provider, CHAT)
    assert (response.status_code, response.headers["location"]) == (308, "/v2/chat/completions")
