"""Fixtures of the tests with real servers."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from tests.deployments.launcher import SERVERS, Deployment, deployed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from testbed import ScriptedServer


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Callable[..., Deployment]]:
    """``deploy("uvicorn", upstream, LIMITS={...}, options="--workers 2")``: a running server."""
    with contextlib.ExitStack() as running:

        def start(
            name: str, upstream: ScriptedServer, *, extra: dict[str, Any] | None = None, **pool: Any
        ) -> Deployment:
            pool = {"BASE_URL": f"{upstream.url}/v1", **pool}
            return running.enter_context(deployed(SERVERS[name], tmp_path, pool, **(extra or {})))

        yield start
