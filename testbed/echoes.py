"""Real HTTP/2 servers that echo requests: two from PyPI that run ``echo.app``, and one on Node."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from testbed.process import free_port, running
from testbed.programs import program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testbed.programs import CertificateFiles

__all__ = ["ECHOES", "echo"]

APP = "testbed.echo:app"
PYTHON = [sys.executable, "-m"]
ECHOES = {
    "hypercorn": [
        *PYTHON,
        *("hypercorn", "--bind", "127.0.0.1:{port}", "--certfile", "{cert}", "--keyfile", "{key}", APP),
    ],
    "granian": [
        *PYTHON,
        "granian",
        *("--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}", "--backpressure", "4096"),
        *("--ssl-certificate", "{cert}", "--ssl-keyfile", "{key}", APP),
    ],
    "node": ["node", str(Path(__file__).with_name("echo.mjs")), "{port}", "{cert}", "{key}"],
}
"""The command line of each server, by name."""


@contextlib.contextmanager
def echo(directory: Path, name: str, certificate: CertificateFiles) -> Iterator[int]:
    """Run the server of this name, over TLS, for as long as the block lasts; yield its port.

    Raises ProgramMissing.
    """
    directory.mkdir(parents=True, exist_ok=True)
    key = directory / "key.pem"
    key.write_bytes(_pkcs8(Path(certificate[1]).read_bytes()))  # granian reads no other format
    port = free_port()
    binary, *arguments = ECHOES[name]
    command = [program(binary), *(part.format(port=port, cert=certificate[0], key=key) for part in arguments)]
    with running(command, directory / f"{name}.log", port):
        yield port


def _pkcs8(pem: bytes) -> bytes:
    key = load_pem_private_key(pem, None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
