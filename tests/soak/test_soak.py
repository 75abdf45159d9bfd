"""A soak of a few seconds; ``make soak`` runs a long one."""

from __future__ import annotations

import pytest

from tests.soak.soak import Soak


@pytest.mark.slow
def test_nothing_is_lost_when_everything_goes_wrong_at_once():
    """Scenarios 1, 4, 14 to 24, 27 to 36, 39 to 46, 51 and 53, in any order and all together."""
    soak = Soak(16.0, "1")
    soak.run()
    assert not soak.record.violations, soak.table()
    assert soak.record.outcomes["result"] > 100, soak.table()
    assert soak.record.outcomes["cancelled"] > 20, soak.table()
    assert len(soak.record.faults) > 20, soak.table()
