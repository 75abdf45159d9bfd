"""JSON is read as ``json.loads`` reads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from llm_pool.providers.json_provider import parse_json

TEXTS = (
    '{"a": ["é", 1.5, null], "a": NaN}',
    "{}",
    '\n {"a": 1}',
    '{"a": 1} \r\n\t',
    '{"a": 1}\u00a0',
    '{"a": 1}\f',
    '{"a": 1} {"a": 2}',
    '{"a": "\ud800"}',
    '{"a": "\\ud800"}',
    '{"a": "\n"}',
    '{"a": 1',
    "{",
    '[{"a": 1}]',
    '"{"',
    "",
    " ",
)
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "latin-1")


def result(parse: Callable[[bytes], Any], body: bytes) -> str:
    try:
        return repr(parse(body))
    except ValueError as error:
        return repr(error)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("text", TEXTS)
def test_a_body_gives_the_value_or_the_error_of_json_loads(text: str, encoding: str) -> None:
    body = text.encode(encoding, "replace" if encoding == "latin-1" else "surrogatepass")
    assert result(parse_json, body) == result(json.loads, body)


def test_json_that_is_nested_too_deeply_raises_a_recursion_error() -> None:
    with pytest.raises(RecursionError):
        parse_json(b'{"a":' * 100_000)
