from __future__ import annotations

import copy
import time
from typing import Any

import pytest

from llm_pool.providers.merging import MergedObject


def merged(*deltas: dict[str, Any], concatenate: bool = True) -> dict[str, Any]:
    before = copy.deepcopy(deltas)
    target = MergedObject()
    for delta in deltas:
        target.add(delta, concatenate=concatenate)
    result = target.to_dict()
    assert deltas == before
    return result


@pytest.mark.parametrize(
    ("deltas", "expected"),
    [
        ([{"new": "a"}, {"new": "b"}], {"new": "ab"}),
        ([{"new": None}, {"new": "a"}, {"new": None}], {"new": "a"}),
        ([{"new": None}], {"new": None}),
        ([{"n": 1, "yes": False}, {"n": 2, "yes": True}], {"n": 2, "yes": True}),
        ([{"list": [1]}, {"list": [2, {"a": 3}]}], {"list": [1, 2, {"a": 3}]}),
        ([{"o": {"a": "x", "b": [1]}}, {"o": {"a": "y", "c": 1}}], {"o": {"a": "xy", "b": [1], "c": 1}}),
        ([{"x": "a"}, {"x": {"b": 1}}, {"x": 5}], {"x": 5}),
        ([{"half": "\ud83d"}, {"half": "\ude00"}], {"half": "😀"}),
    ],
)
def test_fields_are_merged_by_their_type(deltas: list[dict[str, Any]], expected: dict[str, Any]) -> None:
    assert merged(*deltas) == expected


def test_a_repeated_string_that_comes_whole_is_not_doubled() -> None:
    repeated = {
        "id": "a",
        "type": "function",
        "role": "assistant",
        "server_name": "s",
        "function": {"name": "f"},
    }
    assert merged(repeated, repeated, {"id": "", "type": None}) == repeated


def test_items_with_an_index_are_merged_by_it() -> None:
    first = {"details": [{"index": 0, "type": "x", "text": "a"}, {"index": 1, "text": "b"}]}
    second = {
        "details": [{"index": 1, "text": "B"}, {"text": "none"}, {"index": 0, "type": "x", "text": "A"}]
    }
    assert merged(first, second) == {
        "details": [{"index": 0, "type": "x", "text": "aA"}, {"index": 1, "text": "bB"}, {"text": "none"}]
    }


def test_content_as_strings_and_as_parts_becomes_parts() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    deltas = [{"content": "a"}, {"content": "b"}, {"content": [thinking]}, {"content": ""}, {"content": "c"}]
    assert merged(*deltas) == {
        "content": [{"type": "text", "text": "ab"}, thinking, {"type": "text", "text": "c"}]
    }


def test_without_concatenation_a_string_is_replaced() -> None:
    assert merged(
        {"a": {"severity": "safe"}, "l": [1]}, {"a": {"severity": "low"}, "l": [2]}, concatenate=False
    ) == {
        "a": {"severity": "low"},
        "l": [1, 2],
    }


@pytest.mark.parametrize(
    "delta", [{"s": "x"}, {"l": [1]}, {"o": {"s": "x"}}, {"i": [{"index": 0, "s": "x"}]}]
)
def test_many_deltas_are_merged_in_linear_time(delta: dict[str, Any]) -> None:
    target = MergedObject(s="", l=[])
    started = time.process_time()
    for _ in range(100_000):
        target.add(delta)
    target.to_dict()
    assert time.process_time() - started < 3  # usually a tenth of this


def test_many_items_with_an_index_are_merged_in_linear_time() -> None:
    target = MergedObject()
    started = time.process_time()
    for index in range(50_000):
        target.add({"calls": [{"index": index, "text": "a"}]})
    assert len(target.to_dict()["calls"]) == 50_000
    assert time.process_time() - started < 3
