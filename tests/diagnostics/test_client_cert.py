"""``llmpool_check`` where the server wants a client certificate, or a TLS file cannot be used."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from testbed.tls import NAMES, refuse_client, server_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from testbed import ScriptedServer
    from testbed.tls import Certificates

    RunJSON = Callable[..., tuple[int, dict[str, Any]]]
    Provider = Callable[..., None]
    Serve = Callable[..., ScriptedServer]


def errors(document: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Step, code and advice of each error."""
    return [
        (step["name"], finding["code"], finding["advice"])
        for step in document["pools"][0]["steps"]
        for finding in step["findings"]
        if finding["level"] == "error"
    ]


@pytest.mark.parametrize("engine", ["native", "aiohttp"])
@pytest.mark.parametrize(
    ("version", "step"),
    [(ssl.TLSVersion.TLSv1_2, "tls"), (ssl.TLSVersion.TLSv1_3, "authentication")],
)
def test_a_refused_client_certificate(
    run_json: RunJSON,
    provider: Provider,
    serve: Serve,
    certificates: Certificates,
    engine: str,
    version: ssl.TLSVersion,
    step: str,
) -> None:
    """Scenario 49: the advice names the setting. In TLS 1.3 the first request finds it."""
    context = server_context(certificates.authority.issue_cert(*NAMES))
    context.minimum_version = context.maximum_version = version
    context.verify_mode = ssl.CERT_REQUIRED
    trustme.CA().configure_trust(context)
    server = serve(refuse_client(context))
    tls = {"ca_file": certificates.ca_file, "client_cert": certificates.client_cert}
    provider(f"https://127.0.0.1:{server.port}", ENGINE=engine, TLS=tls)
    status, document = run_json()
    [(found_in, code, advice)] = errors(document)
    assert (status, found_in, code) == (2, step, "tls.client_cert")
    assert "TLS['client_cert'] of LLM_POOL['default']" in advice


@pytest.mark.parametrize("setting", ["ca_file", "client_cert"])
def test_a_file_that_cannot_be_used(
    run_json: RunJSON, provider: Provider, serve: Serve, certificates: Certificates, setting: str
) -> None:
    """Scenario 60: the advice is about the file, not about the server."""
    tls = {"ca_file": certificates.ca_file, setting: __file__}
    provider(f"https://127.0.0.1:{serve(refuse_client(certificates.good)).port}", TLS=tls)
    status, document = run_json()
    assert (status, [found[:2] for found in errors(document)]) == (2, [("tls", "tls.files")])
