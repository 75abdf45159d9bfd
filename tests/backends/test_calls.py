"""The same API, and the same bytes on the wire, on every engine."""

from __future__ import annotations

import asyncio
import gzip
import threading
import warnings

import pytest

from llm_pool.engine.loops import portal
from llm_pool.exceptions import InvalidRequest
from testbed.behaviours import early_reply, echo
from tests.backends.conftest import HTTP1
from tests.backends.servers import model, told
from tests.fixtures.callers import in_thread, until
from tests.fixtures.engine import request_to

PIECES = [b"a" * 70_000, b"b", *[b"c" * 200_000] * 6]


@pytest.mark.parametrize("call", ["complete", "acomplete", "stream", "astream"])
def test_a_model_answers_every_kind_of_call(serve, play, configure, call):
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


async def test_any_endpoint_is_called(server, configure):
    pool = configure(server)
    response = await pool.arequest("POST", "/things?a=b%20c", content=b"12345")
    assert response.json() == {"target": "/v1/things?a=b%20c", "size": 5}


def test_any_endpoint_is_called_from_a_thread(server, configure):
    pool = configure(server)
    assert pool.request("GET", "/things").json() == {"target": "/v1/things", "size": 0}


def test_a_connection_is_kept_and_used_again(server, configure):
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


# What goes out.


@pytest.mark.kinds(HTTP1)
def test_the_request_is_the_same_on_every_engine(serve, configure):
    """No header is added, dropped or renamed, and the body is framed as it was."""
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
async def test_no_header_goes_out_by_itself(serve, configure):
    """The engine sends what it is given: a bare request stays one."""
    server = serve(echo)
    pool = configure(server)
    for body in (b"", b"{}"):
        request = request_to(server, body)
        assert (await pool.engine.fetch(request)).status == 200
        assert server.requests[-1].headers.keys() == {"host", "content-length"}


@pytest.mark.kinds(["aiohttp"])
async def test_what_aiohttp_cannot_write_is_refused(server, configure):
    """It writes its headers as UTF-8; bytes that are none would not arrive as they are."""
    pool = configure(server)
    with pytest.raises(InvalidRequest, match="cannot be sent as it is"):
        await pool.arequest("GET", "/x", headers={"X-Name": b"\xe4"})
    assert server.requests == []


async def test_an_upload_goes_out_piece_by_piece(server, configure):
    pool = configure(server)

    async def body():
        for piece in PIECES:
            yield piece

    response = await pool.arequest("POST", "/x", content=body())
    assert response.json()["size"] == 1_270_001
    assert server.requests[0].body == b"".join(PIECES)
    assert (await pool.arequest("GET", "/x")).status_code == 200
    assert server.connections_accepted == 1


def test_a_thread_uploads_piece_by_piece(server, configure):
    pool = configure(server)
    assert pool.request("POST", "/x", content=iter(PIECES)).json()["size"] == 1_270_001
    assert server.requests[0].body == b"".join(PIECES)


async def test_a_large_body_arrives_whole(server, configure):
    pool = configure(server)
    body = bytes(range(256)) * 8192
    assert (await pool.arequest("POST", "/x", content=body)).json()["size"] == len(body)
    assert server.requests[0].body == body


@pytest.mark.kinds(HTTP1)
async def test_a_body_that_is_not_as_long_as_was_said_is_an_error(serve, configure):
    """The caller hears of it, and the connection, whose request is broken, is used no more."""
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
    """Scenario 34: 413 on the head, with the upload still under way."""
    pool = configure(serve(early_reply(413, b"too much")))

    async def body():
        for _ in range(20):
            yield b"x" * 65536
            await asyncio.sleep(0)

    response = await pool.arequest("POST", "/x", content=body())
    assert (response.status_code, response.content) == (413, b"too much")


# What comes back.


async def test_a_head_has_no_body(server, configure):
    pool = configure(server)
    response = await pool.arequest("GET", "/x")
    assert response.headers["content-type"] == "application/json"
    assert response.http_version in ("HTTP/1.1", "HTTP/2")


async def test_redirects_and_cookies_are_left_to_the_caller(serve, play, configure, fake_dns):
    """No engine follows a redirect or keeps a cookie by itself."""

    async def there(exchange):
        await exchange.head(302, {"Location": "/v1/here", "Set-Cookie": "a=b"})
        await exchange.end()

    fake_dns.names["llm.test"] = "127.0.0.1"  # aiohttp would keep none for an address
    server = serve(play(told(there=there)))
    pool = configure(f"http://llm.test:{server.port}")
    assert (await pool.arequest("GET", "/there")).status_code == 302
    assert [request.target for request in server.requests] == ["/v1/there"]
    pool.aclient.cookies.clear()
    await pool.arequest("GET", "/here")
    assert "cookie" not in server.requests[1].headers
    await in_thread(portal.stop)  # httpcore asks for names on a thread of the loop's


async def test_compressed_bytes_are_left_as_they_are(serve, play, configure):
    """Who asks for a coding undoes it: httpx, once."""

    async def zipped(exchange):
        await exchange.head(headers={"Content-Encoding": "gzip"})
        await exchange.data(gzip.compress(b"plain"))
        await exchange.end()

    pool = configure(serve(play(zipped)))
    response = await pool.arequest("GET", "/x", headers={"Accept-Encoding": "gzip"})
    assert response.content == b"plain"


@pytest.mark.filterwarnings("error")
async def test_an_abandoned_response_frees_its_connection(serve, play, configure):
    """Scenario 35: whoever leaves in the middle is rid of it; the next call is not held up."""

    async def long(exchange):
        await exchange.head()
        await exchange.data(b"x")
        await exchange.hold()

    server = serve(play(told(long=long)))
    pool = configure(server, LIMITS={"max_connections": 1}, TIMEOUTS={"pool": 5.0})
    async with pool.aclient.stream("GET", "/long") as response:
        assert await anext(response.aiter_raw()) == b"x"
    assert (await pool.arequest("GET", "/x")).status_code == 200
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pool.stats().in_use == 0


async def test_what_is_left_of_a_small_response_is_read_out(serve, play, configure):
    """Scenario 35: a reader who leaves just before the end costs no connection, if the end comes soon."""

    async def late(exchange):
        await exchange.head()
        await exchange.data(b"x")
        await exchange.wait_for("end")
        await exchange.end()

    server = serve(play(told(late=late)))
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
