"""The demo's validation of what its pages post."""

from __future__ import annotations

import json

import pytest

from demo_project.validation import MAX_BYTES, BadInput, read_distance, read_messages

QUESTION = {"role": "user", "content": "Why is the sky blue?"}


def test_messages_are_read_without_other_keys() -> None:
    body = json.dumps({"messages": [{**QUESTION, "name": "x"}], "model": "another"}).encode()
    assert read_messages(body) == [QUESTION]


def test_a_message_of_the_model_is_returned_as_it_is() -> None:
    """In its provider's form, such as Anthropic's blocks with the signature of the reasoning."""
    block = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
    turns = [QUESTION, {"role": "assistant", "content": [block]}, QUESTION]
    assert read_messages(json.dumps({"messages": turns}).encode()) == turns


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "must be a JSON object"),
        (b"{}", '"messages" must be a list'),
        (b'{"messages": []}', "at least one message"),
        (b'{"messages": ["hello"]}', "Message 1 must be an object"),
        (b'{"messages": [{"role": "tool", "content": "x"}]}', '"role" must be one of'),
        (b'{"messages": [{"role": ["user"], "content": "x"}]}', '"role" must be one of'),
        (b'{"messages": [{"role": "user", "content": "  "}]}', "non-empty string"),
        (b'{"messages": [{"role": "user", "content": 5}]}', "non-empty string"),
        (b'{"messages": [{"role": "assistant", "content": "x"}]}', 'must have the role "user"'),
        (b" " * (MAX_BYTES + 1), "longer than"),
    ],
)
def test_an_invalid_body_is_rejected_with_a_message(body: bytes, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read_messages(body)


def test_a_distance_names_a_pool() -> None:
    assert read_distance(b"{}") == "default"
    assert read_distance(b'{"distance": "far"}') == "far"
    for unknown in (b'{"distance": "moon"}', b'{"distance": ["far"]}'):
        with pytest.raises(BadInput, match="near, far"):
            read_distance(unknown)
