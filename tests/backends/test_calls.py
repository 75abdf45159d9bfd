"""Every engine has the same API and sends the same requests."""

from __future__ import annotations

import asyncio
import threading

import pytest

from llm_pool.engine.loops import portal
from llm_pool.exceptions import InvalidRequest, RateLimited
from testbed.behaviours import early_reply, echo, raw
from tests.backends.conftest import HTTP1
from tests.backends.servers import by_path, model
from tests.fixtures.callers import in_thread, until
from tests.fixtures.calls import CALLS, ask
from tests.fixtures.engine import request_to

PIECES = [b"a" * 70_000, b"b", *[b"c" * 200_000] * 6]


@pytest.mark.parametrize("call", ["complete", "acomplete", "stream", "astream"])
def test_every_kind_of_call_to_a_model_works(serve, play, configure, call):
    pool = configure(serve(play(model)))
    if call == "complete":
        assert pool.complete("hello").text == "Hello!"
    elif call == "acomplete":
        assert asyncio.run(pool.acomplete("hello")).text == "Hello!"
    elif call == "stream":
        stream = pool.stream("hello")
        assert [str(chunk) for chunk in stream if str(chunk)] == ["one", "two", "three"]
        assert stream.completion.text == "onetwothree"
    else:

        async def read():
            return [str(chunk) async for chunk in pool.astream("hello") if str(chunk)]

        assert asyncio.run(read()) == ["one", "two", "three"]


async def test_arequest_calls_any_endpoint(server, configure):
    pool = configure(server)
    response = await pool.arequest("POST", "/things?a=b%20c", content=b"12345")
    assert response.json() == {"target": "/v1/things?a=b%20c", "size": 5}


def test_request_calls_any_endpoint(server, configure):
    pool = configure(server)
    assert pool.request("GET", "/things").json() == {"target": "/v1/things", "size": 0}


def test_a_connection_is_reused(server, configure):
    pool = configure(server)
    timings = [pool.request("GET", "/x").extensions["llm_pool_marks"] for _ in range(5)]
    assert [marks.reused for marks in timings] == [False, True, True, True, True]
    assert timings[0].dialing > 0
    assert timings[1].dialing == 0
    assert server.connections_accepted == 1
    assert (pool.stats().opened, pool.stats().reused, pool.stats().idle) == (1, 4, 1)


def test_twenty_event_loops_in_a_row_use_one_connection(server, configure):
    """Scenario 53: a connection outlives the loop of the call that it was made for."""
    pool = configure(server)
    for _ in range(20):
        assert asyncio.run(pool.arequest("GET", "/x")).status_code == 200
    assert server.connections_accepted == 1


def test_threads_share_one_pool(server, configure):
    """Scenario 53: twelve threads, three connections, nothing raised."""
    pool = configure(server, LIMITS={"max_connections": 3})
    outcomes = []

    def work():
        outcomes.extend(pool.request("GET", "/x").status_code for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [200] * 60
    assert server.peak_open <= 3
    assert server.connections_accepted <= 3


# Requests


@pytest.mark.kinds(HTTP1)
def test_the_request_is_the_same_on_every_engine(serve, configure):
    """No engine adds, drops or renames a header, or changes the framing of the body."""
    server = serve(echo)
    pool = configure(server, HEADERS={"X-Team": "blue"})
    request = {"content": b"{}", "headers": {"X-One": "1", "x-two": "ä".encode()}}
    seen = pool.request("PUT", "/a%2Fb?q=%20", **request).json()
    headers = seen["headers"]
    assert (seen["method"], seen["target"], seen["body"]) == ("PUT", "/v1/a%2Fb?q=%20", "{}")
    agent = headers.pop("user-agent")
    assert agent.startswith("llm_pool/")
    assert headers == {
        "host": server.authority,
        "accept": "*/*",
        "accept-encoding": "identity",
        "connection": "keep-alive",
        "authorization": "Bearer sk-test",
        "x-team": "blue",
        "x-one": "1",
        "x-two": "Ã¤",
        "content-length": "2",
        "content-type": "application/json",
    }


@pytest.mark.kinds(HTTP1)
async def test_an_engine_adds_no_header(serve, configure):
    """Not even to a request with ``Host`` and ``Content-Length`` only."""
    server = serve(echo)
    pool = configure(server)
    for body in (b"", b"{}"):
        request = request_to(server, body)
        assert (await pool.engine.fetch(request)).status == 200
        assert server.requests[-1].headers.keys() == {"host", "content-length"}


@pytest.mark.kinds(["aiohttp"])
async def test_a_header_that_is_not_utf8_is_refused(server, configure):
    """aiohttp writes headers as UTF-8, and so cannot send other bytes unchanged."""
    pool = configure(server)
    with pytest.raises(InvalidRequest, match="cannot be sent as it is"):
        await pool.arequest("GET", "/x", headers={"X-Name": b"\xe4"})
    assert server.requests == []


async def test_an_async_iterator_is_uploaded_piece_by_piece(server, configure):
    pool = configure(server)

    async def body():
        for piece in PIECES:
            yield piece

    response = await pool.arequest("POST", "/x", content=body())
    assert response.json()["size"] == 1_270_001
    assert server.requests[0].body == b"".join(PIECES)
    assert (await pool.arequest("GET", "/x")).status_code == 200
    assert server.connections_accepted == 1


def test_an_iterator_is_uploaded_piece_by_piece(server, configure):
    pool = configure(server)
    assert pool.request("POST", "/x", content=iter(PIECES)).json()["size"] == 1_270_001
    assert server.requests[0].body == b"".join(PIECES)


async def test_a_large_body_is_uploaded_unchanged(server, configure):
    pool = configure(server)
    body = bytes(range(256)) * 8192
    assert (await pool.arequest("POST", "/x", content=body)).json()["size"] == len(body)
    assert server.requests[0].body == body


@pytest.mark.kinds(HTTP1)
async def test_a_body_that_contradicts_its_content_length_is_an_error(serve, configure):
    """The caller gets the error, and the connection is not reused: its request is incomplete."""
    server = serve(echo)
    pool = configure(server)

    async def body():
        yield b"12345"

    for length in ("4", "6"):
        with pytest.raises(InvalidRequest, match="Content-Length"):
            await pool.arequest("POST", "/x", content=body(), headers={"Content-Length": length})
    assert (await pool.arequest("GET", "/x")).status_code == 200
    assert [request.method for request in server.requests] == ["GET"]


@pytest.mark.kinds(HTTP1)
async def test_an_answer_before_the_end_of_an_upload_is_delivered(serve, configure):
    """Scenario 34: the server answers 413 after the head of the request."""
    pool = configure(serve(early_reply(413, b"too much")))

    async def body():
        for _ in range(20):
            yield b"x" * 65536
            await asyncio.sleep(0)

    response = await pool.arequest("POST", "/x", content=body())
    assert (response.status_code, response.content) == (413, b"too much")


# Responses


async def test_a_response_has_headers_and_http_version(server, configure):
    pool = configure(server)
    response = await pool.arequest("GET", "/x")
    assert response.headers["content-type"] == "application/json"
    assert response.http_version in ("HTTP/1.1", "HTTP/2")


async def test_engines_follow_no_redirects_and_keep_no_cookies(serve, play, configure, fake_dns):
    """Scenario 58: redirects are handled by httpx, above the engine, and cookies are not kept at all."""

    async def there(exchange):
        await exchange.head(302, {"Location": "/v1/here", "Set-Cookie": "a=b"})
        await exchange.end()

    fake_dns.names["llm.test"] = "127.0.0.1"  # aiohttp keeps no cookies of IP addresses
    server = serve(play(by_path(there=there)))
    pool = configure(f"http://llm.test:{server.port}")
    assert (await pool.arequest("GET", "/there")).status_code == 302
    assert [request.target for request in server.requests] == ["/v1/there"]
    await pool.arequest("GET", "/here")
    assert "cookie" not in server.requests[1].headers
    await in_thread(portal.stop)  # httpcore resolves names on a thread of the loop


@pytest.mark.kinds(HTTP1)
async def test_blanks_after_a_headers_value_are_not_part_of_it(serve, configure):
    """Scenario 39: RFC 9110, section 5.5."""
    head = b"HTTP/1.1 429 Slow\r\nRetry-After: 7 \t\r\nTransfer-Encoding: chunked \r\n\r\n"
    pool = configure(serve(raw(head + b"2\r\n{}\r\n0\r\n\r\n")))
    with pytest.raises(RateLimited) as caught:
        await pool.acomplete("hello")
    assert caught.value.retry_after == 7


@pytest.mark.filterwarnings("error")
async def test_a_response_closed_early_releases_its_connection(serve, play, configure):
    """Scenario 35: the next call is served, with ``max_connections`` 1, and without a warning."""

    async def long(exchange):
        await exchange.head()
        await exchange.data(b"x")
        await exchange.hold()

    server = serve(play(by_path(long=long)))
    pool = configure(server, LIMITS={"max_connections": 1}, TIMEOUTS={"pool": 5.0})
    async with pool.aclient.stream("GET", "/long") as response:
        assert await anext(response.aiter_raw()) == b"x"
    assert (await pool.arequest("GET", "/x")).status_code == 200
    assert pool.stats().in_use == 0


async def test_the_rest_of_a_small_response_is_drained(serve, play, configure):
    """Scenario 35: a connection whose response is closed shortly before its end can be reused."""

    async def late(exchange):
        await exchange.head()
        await exchange.data(b"x")
        await exchange.wait_for("end")
        await exchange.end()

    server = serve(play(by_path(late=late)))
    pool = configure(server)

    async def is_reused():
        async with pool.aclient.stream("GET", "/late") as response:
            assert await anext(response.aiter_raw()) == b"x"
        server.gate("end").admit()
        await until(lambda: pool.stats().in_use == 0)
        accepted = server.connections_accepted
        await pool.arequest("GET", "/x")
        return server.connections_accepted == accepted

    assert any([await is_reused() for _ in range(5)])


@pytest.mark.parametrize("call", CALLS)
def test_calls_follow_a_redirect_within_the_origin(call, serve, play, configure):
    """Scenario 58: on the same connection."""

    async def redirect(exchange):
        await exchange.head(307, {"Location": "/v1/moved"})
        await exchange.data(b"<html>")
        await exchange.end()

    server = serve(play(by_path(completions=redirect, moved=model)))
    assert ask(call, configure(server)).text
    assert [request.target for request in server.requests] == ["/v1/chat/completions", "/v1/moved"]
    assert server.requests[1].body == server.requests[0].body
    assert server.connections_accepted == 1
