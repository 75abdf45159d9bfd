"""``llmpool_check`` through proxies and Unix sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from testbed.behaviours import json_reply
from tests.diagnostics.conftest import codes, named, text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from testbed import ScriptedServer
    from testbed.tls import Certificates

    RunJSON = Callable[..., tuple[int, dict[str, Any]]]
    Provider = Callable[..., None]
    Serve = Callable[..., ScriptedServer]
    Check = Callable[..., tuple[int, list[str]]]

models = json_reply({"object": "list", "data": [{"id": "one"}, {"id": "two"}]})


def test_through_a_proxy(
    check: Check,
    provider: Provider,
    serve: Serve,
    serve_proxy: Callable[..., Any],
    certificates: Certificates,
) -> None:
    server, proxy = serve(models, tls=certificates.good), serve_proxy()
    provider(named(server), TLS={"ca_file": certificates.ca_file}, PROXY=proxy.url)
    assert check("proxy") == (0, [])


@pytest.mark.parametrize(("scheme", "said"), [("http", "TLS to the proxy"), ("https", "opened a tunnel")])
def test_through_a_proxy_within_tls(
    run_json: RunJSON,
    provider: Provider,
    serve: Serve,
    serve_proxy: Callable[..., Any],
    certificates: Certificates,
    scheme: str,
    said: str,
) -> None:
    server = serve(models, tls=certificates.good if scheme == "https" else None)
    proxy = serve_proxy(tls=certificates.good)
    provider(named(server), TLS={"ca_file": certificates.ca_file}, PROXY=proxy.url)
    status, document = run_json()
    assert (status, codes(document)) == (0, [])
    assert said in text_of(document, "tunnel")


def test_through_a_socks_proxy(
    run_json: RunJSON, provider: Provider, serve: Serve, serve_socks: Callable[..., Any]
) -> None:
    server, proxy = serve(models), serve_socks()
    provider(named(server, "127.0.0.1"), PROXY=proxy.url_with())
    status, document = run_json()
    assert (status, codes(document)) == (0, [])
    assert "opened a tunnel" in text_of(document, "tunnel")


def test_through_a_unix_socket(run_json: RunJSON, provider: Provider, serve: Serve, tmp_path: Any) -> None:
    server = serve(models, uds=tmp_path / "llm.sock")
    provider("http://localhost", UDS=server.uds)
    status, document = run_json()
    assert (status, codes(document)) == (0, [])
    provider("http://localhost", UDS=str(tmp_path / "other.sock"))
    status, document = run_json()
    assert (status, codes(document)) == (2, ["tcp.no_socket"])
