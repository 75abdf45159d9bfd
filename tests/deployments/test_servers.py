"""Every server that Django is deployed on, started as users start it."""

from __future__ import annotations

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import TYPE_CHECKING

import pytest

from testbed.behaviours import json_reply
from tests.deployments.launcher import SERVERS
from tests.deployments.raw_client import RawClient

if TYPE_CHECKING:
    from collections.abc import Callable
    from http.client import HTTPResponse

    from testbed import ScriptedServer
    from tests.deployments.launcher import Deployment

pytestmark = pytest.mark.server


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_answers_from_both_kinds_of_view_streams_and_ends_cleanly(
    name: str, deploy: Callable[..., Deployment], upstream: ScriptedServer
) -> None:
    """Scenario 53: connections outlive the calls, and close when the server stops."""
    server = deploy(name, upstream)
    answers = [server.get(f"/{view}?prompt={view}") for view in ("complete", "acomplete") for _ in range(5)]
    assert {answer["text"] for answer in answers} == {"You said complete.", "You said acomplete."}
    host_loops = 1 if SERVERS[name].wsgi else 2  # a sync view's connections are on the portal
    assert upstream.connections_accepted == host_loops

    for view in ("stream", "astream"):
        assert_streamed(server, view, upstream)
    assert upstream.connections_accepted == host_loops
    stats = server.wait_stats(in_use=0, waiting=0)
    assert stats["requests"] == 12
    assert stats["reused"] == 12 - host_loops

    assert server.terminate() == SERVERS[name].exit_code
    upstream.wait_until(lambda s: s.connections_open == 0)
    assert {left.reason for left in upstream.disconnects} == {"eof"}
    assert "Traceback" not in server.output
    assert "Warning" not in server.output
    assert "Error" not in server.output
    assert "No lifespan event" not in server.output


def test_a_server_with_a_lifespan_has_its_connections_before_the_first_call(
    deploy: Callable[..., Deployment], upstream: ScriptedServer
) -> None:
    """Scenario 13."""
    server = deploy("uvicorn", upstream, LIMITS={"min_connections": 2})
    upstream.wait_until(lambda s: s.connections_accepted == 2)
    server.wait_stats(idle=2)
    assert server.get("/acomplete")["text"] == "You said hello."
    assert upstream.connections_accepted == 2


def test_an_unreachable_provider_does_not_fail_the_start(
    deploy: Callable[..., Deployment], upstream: ScriptedServer
) -> None:
    """Scenario 13."""
    upstream.refuse()
    server = deploy("uvicorn", upstream, LIMITS={"min_connections": 2})
    upstream.listen_again()
    assert server.get("/acomplete")["text"] == "You said hello."
    assert server.terminate() == SERVERS["uvicorn"].exit_code
    assert "Traceback" not in server.output


def test_a_server_on_trio_ends_and_says_what_to_do(
    deploy: Callable[..., Deployment], upstream: ScriptedServer
) -> None:
    with pytest.raises(AssertionError, match=r"(?s)ended at once.*Under trio.*hypercorn -k asyncio"):
        deploy("hypercorn", upstream, extra={"options": "-k trio"})


MIDDLEWARES = [
    "django.middleware.gzip.GZipMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.http.ConditionalGetMiddleware",
    "django.middleware.common.CommonMiddleware",
    "tests.deployments.project.middleware.wrapping",
    "tests.deployments.project.middleware.pass_through",
]


@pytest.mark.parametrize("name", ["uvicorn", "gunicorn-gthread"])
def test_streams_pass_through_middlewares_that_wrap_them(
    name: str, deploy: Callable[..., Deployment], upstream: ScriptedServer
) -> None:
    server = deploy(name, upstream, extra={"middleware": MIDDLEWARES})
    for view in ("stream", "astream"):
        head = assert_streamed(server, view, upstream)
        assert b"x-wrapped: yes" in head
        assert b"content-encoding: gzip" not in head
    server.wait_stats(in_use=0, waiting=0)
    assert "Warning" not in server.output


@pytest.mark.parametrize("middleware", [[], ["tests.deployments.project.middleware.wrapping"]])
@pytest.mark.parametrize("name", ["uvicorn", "gunicorn-gthread"])
def test_a_head_request_makes_no_call(
    name: str, middleware: list[str], deploy: Callable[..., Deployment], upstream: ScriptedServer
) -> None:
    """Link previews send them; servers read the whole body, and drop it."""
    server = deploy(name, upstream, extra={"middleware": middleware})
    for view in ("stream", "astream"):
        response, body = send(server, "HEAD", f"/{view}")
        assert (response.status, body) == (200, b"")
        assert response.getheader("Content-Type") == "text/event-stream"
    assert server.wait_stats(in_use=0, waiting=0)["requests"] == 0
    assert upstream.connections_accepted == 0
    assert "Warning" not in server.output


@pytest.mark.parametrize("name", ["uvicorn", "gunicorn-gthread"])
def test_a_busy_provider_is_a_503_with_its_retry_after(
    name: str, deploy: Callable[..., Deployment], serve: Callable[..., ScriptedServer]
) -> None:
    upstream = serve(json_reply({"error": {"message": "wait"}}, status=429, headers={"Retry-After": "7"}))
    server = deploy(name, upstream, extra={"middleware": ["llm_pool.middleware.PoolMiddleware"]})
    for view in ("complete", "acomplete"):
        response, body = send(server, "GET", f"/{view}")
        assert (response.status, response.getheader("Retry-After")) == (503, "7")
        assert json.loads(body)["error"] == "rate_limited"


def send(server: Deployment, method: str, path: str) -> tuple[HTTPResponse, bytes]:
    """Send a request on a new connection; return the response and its body."""
    with contextlib.closing(HTTPConnection("127.0.0.1", server.port, timeout=10.0)) as client:
        client.request(method, path, headers={"Connection": "close"})
        response = client.getresponse()
        return response, response.read()


def assert_streamed(server: Deployment, view: str, upstream: ScriptedServer) -> bytes:
    """Assert that each token arrives before the next is sent. Returns the head, in lower case."""
    gate = upstream.gate("token")
    gate.shut()
    with RawClient(server.port, f"/{view}", headers="Accept-Encoding: gzip\r\n") as client:
        for token in ("one", "two", "three"):
            gate.admit()
            client.read_through(b'data: {"text": "%s"}\n\n' % token.encode())
        client.read_through(b"event: done\n")
    head = client.received.partition(b"\r\n\r\n")[0].lower()
    assert head.startswith(b"http/1.1 200")
    assert b"content-type: text/event-stream" in head
    return head


def test_preloaded_workers_share_no_connection_with_their_parent_or_each_other(
    deploy: Callable[..., Deployment], upstream: ScriptedServer
) -> None:
    """Scenario 52: gunicorn --preload forks a process whose pool has a connection and a portal."""
    server = deploy("gunicorn-gthread", upstream, extra={"options": "--workers 2", "CALL_BEFORE_FORK": "yes"})
    assert [request.json()["messages"][0]["content"] for request in upstream.requests] == ["before the fork"]
    parents = upstream.requests[0].connection
    used: dict[int, set[str]] = {}
    with ThreadPoolExecutor(4) as threads:
        for _ in range(50):  # until each worker has responded
            for answer in threads.map(server.get, ["/complete", "/acomplete"] * 4):
                used.setdefault(answer["process"], set()).add(answer["connection"])
            if len(used) == 2:
                break
    first, second = used.values()
    assert not first & second
    assert str(parents) not in first | second
    assert not upstream.connections[parents].gone  # no worker has closed its parent's connection

    assert server.terminate() == 0
    upstream.wait_until(lambda s: s.connections_open == 0)
    assert "Traceback" not in server.output
