"""OpenAI's embeddings: what is sent, and how each shape of a response is read."""

from __future__ import annotations

import base64
import json
import struct
from typing import TYPE_CHECKING, Any

import pytest
from django.utils.translation import gettext_lazy
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_pool.exceptions import APIError, InvalidParameter, InvalidRequest, InvalidResponse
from llm_pool.providers.embeddings import as_inputs, join, split
from llm_pool.providers.head import Head
from llm_pool.providers.openai import OpenAI
from llm_pool.providers.results import Timing
from llm_pool.providers.usage import Usage
from tests.providers.test_custom_provider import Parrot

if TYPE_CHECKING:
    from llm_pool.providers.results import Embeddings

HEAD = Head(200, {"x-request-id": "req-7", "x-ratelimit-remaining-requests": "9"})
LAZY = gettext_lazy("Yes")


def parse(body: bytes, count: int) -> Embeddings:
    return OpenAI().parse_embeddings(HEAD, body, count, Timing(total=1.0))


def item(numbers: list[float], index: int | None = None, as_base64: bool = False) -> dict[str, Any]:
    """One item of a response; without "index" if that is None."""
    packed = base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()
    place = {} if index is None else {"index": index}
    return {"object": "embedding", **place, "embedding": packed if as_base64 else numbers}


def embeddings_reply(items: list[Any], tokens: int = 1) -> bytes:
    """The body of a response with these items."""
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return json.dumps({"object": "list", "data": items, "model": "test-embedder", "usage": usage}).encode()


@pytest.mark.parametrize(
    ("inputs", "texts"),
    [
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        (("a", LAZY), ["a", LAZY]),
        ([1, 2], [[1, 2]]),
        ([[1, 2], (3,)], [[1, 2], (3,)]),
        ([""], [""]),
    ],
)
def test_inputs_are_texts_or_lists_of_tokens(inputs: Any, texts: Any) -> None:
    assert as_inputs(inputs) == texts


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        (None, "inputs is None; give a str, or a list of str."),
        (b"a", "inputs is a bytes"),
        ({"a": 1}, "inputs is a dict"),
        ((text for text in "ab"), "inputs is a generator"),
        ([], "inputs is empty"),
        (["a", None], "inputs[1] is None"),
        (["a", b"b"], "inputs[1] is a bytes"),
        ([1, "a"], "inputs[0] is an int"),
        ([1.0, 2.0], "inputs[0] is a float"),
        ([float("nan")], "inputs[0] is a float"),
        (["a", []], "inputs[1] is not a list of one or more tokens"),
        (["a", [1, True]], "inputs[1] is not a list of one or more tokens"),
        ([["a"]], "inputs[0] is not a list of one or more tokens"),
    ],
)
def test_other_inputs_are_refused_with_their_place(inputs: Any, says: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        as_inputs(inputs)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("params", "body"),
    [
        ({}, {"model": "m", "input": ["a"], "encoding_format": "base64"}),
        (
            {"model": "other", "dimensions": 8},
            {"model": "other", "input": ["a"], "dimensions": 8, "encoding_format": "base64"},
        ),
        ({"encoding_format": "float"}, {"model": "m", "input": ["a"], "encoding_format": "float"}),
        ({"encoding_format": None}, {"model": "m", "input": ["a"]}),
        ({"output_dtype": "int8"}, {"model": "m", "input": ["a"], "output_dtype": "int8"}),
    ],
)
def test_a_request_asks_for_base64_unless_the_caller_says_otherwise(
    params: dict[str, Any], body: dict[str, Any]
) -> None:
    request = OpenAI().embedding_request(["a"], "m", params)
    assert request.path == "/embeddings"
    assert request.body == body
    assert OpenAI().embedding_request(["a"], None, {}).body.keys() == {"input", "encoding_format"}


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"input": "b"}, "input is not a parameter of embed()"),
        ({"messages": []}, "messages is not a parameter of embed()"),
        ({"stream": True}, "stream=True contradicts the call"),
        ({"max_retries": 2}, "max_retries"),
        ({"output_dtype": "int8", "encoding_format": "base64"}, "leave encoding_format out"),
    ],
)
def test_a_parameter_that_contradicts_the_call_is_refused(params: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        OpenAI().embedding_request(["a"], "m", params)
    assert says in str(caught.value)


A, B, C = [0.5, -2.0], [1.0, 0.25], [3.0, 4.0]


@pytest.mark.parametrize(
    "items",
    [
        [item(A, 0), item(B, 1), item(C, 2)],
        [item(C, 2), item(A, 0), item(B, 1)],
        [item(A), item(B), item(C)],
        [item(A, 0, True), item(B, 1, True), item(C, 2, True)],
        [item(B, 1), item(C, 2, True), item(A, 0)],
        [item(A, None, True), item(B, None, True), item(C, None, True)],
    ],
)
def test_vectors_are_in_the_order_of_the_inputs(items: list[Any]) -> None:
    body = embeddings_reply(items, tokens=5)
    found = parse(body, 3)
    assert found.vectors == [A, B, C]
    assert all(type(vector) is list for vector in found.vectors)
    assert (found.model, found.request_id, found.timing) == ("test-embedder", "req-7", Timing(total=1.0))
    assert found.usage == Usage(5, 0)
    assert found.raw == json.loads(body)
    assert found.headers["x-ratelimit-remaining-requests"] == "9"
    assert found.rate_limit is not None
    assert found.rate_limit.requests is not None
    assert found.rate_limit.requests.remaining == 9
    assert "0.5" not in repr(found)


def test_numbers_of_other_types_stay_as_they_are() -> None:
    assert parse(embeddings_reply([item([-128, 127])]), 1).vectors == [[-128, 127]]


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 7, "total_tokens": 9}, 7),
        ({"total_tokens": 9}, 9),
        ({"prompt_tokens": "many"}, 0),
        ({"prompt_tokens": -1}, 0),
    ],
)
def test_usage_is_read_from_each_servers_fields(usage: dict[str, Any], tokens: int) -> None:
    found = parse(json.dumps({"data": [item(A)], "usage": usage}).encode(), 1).usage
    assert found is not None
    assert (found.input_tokens, found.output_tokens, found.raw) == (tokens, 0, usage)
    assert parse(json.dumps({"data": [item(A)], "usage": None}).encode(), 1).usage is None


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "an empty body"),
        (b"<html>", "what is not JSON"),
        (b"[]", "JSON without embeddings"),
        (b"{}", "JSON without embeddings"),
        (b'{"data": null}', "JSON without embeddings"),
        (embeddings_reply([item(A, 0)]), "1 embeddings for 2 inputs"),
        (embeddings_reply([item(A, 0), item(B, 1), item(C, 2)]), "3 embeddings for 2 inputs"),
        (embeddings_reply([item(A, 0), item(B, 0)]), "indexes are not those of the inputs"),
        (embeddings_reply([item(A, 1), item(B, 2)]), "indexes are not those of the inputs"),
        (embeddings_reply([item(A, 0), item(B)]), "indexes are not those of the inputs"),
        (embeddings_reply([{**item(A), "index": "0"}, item(B, 1)]), "indexes are not those of the inputs"),
        (embeddings_reply([item(A, 0), None]), "JSON without embeddings"),
        (embeddings_reply([item(A, 0), {"index": 1}]), "JSON without embeddings"),
        (embeddings_reply([item(A, 0), {"index": 1, "embedding": [1.0, None]}]), "JSON without embeddings"),
        (embeddings_reply([item(A, 0), {"index": 1, "embedding": [[1.0]]}]), "JSON without embeddings"),
        (embeddings_reply([item(A, 0), {"index": 1, "embedding": "AAA"}]), "JSON without embeddings"),
        (embeddings_reply([item(A, 0), {"index": 1, "embedding": "AAAAAAA="}]), "JSON without embeddings"),
        (
            embeddings_reply([item(A, 0), {"index": 1, "embedding": "AAAA!AAAAAAAAAAAA"}]),
            "JSON without embeddings",
        ),
        (embeddings_reply([item(A, 0), {"index": 1, "embedding": 7}]), "JSON without embeddings"),
    ],
)
def test_a_response_without_a_vector_for_each_input_is_invalid(body: bytes, says: str) -> None:
    with pytest.raises(InvalidResponse) as caught:
        parse(body, 2)
    assert says in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["index", "embedding", "a"]), inner)
    ),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries({"data": JSON | st.lists(JSON, min_size=2, max_size=2)}, optional={"usage": JSON})
)
@settings(max_examples=50)
def test_any_json_is_read_or_refused(value: Any) -> None:
    try:
        found = parse(json.dumps(value).encode(), 2)
    except (InvalidResponse, APIError):
        return
    assert len(found.vectors) == 2


def test_an_error_object_in_a_successful_response_is_raised() -> None:
    for body in (b'{"error": {"message": "no such model"}}', b'{"detail": "no such model"}'):
        with pytest.raises(APIError, match="no such model"):
            parse(body, 1)


def test_a_provider_without_embeddings_says_what_to_do() -> None:
    with pytest.raises(InvalidRequest, match="'parrot' has no embeddings"):
        Parrot().embedding_request(["a"], None, {})
    with pytest.raises(InvalidRequest, match="'parrot' has no embeddings"):
        Parrot().parse_embeddings(HEAD, b"{}", 1)


def test_inputs_are_split_at_both_limits() -> None:
    texts = ["aaaa", "bbbb", "cc", [1, 2, 3], "dddddddddddd", "e"]
    assert list(split(texts, None, None)) == [texts]
    assert list(split(texts, 4, None)) == [texts[:4], texts[4:]]
    assert list(split(texts, 6, None)) == [texts]
    # Tokens are estimated: 3, 3, 2, 3, 7 and 1; a text over the limit goes alone.
    assert list(split(texts, None, 6)) == [texts[:2], texts[2:4], texts[4:5], texts[5:]]
    assert list(split(["€€", "€€"], None, 8)) == [["€€", "€€"]]
    assert list(split(["€€", "€€"], None, 7)) == [["€€"], ["€€"]]
    assert [len(part) for part in split([str(LAZY)] * 5, 2, 300)] == [2, 2, 1]


def test_parts_are_joined_as_if_they_had_been_one() -> None:
    first = parse(embeddings_reply([item(B, 1), item(A, 0)], tokens=5), 2)
    second = parse(embeddings_reply([item(C, 0)], tokens=2), 1)
    whole = join([first, second])
    assert whole.vectors == [A, B, C]
    assert whole.usage == Usage(7, 0)
    assert whole.timing == Timing(total=2.0)
    assert whole.raw["data"] == [item(B, 1), item(A, 0), item(C, 2)]
    assert whole.raw["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    assert join([first]) is first


def test_parts_without_usage_and_index_are_joined_too() -> None:
    part = parse(json.dumps({"data": [item(A)]}).encode(), 1)
    whole = join([part, part])
    assert (whole.vectors, whole.usage, whole.raw) == ([A, A], None, {"data": [item(A), item(A)]})
