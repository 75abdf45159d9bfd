"""TLS on each engine: certificates that change on disk."""

from __future__ import annotations

import ssl
from pathlib import Path

from tests.backends.servers import answer
from tests.fixtures.internals import tls_of


async def test_a_new_client_certificate_is_used_by_new_connections(
    serve, play, configure, certificates, tmp_path
):
    """Scenario 60: on each engine the server gets the certificate that is in the files."""
    server = serve(play(answer), tls=certificates.requires_client_cert)
    paths = tmp_path / "client.pem", tmp_path / "client.key"
    tls = {"ca_file": certificates.ca_file, "client_cert": tuple(map(str, paths))}
    pool = configure(server, TLS=tls, LIMITS={"max_keepalive_connections": 0})
    for _ in range(3):
        pair = certificates.new_client_cert()
        _write(paths, pair)
        assert (await pool.arequest("GET", "/x")).status_code == 200
        shown = tls_of(server.connections[-1]).getpeercert(binary_form=True)
        assert shown == ssl.PEM_cert_to_DER_cert(pair[0].decode())


def _write(paths: tuple[Path, Path], contents: tuple[bytes, bytes]) -> None:
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
