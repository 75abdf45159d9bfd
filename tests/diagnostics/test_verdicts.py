"""``llmpool_check`` for healthy and broken providers: output, verdict, exit status."""

from __future__ import annotations

import asyncio
import socket
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from testbed import http2
from testbed.behaviours import garbage, hold, json_reply, reply, stall
from testbed.ports import refused_port, unanswering_port
from testbed.tls import NAMES, server_context
from tests.diagnostics.conftest import advice, codes, named, text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from testbed import ScriptedServer, ServerConnection
    from testbed.dns import FakeDNS
    from testbed.tls import Certificates

    Run = Callable[..., tuple[int, str]]
    RunJSON = Callable[..., tuple[int, dict[str, Any]]]
    Provider = Callable[..., None]
    Serve = Callable[..., ScriptedServer]
    Check = Callable[..., tuple[int, list[str]]]

MODELS = {"object": "list", "data": [{"id": "one"}, {"id": "two"}]}
models = json_reply(MODELS)


def test_a_healthy_provider(
    check: Check, provider: Provider, serve: Serve, certificates: Certificates
) -> None:
    answer = json_reply(MODELS, headers={"X-RateLimit-Remaining-Requests": "99", "X-Request-Id": "7"})
    server = serve(answer, tls=certificates.good)
    provider(named(server), TLS={"ca_file": certificates.ca_file})
    assert check("healthy") == (0, [])
    asked = {(request.method, request.target) for request in server.requests}
    assert asked == {("GET", "/v1/models")}
    assert all(request.headers["authorization"].startswith("Bearer sk-") for request in server.requests)


def test_a_check_leaves_no_connection_behind(
    run: Run, provider: Provider, serve: Serve, certificates: Certificates
) -> None:
    server = serve(models, tls=certificates.good)
    provider(named(server), TLS={"ca_file": certificates.ca_file})
    run("--live", "3")
    server.wait_until(lambda s: s.connections_open == 0)
    assert server.connections_accepted >= 2


def test_a_provider_with_http2(
    check: Check, provider: Provider, serve: Serve, certificates: Certificates
) -> None:
    script = http2.http2(http2.reply(200, b'{"data": []}'))
    server = serve(script, tls=http2.offering_http2(certificates))
    provider(named(server), TLS={"ca_file": certificates.ca_file})
    assert check("http2") == (0, [])


def test_a_provider_without_http2_is_healthy(run_json: RunJSON, provider: Provider, serve: Serve) -> None:
    provider(serve(models).url)
    status, document = run_json()
    step = next(step for step in document["pools"][0]["steps"] if step["name"] == "http2")
    assert (status, step["level"], step["facts"]) == (0, "note", {"spoken": False})


def test_anthropic_gets_a_request_of_its_own_api(
    run_json: RunJSON, provider: Provider, serve: Serve, secret: str
) -> None:
    server = serve(models)
    provider(server.url, BASE_URL=server.url, PROVIDER="anthropic")
    assert run_json()[0] == 0
    assert server.requests[0].target == "/v1/models"
    assert server.requests[0].headers["x-api-key"] == secret


def test_a_wrong_key(
    check: Check, provider: Provider, serve: Serve, certificates: Certificates, secret: str
) -> None:
    says = {"error": {"message": f"Incorrect API key provided: {secret}.", "code": "invalid_api_key"}}
    server = serve(json_reply(says, status=401), tls=certificates.good)
    provider(named(server), TLS={"ca_file": certificates.ca_file})
    assert check("wrong-key") == (2, ["auth.refused"])


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (json_reply({"error": {"message": "no"}}, status=403), 2, "auth.refused"),
        (json_reply({"error": {"message": "slow down"}}, status=429), 1, "auth.rate_limited"),
        (json_reply({"error": {"message": "down"}}, status=503), 2, "auth.provider_failed"),
        (reply(302, b"", {"Location": "https://login.test/"}), 2, "auth.redirected"),
        (json_reply({"error": {"message": "bad"}}, status=400), 1, "auth.unexpected"),
        (json_reply({"error": {"message": "no"}}), 2, "auth.error_in_answer"),
        (garbage, 2, "auth.not_http"),
        (json_reply(MODELS, headers={"X-RateLimit-Remaining-Tokens": "0"}), 1, "rate_limits.used_up"),
    ],
)
def test_other_answers(
    answer: Any, status: int, code: str, run_json: RunJSON, provider: Provider, serve: Serve
) -> None:
    provider(serve(answer).url)
    found, document = run_json()
    assert (found, codes(document)) == (status, [code])


def test_a_redirect_that_calls_follow_is_followed(
    run_json: RunJSON, provider: Provider, serve: Serve
) -> None:
    async def moved(conn: Any) -> None:
        if len(conn.server.requests) % 2:
            await json_reply(MODELS)(conn)
        else:
            await reply(307, b"", {"Location": "/v1/models/"})(conn)

    server = serve(moved)
    provider(server.url)
    assert run_json()[0] == 0
    assert server.requests[1].target == "/v1/models/"


def test_a_server_without_a_list_of_models_is_healthy(check: Check, provider: Provider, serve: Serve) -> None:
    provider(serve(json_reply({}, status=404)).url)
    assert check("no-models") == (0, [])


def test_a_base_url_without_the_path_of_the_api(run_json: RunJSON, provider: Provider, serve: Serve) -> None:
    server = serve(json_reply({}, status=404))
    provider(server.url, BASE_URL=server.url)
    status, document = run_json()
    assert (status, codes(document)) == (1, ["auth.no_path"])
    assert f"try {server.url}/v1." in advice(document, "authentication")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("one", []),
        (None, []),
        ("onne", ["Did you mean 'one'?"]),
        ("xyz", ["It has one, two."]),
    ],
)
def test_a_model_that_the_provider_does_not_list(
    run_json: RunJSON, provider: Provider, serve: Serve, model: str | None, said: list[str]
) -> None:
    provider(serve(models).url, MODEL=model)
    status, document = run_json()
    assert (status, codes(document)) == (0, [])
    assert [part for part in [advice(document, "authentication")] if part] == said


def test_a_key_in_the_headers_is_named_in_the_advice_and_not_shown(
    run: Run, provider: Provider, serve: Serve, secret: str
) -> None:
    """The key in HEADERS is the one that is sent."""
    own = "sk-in-the-headers"
    server = serve(json_reply({"error": {"message": f"Incorrect API key: {own}, {secret}"}}, status=401))
    provider(server.url, HEADERS={"authorization": f"Bearer {own}"})
    status, text = run()
    assert status == 2
    assert own not in text
    assert "see HEADERS['authorization'] of LLM_POOL['default']" in " ".join(text.split())


@pytest.mark.parametrize("url", ["socks4://127.0.0.1:1", "http://h:99999"])
def test_an_invalid_proxy_in_the_environment(
    run_json: RunJSON, provider: Provider, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("https_proxy", url)
    provider("https://llm.test", PROXY=None)
    status, document = run_json()
    assert (status, codes(document)) == (2, ["tunnel.failed"])
    assert "https_proxy" in text_of(document, "tunnel")
    assert text_of(document, "dns") == text_of(document, "tcp") == "not reached"


@pytest.mark.parametrize("by", ["setting", "environment"])
def test_a_proxy_that_refuses_connections(
    run_json: RunJSON, provider: Provider, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    with refused_port() as port:
        monkeypatch.setenv("https_proxy", nowhere := f"http://127.0.0.1:{port}")
        provider("https://llm.test", PROXY=nowhere if by == "setting" else None)
        status, document = run_json()
    assert (status, codes(document)) == (2, ["tcp.refused"])
    where = "PROXY of LLM_POOL['default']" if by == "setting" else "https_proxy"
    assert advice(document, "tcp").endswith(f"correct host and port in {where}.")


def test_the_providers_default_host_without_dns_means_no_network(
    run_json: RunJSON, provider: Provider, fake_dns: FakeDNS
) -> None:
    provider("", BASE_URL=None)
    status, document = run_json()
    assert (status, codes(document)) == (2, ["dns.no_such_name"])
    assert "no network" in advice(document, "dns")


def test_a_missing_key(run_json: RunJSON, provider: Provider, serve: Serve, fake_dns: FakeDNS) -> None:
    server = serve(models)
    fake_dns.names["llm.test"] = server.host
    provider(named(server, "llm.test"), API_KEY=None)
    status, document = run_json()
    assert (status, codes(document)) == (2, ["auth.no_key"])
    assert server.requests == []
    assert "OPENAI_API_KEY" in advice(document, "authentication")
    assert "OPENAI_API_KEY" not in text_of(document, "authentication")  # only in the advice


def test_an_expired_certificate(
    check: Check, provider: Provider, serve: Serve, certificates: Certificates
) -> None:
    provider(named(serve(models, tls=certificates.expired)), TLS={"ca_file": certificates.ca_file})
    assert check("expired-certificate") == (2, ["tls.expired"])


def test_a_certificate_about_to_expire(
    run_json: RunJSON, provider: Provider, serve: Serve, certificates: Certificates
) -> None:
    becomes_true = datetime.now(UTC) + timedelta(days=3, hours=1)
    context = server_context(certificates.authority.issue_cert(*NAMES, not_after=becomes_true))
    provider(named(serve(models, tls=context)), TLS={"ca_file": certificates.ca_file})
    status, document = run_json()
    assert (status, codes(document)) == (1, ["tls.expires_soon"])
    tls = next(step for step in document["pools"][0]["steps"] if step["name"] == "tls")
    assert tls["facts"]["days_left"] == 3


def test_a_certificate_for_another_name(
    check: Check, provider: Provider, serve: Serve, certificates: Certificates
) -> None:
    provider(named(serve(models, tls=certificates.wrong_name)), TLS={"ca_file": certificates.ca_file})
    assert check("wrong-name") == (2, ["tls.wrong_name"])


def test_an_untrusted_authority(
    check: Check, provider: Provider, serve: Serve, certificates: Certificates
) -> None:
    server = serve(models, tls=certificates.unknown_authority)
    provider(named(server), TLS={"ca_file": certificates.ca_file})
    assert check("unknown-authority") == (2, ["tls.untrusted"])


def test_an_unverified_certificate(
    run_json: RunJSON, provider: Provider, serve: Serve, certificates: Certificates
) -> None:
    provider(named(serve(models, tls=certificates.expired)), TLS={"verify": False})
    status, document = run_json()
    assert (status, codes(document)) == (1, ["tls.unverified"])


def test_tls_to_a_server_without_tls(run_json: RunJSON, provider: Provider, serve: Serve) -> None:
    async def plain(conn: ServerConnection) -> None:
        await conn.read_some()
        await conn.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await conn.close()

    server = serve(plain)
    provider(f"https://localhost:{server.port}")
    status, document = run_json()
    assert (status, codes(document)) == (2, ["tls.failed"])


def test_a_tls_handshake_without_an_answer(check: Check, provider: Provider, serve: Serve) -> None:
    server = serve(hold)
    provider(f"https://localhost:{server.port}")
    assert check("no-tls-answer", "--timeout", "1.5") == (2, ["tls.no_answer"])


def test_a_refused_port(check: Check, provider: Provider) -> None:
    with refused_port() as port:
        provider(f"http://127.0.0.1:{port}")
        assert check("refused") == (2, ["tcp.refused"])


def test_an_address_that_does_not_answer(check: Check, provider: Provider) -> None:
    with unanswering_port() as port:
        provider(f"http://127.0.0.1:{port}")
        assert check("no-answer", "--timeout", "0.3") == (2, ["tcp.no_answer"])


def test_an_address_without_a_route(run_json: RunJSON, provider: Provider) -> None:
    """The kernel refuses to connect a socket to the broadcast address; no packet leaves the machine."""
    provider("http://255.255.255.255:80")
    status, document = run_json()
    assert (status, codes(document)) == (2, ["tcp.unreachable"])


def test_a_name_that_does_not_exist(check: Check, provider: Provider, fake_dns: FakeDNS) -> None:
    provider("https://llm.test")
    assert check("dns-failure") == (2, ["dns.no_such_name"])


def test_no_network(check: Check, provider: Provider, fake_dns: FakeDNS) -> None:
    fake_dns.names["llm.test"] = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    provider("https://llm.test")
    assert check("no-network") == (2, ["dns.unavailable"])


def test_a_slow_provider(
    check: Check, provider: Provider, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(conn: ServerConnection) -> None:
        request = await conn.read_head()
        await conn.read_body(request)
        await asyncio.sleep(0.3)
        await conn.respond(200, {"Content-Type": "application/json"}, b'{"data": []}')

    monkeypatch.setattr("llm_pool.diagnostics.probes.SLOW_SECONDS", 0.2)
    provider(serve(slow).url)
    assert check("slow") == (1, ["auth.slow"])


def test_a_provider_that_sends_no_answer(check: Check, provider: Provider, serve: Serve) -> None:
    provider(serve(stall).url)
    assert check("silent", "--timeout", "1.5") == (2, ["auth.no_answer"])


def test_html_instead_of_the_api(check: Check, provider: Provider, serve: Serve) -> None:
    page = b"<html><title>Sign in</title><body>Please sign in.</body></html>"
    provider(serve(reply(200, page, {"Content-Type": "text/html"})).url)
    assert check("html") == (2, ["auth.not_the_api"])


def test_a_server_that_closes_after_each_answer(check: Check, provider: Provider, serve: Serve) -> None:
    provider(serve(json_reply(MODELS, headers={"Connection": "close"})).url)
    assert check("no-reuse") == (1, ["reuse.closed"])


def test_settings_that_keep_no_connection(run_json: RunJSON, provider: Provider, serve: Serve) -> None:
    provider(serve(models).url, LIMITS={"max_keepalive_connections": 0})
    status, document = run_json()
    assert (status, codes(document)) == (1, ["reuse.off"])


@pytest.mark.parametrize("engine", ["httpcore", "aiohttp"])
def test_other_engines(engine: str, run_json: RunJSON, provider: Provider, serve: Serve) -> None:
    server = serve(models)
    provider(server.url, ENGINE=engine)
    status, document = run_json()
    assert (status, codes(document)) == (0, [])
    assert len({request.connection for request in server.requests}) == 1
