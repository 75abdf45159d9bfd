"""Workers of different projects that share a cache do not see each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm_pool.status import workers
from tests.fixtures.internals import forget_deployment, worker_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(autouse=True)
def _forget_deployment() -> Iterator[None]:
    forget_deployment()
    yield
    forget_deployment()


@pytest.mark.parametrize(
    "move",
    [
        lambda patch: patch.setattr("socket.gethostname", lambda: "another"),
        lambda patch: patch.setenv("DJANGO_SETTINGS_MODULE", "another.settings"),
        lambda patch: patch.setattr("tests.settings.__file__", "/another/site/tests/settings.py"),
        lambda patch: patch.setattr(workers, "__version__", "0.0.0"),
    ],
    ids=["machine", "settings", "directory", "version"],
)
def test_another_project_has_slots_of_its_own(
    monkeypatch: pytest.MonkeyPatch, move: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """Two sites may share a Redis without a prefix, and a deployment may run two versions for a while."""
    here = worker_key(0)
    assert worker_key(0) == here != worker_key(1)
    forget_deployment()
    move(monkeypatch)
    assert worker_key(0) != here
