"""The ratios of the rounds, their median and spread, and the comparison with the goal."""

from __future__ import annotations

import json

import pytest

from benchmarks.results import Measured, Results
from benchmarks.rows import ROWS, Outcome, Row, Spread, difference, outcome
from benchmarks.work.calls import percentile
from benchmarks.workloads import ROUND_TRIP, WORKLOADS


def results_of(measured: Measured) -> Results:
    return Results("2026-01-01", 1.0, {}, {}, {measured.name: measured})


def measured_of(metric: str = "cpu", **rounds: list[float]) -> Results:
    """Results with the given measures of each contestant, one for each round."""
    each = {name: [{metric: value} for value in values] for name, values in rounds.items()}
    return results_of(Measured("http2", each))


def test_the_ratio_of_the_medians_is_compared_with_the_goal():
    results = measured_of(ours=[1.0, 2.0, 6.0], theirs=[10.0, 5.0, 20.0])
    found = outcome(Row("http2", "ours", "theirs", 0.2), results)
    assert found.spread == Spread(median=0.2, least=0.1, most=0.4)
    assert found.holds is True
    assert outcome(Row("http2", "ours", "theirs", 0.19), results).holds is False


@pytest.mark.parametrize(
    ("loads", "doubt"),
    [
        ([0.1] * 5, ""),
        ([0.1, 0.1, 1.6, 1.7, 1.8], "the load by other processes was 1.6"),
        ([0.1] * 4, "only 4 of 5 rounds"),
    ],
)
def test_a_result_under_load_or_of_few_rounds_is_in_doubt(loads, doubt):
    results = measured_of(ours=[1.0], theirs=[2.0])
    results.measured["http2"].loads = loads
    assert outcome(Row("http2", "ours", "theirs", None), results).doubt == doubt


def test_a_goal_can_be_a_lower_bound():
    results = measured_of("per_cpu_second", ours=[30.0], theirs=[10.0])
    row = Row("http2", "ours", "theirs", 3.0, "per_cpu_second", at_least=True)
    assert outcome(row, results).holds is True
    more = Row("http2", "ours", "theirs", 3.1, "per_cpu_second", at_least=True)
    assert outcome(more, results).holds is False
    assert more.shown_goal == "at least 3.1"


def test_a_difference_is_shown_in_milliseconds():
    row = Row("http2", "ours", "theirs", 0.06, compare=difference)
    found = outcome(row, measured_of(ours=[0.35, 0.34], theirs=[0.28, 0.3]))
    assert found.spread is not None
    assert row.shown(found.spread.median) == "55.0 ms"
    assert row.shown_goal == "at most 60 ms more"
    assert found.holds is True


def test_a_yardstick_takes_the_place_of_another_contestant():
    row = Row("http2", "ours", "20 round trips", 1.05, "wall", yardstick=20 * ROUND_TRIP)
    found = outcome(row, measured_of("wall", ours=[1.04, 1.06, 1.1]))
    assert found.spread is not None
    assert found.spread.median == pytest.approx(1.06)
    assert found.holds is False


def test_a_row_without_a_goal_neither_holds_nor_does_not():
    found = outcome(Row("http2", "ours", "theirs", None), measured_of(ours=[1.0], theirs=[2.0]))
    assert found.spread == Spread(0.5, 0.5, 0.5)
    assert found.holds is None


@pytest.mark.parametrize(("against", "before"), [("theirs", 0.5), ("ours, too", 0.8)])
def test_the_other_checkout_is_compared_in_the_same_way(against, before):
    """With the same peer, or with its own second contestant."""
    values = {
        "ours": [1.0],
        "ours, before": [2.0],
        "theirs": [4.0],
        "ours, too": [2.0],
        "ours, too, before": [2.5],
    }
    found = outcome(Row("http2", "ours", against, None), measured_of(**values))
    assert found.before == before
    assert outcome(Row("http2", "theirs", "ours", None), measured_of(**values)).before is None


def test_an_unmeasured_row_has_a_reason():
    row = Row("http2", "ours", "theirs", 1.0)
    measured = Measured("http2")
    measured.add("ours", {"cpu": 1.0})
    measured.add("theirs", {"cpu": 1.0})
    measured.skip("theirs", "no such library")
    assert outcome(row, results_of(measured)) == Outcome(row, None, None, "theirs: no such library")
    not_run = Measured("http2", not_run="nginx is not installed")
    assert outcome(row, results_of(not_run)).reason == "nginx is not installed"
    assert outcome(row, Results("", 0.0, {}, {})).reason == "not part of this run"


def test_a_run_survives_json():
    results = measured_of(ours=[1.0, 2.0])
    results.measured["http2"].skip("theirs", "no such library")
    assert Results.from_json(json.loads(json.dumps(results.as_json()))) == results


def test_every_row_names_contestants_of_its_workload():
    for row in ROWS:
        labels = {contestant.label for contestant in WORKLOADS[row.workload].contestants}
        assert row.contestant in labels
        assert row.yardstick or row.against in labels


@pytest.mark.parametrize(("percent", "value"), [(50, 50), (99, 99), (100, 100), (0, 1)])
def test_a_percentile_is_the_value_that_so_many_do_not_exceed(percent, value):
    assert percentile(list(range(100, 0, -1)), percent) == value


def test_the_percentile_of_one_value_is_that_value():
    assert percentile([7.0], 99) == 7.0
