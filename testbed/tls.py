"""A certificate authority for tests, and certificates of servers and clients, valid and invalid."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from pathlib import Path

    from testbed.connection import ServerConnection
    from testbed.scripted import Script

__all__ = ["Certificates", "refuse_client", "server_context"]

NAMES = ("localhost", "127.0.0.1", "127.0.0.2", "::1", "llm.test", "*.llm.test")


class Certificates:
    """SSL contexts of servers, and PEM files for clients. Each is made on first use, in ``directory``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = trustme.CA()
        self._client_authority = trustme.CA()

    @cached_property
    def ca_file(self) -> str:
        """The PEM file of the authority, for clients to trust."""
        return self._write("ca.pem", self.authority.cert_pem.bytes())

    @cached_property
    def good(self) -> ssl.SSLContext:
        """A server with a valid certificate for the names in ``NAMES``."""
        return server_context(self.authority.issue_cert(*NAMES))

    @cached_property
    def good_files(self) -> tuple[str, str]:
        """PEM files (certificate, key) of a server like ``good``, for programs."""
        leaf = self.authority.issue_cert(*NAMES)
        chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
        return self._write("server.pem", chain), self._write("server.key", leaf.private_key_pem.bytes())

    @cached_property
    def wrong_name(self) -> ssl.SSLContext:
        """A server whose certificate is for another host."""
        return server_context(self.authority.issue_cert("other.test"))

    @cached_property
    def expired(self) -> ssl.SSLContext:
        """A server whose certificate has expired."""
        return server_context(self.authority.issue_cert(*NAMES, not_after=datetime(2020, 1, 1, tzinfo=UTC)))

    @cached_property
    def unknown_authority(self) -> ssl.SSLContext:
        """A server whose certificate comes from an authority that clients do not trust."""
        return server_context(trustme.CA().issue_cert(*NAMES))

    @cached_property
    def self_signed(self) -> ssl.SSLContext:
        """A server with a self-signed certificate."""
        authority = trustme.CA()
        pem = authority.private_key_pem.bytes() + authority.cert_pem.bytes()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._write("self-signed.pem", pem))
        return context

    @cached_property
    def requires_client_cert(self) -> ssl.SSLContext:
        """A server like ``good`` that refuses clients without ``client_cert``."""
        context = server_context(self.authority.issue_cert(*NAMES))
        context.verify_mode = ssl.CERT_REQUIRED
        self._client_authority.configure_trust(context)
        return context

    @cached_property
    def client_cert(self) -> tuple[str, str]:
        """PEM files (certificate, key) of a client that ``requires_client_cert`` accepts."""
        certificate, key = self.new_client_cert()
        return self._write("client.pem", certificate), self._write("client.key", key)

    def new_client_cert(self) -> tuple[bytes, bytes]:
        """A new certificate and its key, as PEM, of a client that ``requires_client_cert`` accepts."""
        leaf = self._client_authority.issue_cert("client@llm.test")
        return leaf.cert_chain_pems[0].bytes(), leaf.private_key_pem.bytes()

    def client_context(self) -> ssl.SSLContext:
        """A new SSL context of a client that trusts the authority."""
        return ssl.create_default_context(cafile=self.ca_file)

    def _write(self, name: str, pem: bytes) -> str:
        path = self.directory / name
        path.write_bytes(pem)
        return str(path)


def server_context(leaf: trustme.LeafCert) -> ssl.SSLContext:
    """A server's SSL context with this certificate; it offers HTTP/1.1 in ALPN."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    context.set_alpn_protocols(["http/1.1"])
    return context


def refuse_client(context: ssl.SSLContext, *, after: int = 1, reset: bool = False) -> Script:
    """A script for a server without TLS: do the handshake, send the alert of its failure, and close.

    asyncio's own server sends no alert. The alert follows ``after`` bytes that the client sends in reply to
    the server's first flight. With ``reset``, the server resets the connection.
    """

    async def script(conn: ServerConnection) -> None:
        received, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(received, to_send, server_side=True)
        received.write(await conn.read_some())
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                await conn.send(to_send.read())
                data = b""
                while len(data) < after:
                    data += await conn.read_some()
                received.write(data)
            except ssl.SSLError:
                await conn.send(to_send.read())
                await (conn.reset() if reset else conn.close())
                return

    return script
