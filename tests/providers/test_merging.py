from __future__ import annotations

import copy
import time
from typing import Any

import pytest

from llm_pool.providers.merging import Merged


def merged(*deltas: dict[str, Any], growing: bool = True) -> dict[str, Any]:
    before = copy.deepcopy(deltas)
    whole = Merged()
    for delta in deltas:
        whole.add(delta, growing=growing)
    result = whole.whole()
    assert deltas == before
    return result


@pytest.mark.parametrize(
    ("deltas", "whole"),
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
def test_fields_are_put_together_by_their_kind(deltas: list[dict[str, Any]], whole: dict[str, Any]) -> None:
    assert merged(*deltas) == whole


def test_what_a_server_repeats_is_not_doubled() -> None:
    repeated = {
        "id": "a",
        "type": "function",
        "role": "assistant",
        "server_name": "s",
        "function": {"name": "f"},
    }
    assert merged(repeated, repeated, {"id": "", "type": None}) == repeated


def test_items_with_an_index_are_put_together_by_it() -> None:
    first = {"details": [{"index": 0, "type": "x", "text": "a"}, {"index": 1, "text": "b"}]}
    second = {
        "details": [{"index": 1, "text": "B"}, {"text": "none"}, {"index": 0, "type": "x", "text": "A"}]
    }
    assert merged(first, second) == {
        "details": [{"index": 0, "type": "x", "text": "aA"}, {"index": 1, "text": "bB"}, {"text": "none"}]
    }


def test_content_that_comes_as_a_string_and_as_parts_is_parts() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    deltas = [{"content": "a"}, {"content": "b"}, {"content": [thinking]}, {"content": ""}, {"content": "c"}]
    assert merged(*deltas) == {
        "content": [{"type": "text", "text": "ab"}, thinking, {"type": "text", "text": "c"}]
    }


def test_strings_that_do_not_grow_are_replaced() -> None:
    assert merged(
        {"a": {"severity": "safe"}, "l": [1]}, {"a": {"severity": "low"}, "l": [2]}, growing=False
    ) == {
        "a": {"severity": "low"},
        "l": [1, 2],
    }


@pytest.mark.parametrize(
    "growing", [{"s": "x"}, {"l": [1]}, {"o": {"s": "x"}}, {"i": [{"index": 0, "s": "x"}]}]
)
def test_many_deltas_are_put_together_in_linear_time(growing: dict[str, Any]) -> None:
    whole = Merged(s="", l=[])
    begun = time.process_time()
    for _ in range(100_000):
        whole.add(growing)
    whole.whole()
    assert time.process_time() - begun < 3  # a tenth of this is usual


def test_many_items_are_found_in_linear_time() -> None:
    whole = Merged()
    begun = time.process_time()
    for index in range(50_000):
        whole.add({"calls": [{"index": index, "text": "a"}]})
    assert len(whole.whole()["calls"]) == 50_000
    assert time.process_time() - begun < 3
