"""``static/llm_pool/stream.js`` in a browser: what it posts, how it reads, and how it fails."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from testbed.behaviours import EVENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Page

    from testbed import ScriptedServer, ServerConnection

pytestmark = [pytest.mark.server, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
MODULE = ROOT / "llm_pool" / "static" / "llm_pool" / "stream.js"
DONE = b'event: done\nid: end\ndata: {"text": "Hello", "usage": null}\n\n'
ANSWER = (
    b'event: reasoning\nid: 1\ndata: {"text": "hm"}\n\n:\n\nid: 2\ndata: {"text": "Hel"}\n\n'
    b'id: 3\ndata: {"text": "lo"}\n\nevent: tool_call\nid: 4\n'
    b'data: {"index": 0, "id": "call_1", "name": "add", "arguments": "{}"}\n\n' + DONE
)
FAILED = b'event: failed\nid: end\ndata: {"error": "PoolFull", "message": "Too many requests."}\n\n'
RESPONSES: dict[str, tuple[int, dict[str, str], bytes]] = {
    "/answer": (200, EVENTS, ANSWER),
    "/chat/": (200, EVENTS, ANSWER),
    "/failed": (200, EVENTS, b'id: 1\ndata: {"text": "Hel"}\n\n' + FAILED),
    "/cut": (200, EVENTS, b'id: 1\ndata: {"text": "Hel"}\n\nevent: done\ndata: {}\n'),
    "/busy": (503, {"Content-Type": "application/json"}, b'{"error": "pool_full", "message": "Busy."}'),
    "/proxy": (503, {"Content-Type": "text/html"}, b"<h1>503</h1>"),
    "/forbidden": (403, {"Content-Type": "text/html"}, b"<h1>CSRF</h1>"),
    "/broken": (500, {"Content-Type": "text/html"}, b"<h1>500</h1>"),
    "/login": (200, {"Content-Type": "text/html"}, b"<form></form>"),
}
HTML, SCRIPT = {"Content-Type": "text/html"}, {"Content-Type": "text/javascript"}
STRICT = {**HTML, "Content-Security-Policy": "default-src 'self'; img-src data:"}
PAGE = b"<!doctype html><title>t</title><link rel=icon href=data:,><body>"
[EXAMPLE] = re.findall(r"```js\n(.*?)```", README.read_text(), re.DOTALL)
EXAMPLE_PAGE = PAGE + (
    b"<form><input type=hidden name=csrfmiddlewaretoken value=field><input name=q value=Warm?><button>Ask"
    b"</button></form><output></output><script type=module src=/static/chat.js></script>"
)
FILES = {
    "/": (HTML, PAGE),
    "/example": (STRICT, EXAMPLE_PAGE),
    "/stream.js": (SCRIPT, MODULE.read_bytes()),
    "/static/llm_pool/stream.js": (SCRIPT, MODULE.read_bytes()),
    "/static/chat.js": (SCRIPT, EXAMPLE.encode()),
}


async def site(conn: ServerConnection) -> None:
    """``FILES``, and a response for each path of ``RESPONSES``."""
    path = (await conn.read_request()).target
    if path in FILES:
        await conn.respond(200, *FILES[path])
    elif path == "/waiting":
        await conn.send_head(200, {**EVENTS, "Transfer-Encoding": "chunked"})
        await conn.send_chunk(b'id: 1\ndata: {"text": "Hel"}\n\n')
        await conn.wait_for("token")
        await conn.reset()
    elif path == "/open":
        await conn.send_head(200, {**EVENTS, "Transfer-Encoding": "chunked"})
        await conn.send_chunk(ANSWER)
        await conn.wait_for("token")
    else:
        await conn.respond(*RESPONSES[path])


@pytest.fixture
def server(serve: Callable[..., ScriptedServer]) -> ScriptedServer:
    return serve(site)


@pytest.fixture
def page(browser: Browser, server: ScriptedServer) -> Iterator[Page]:
    """A page of the site. Unlike the other tests' page it may log errors: Chromium logs each 403."""
    with browser.new_page() as page:
        page.goto(server.url)
        page.evaluate(
            """async () => {
                Object.assign(window, await import("/stream.js"));
                window.told = [];
                window.ask = async (url, data = {}) => {
                    const tell = (kind) => (value) => told.push([kind, value]);
                    const [onText, onReasoning, onToolCall] = ["text", "reasoning", "tool"].map(tell);
                    window.answer = stream(url, data, { onText, onReasoning, onToolCall });
                    try { return { done: await answer.done }; }
                    catch ({ name, message, code, status }) { return { name, message, code, status }; }
                };
            }"""
        )
        yield page


def test_an_answer_is_told_piece_by_piece(page: Page) -> None:
    assert page.evaluate("ask('/answer')") == {"done": {"text": "Hello", "usage": None}}
    assert page.evaluate("told") == [
        ["reasoning", "hm"],
        ["text", "Hel"],
        ["text", "lo"],
        ["tool", {"index": 0, "id": "call_1", "name": "add", "arguments": "{}"}],
    ]


def test_functions_can_be_left_out(page: Page) -> None:
    assert page.evaluate("stream('/answer', {}).done")["text"] == "Hello"


def test_the_answer_is_there_before_the_response_ends(page: Page) -> None:
    """A server may run ``on_done`` before it ends the response."""
    assert page.evaluate("ask('/open')")["done"]["text"] == "Hello"


def test_each_error_is_a_sentence(page: Page) -> None:
    expected: dict[str, tuple[int, str, str]] = {
        "/failed": (200, "PoolFull", "Too many requests."),
        "/busy": (503, "pool_full", "Busy."),
        "/cut": (0, "", "The answer ended before it was complete. Please try again."),
        "/proxy": (503, "", "The server is busy. Please try again in a few seconds."),
        "/forbidden": (
            403,
            "",
            "You may not do this, or this page is out of date. Reload it and try again.",
        ),
        "/broken": (500, "", "The server answered with status 500."),
        "/login": (200, "", "The server sent no answer. Reload this page and try again."),
        "http://127.0.0.1:9/": (0, "", "The server cannot be reached. Please try again."),
    }
    for path, (status, code, message) in expected.items():
        error = {"name": "StreamError", "status": status, "code": code, "message": message}
        assert page.evaluate("ask", path) == error


def test_a_connection_that_breaks_off_is_an_error(page: Page, server: ScriptedServer) -> None:
    server.gate("token").shut()
    page.evaluate("window.asked = ask('/waiting'), null")
    page.wait_for_function("told.length")
    server.gate("token").open()
    error = page.evaluate("asked")
    assert error["name"] == "StreamError"
    assert error["message"].startswith("The connection was lost before the answer was complete.")


def test_abort_ends_the_request(page: Page, server: ScriptedServer) -> None:
    server.gate("token").shut()
    page.evaluate("window.asked = ask('/waiting'), null")
    page.wait_for_function("told.length")
    page.evaluate("answer.abort()")
    assert page.evaluate("asked")["name"] == "AbortError"
    server.wait_until(lambda s: len(s.disconnects) == 1)


def test_an_error_of_a_function_rejects_the_answer_and_ends_the_request(
    page: Page, server: ScriptedServer
) -> None:
    server.gate("token").shut()
    fail = "stream('/waiting', {}, { onText() { throw new Error('own') } }).done.catch((e) => e.message)"
    assert page.evaluate(fail) == "own"
    server.wait_until(lambda s: len(s.disconnects) == 1)


@pytest.mark.parametrize(
    ("place", "token"),
    [
        ("document.body.innerHTML = '<input type=hidden name=csrfmiddlewaretoken value=field>'", "field"),
        ("document.head.innerHTML += '<meta name=csrf-token content=meta>'", "meta"),
        ("document.cookie = 'other=1'; document.cookie = 'csrftoken=cookie'", "cookie"),
        ("null", ""),
    ],
)
def test_it_sends_djangos_token(page: Page, server: ScriptedServer, place: str, token: str) -> None:
    page.evaluate(place)
    page.evaluate("ask('/answer', { question: 'Warm?' })")
    request = server.requests[-1]
    assert request.method == "POST"
    assert request.headers["x-csrftoken"] == token
    assert request.headers["content-type"] == "application/json"
    assert request.headers["accept"] == "text/event-stream, application/json"
    assert request.json() == {"question": "Warm?"}


def test_another_origin_does_not_get_the_token(page: Page, server: ScriptedServer) -> None:
    """Chromium first asks the other origin whether the request may be made."""
    asked: list[dict[str, str]] = []
    page.on("request", lambda request: asked.append(request.headers))
    page.evaluate("document.cookie = 'csrftoken=cookie'")
    page.evaluate("ask", server.url.replace("127.0.0.1", "localhost") + "/answer")
    assert asked
    assert all("x-csrftoken" not in headers for headers in asked)


@pytest.mark.parametrize("kind", ["FormData", "URLSearchParams"])
def test_a_form_is_sent_as_a_form(page: Page, server: ScriptedServer, kind: str) -> None:
    page.evaluate(
        f"(() => {{ const form = new {kind}(); form.append('q', 'Warm?'); return ask('/answer', form); }})()"
    )
    request = server.requests[-1]
    assert b"Warm" in request.body
    assert "form" in request.headers["content-type"]


READ_IN_PIECES = """async ([bytes, size]) => {
    const pieces = new ReadableStream({
        start(controller) {
            for (let at = 0; at < bytes.length; at += size)
                controller.enqueue(new Uint8Array(bytes.slice(at, at + size)));
            controller.close();
        },
    });
    window.fetch = async () => new Response(pieces, { headers: { "Content-Type": "text/event-stream" } });
    const found = [];
    for await (const { name, id, data } of events("/", {})) found.push([name, id, data]);
    return found;
}"""


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
def test_events_are_parsed_wherever_the_bytes_are_cut(page: Page, end: str) -> None:
    """https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation"""
    lines = [
        "\ufeffdata: süß 🏊",  # a byte order mark is dropped
        "",
        ": a comment",
        "event: named",
        "id: 7",
        "data",
        "data:two",
        "data:  three",
        "",
        "event: without data",
        "",
        "retry: 5",
        "unknown: field",
        "data: the id stays",
        "",
        "id: a\0b",
        "data:",
        "",
        "data: cut",
    ]
    body = list(end.join(lines).encode())
    for size in (1, 2, 3, 7, 1000):
        assert page.evaluate(READ_IN_PIECES, [body, size]) == [
            ["message", "", "süß 🏊"],
            ["named", "7", "\ntwo\n three"],
            ["message", "7", "the id stays"],
            ["message", "7", ""],
        ]


def test_json_is_what_event_stream_sends(page: Page) -> None:
    """U+2028 and a line feed in a text do not end a line."""
    text = "a\u2028b\nc"
    body = list(b"data: " + json.dumps({"text": text}, ensure_ascii=False).encode() + b"\n\n")
    ((_, _, data),) = page.evaluate(READ_IN_PIECES, [body, 5])
    assert json.loads(data) == {"text": text}


def test_the_example_of_the_readme_shows_an_answer(page: Page, server: ScriptedServer) -> None:
    """Its page has a strict content security policy, for which the README promises that it works."""
    page.goto(f"{server.url}/example")
    page.get_by_role("button").click()
    page.locator("output").get_by_text("Hello", exact=True).wait_for()
    request = server.requests[-1]
    assert (request.method, request.target) == ("POST", "/chat/")
    assert request.headers["x-csrftoken"] == "field"
    assert b"Warm?" in request.body
