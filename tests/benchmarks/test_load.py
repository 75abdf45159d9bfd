"""``python -m benchmarks.load``: a short run with a few users, and when a number is off."""

from __future__ import annotations

import itertools

import pytest

from benchmarks import load, load_users
from benchmarks.load import Row
from testbed.process import free_port
from tests.demo.launcher import environment, started


@pytest.mark.server
@pytest.mark.slow
async def test_the_demo_shows_what_its_upstream_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_users, "AGENTS", 3)
    turns = itertools.cycle([True, False])
    monkeypatch.setattr(load_users, "_leaves", lambda: next(turns))
    with started(environment()) as demo:
        rows, seen = await load.load(demo.read_url(), users=3, seconds=4.0)
    assert not seen.errors
    assert seen.left >= 2
    rows_by_name = {row.name: row for row in rows}
    # The other rows depend on how busy the machine is.
    requests, connections, reused = (rows_by_name[name] for name in ("requests", "connections", "reused"))
    for row in (requests, connections):
        assert row.page == row.metrics == row.counted > 0
    # The page counts the first call on a connection as reused if it was idle before; the upstream does not.
    assert 0 < reused.counted <= reused.page == reused.metrics < reused.counted + connections.counted
    assert seen.calls == requests.counted > 20  # an agent alone makes 20


@pytest.mark.parametrize(
    ("row", "is_off"),
    [
        (Row("", counted=200, page=200, metrics=200), False),
        (Row("", counted=200, page=198, metrics=202), False),
        (Row("", counted=200, page=197, metrics=200), True),
        (Row("", counted=200, page=200, metrics=203), True),
        (Row("", counted=200, page=None, metrics=203), True),
        (Row("", counted=200, page=None, metrics=203, margin=1), False),
        (Row("", counted=0, page=0, metrics=0), False),
        (Row("", counted=0, page=0, metrics=1), True),
    ],
)
def test_a_difference_of_more_than_one_percent_is_off(row: Row, is_off: bool) -> None:
    assert row.is_off() == is_off


def test_a_missing_demo_is_an_error_with_its_url(capsys: pytest.CaptureFixture[str]) -> None:
    url = f"http://127.0.0.1:{free_port()}/"
    assert load.main([url]) == 2
    assert url in capsys.readouterr().err
