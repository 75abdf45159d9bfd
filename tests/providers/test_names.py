"""Each name of a ``Completion`` in each provider's shape, whole and in a stream, with the same ``raw``."""

from __future__ import annotations

import json

import pytest

from llm_pool.providers import PROVIDERS
from llm_pool.providers.head import Head
from llm_pool.providers.results import Chunk, Completion
from tests.providers.shapes import SHAPES, Shape, assert_found


def read(shape: Shape) -> tuple[list[Chunk], Completion]:
    reader = PROVIDERS[shape.provider]().stream_reader(Head(200, {}))
    chunks = reader.feed(b"".join(b"data: %s\n\n" % json.dumps(event).encode() for event in shape.events))
    chunks += reader.feed(b"data: [DONE]\n\n")
    return chunks, reader.completion()


def parse(shape: Shape) -> Completion:
    body = json.dumps(shape.whole).encode()
    return PROVIDERS[shape.provider]().parse_completion(Head(200, {}), body)


@pytest.mark.parametrize("name", SHAPES)
def test_a_name_is_read_from_a_whole_answer(name: str) -> None:
    completion = parse(SHAPES[name])
    assert_found(completion, SHAPES[name].expected)
    assert completion.raw == SHAPES[name].whole
    [choice] = completion.choices
    assert (choice.text, choice.finish_reason) == (completion.text, completion.finish_reason)
    assert choice.tool_calls == completion.tool_calls


@pytest.mark.parametrize("name", SHAPES)
def test_a_stream_has_the_names_and_the_raw_of_a_whole_answer(name: str) -> None:
    shape = SHAPES[name]
    completion = read(shape)[1]
    assert_found(completion, shape.expected)
    assert completion.raw == shape.whole
    assert completion == parse(shape)
    assert completion.message == parse(shape).message


@pytest.mark.parametrize("name", SHAPES)
def test_the_chunks_bring_what_the_completion_has(name: str) -> None:
    chunks, completion = read(SHAPES[name])
    for attribute in ("text", "reasoning", "refusal"):
        brought = "".join(getattr(chunk, attribute) for chunk in chunks)
        # Anthropic's explanation of a refusal is in the last event, where it is not a piece of an answer.
        assert brought == getattr(completion, attribute) or (attribute, name) == (
            "refusal",
            "refusal (Anthropic)",
        )
    parts = [part for chunk in chunks for part in chunk.tool_calls]
    for number, found in enumerate(completion.tool_calls):
        mine = [part for part in parts if part.index == number]
        assert (mine[0].id, mine[0].name) == (found.id, found.name)
        arguments = "".join(part.arguments for part in mine) or "{}"
        assert json.loads(arguments) == json.loads(found.arguments)
    usages = [chunk.usage for chunk in chunks if chunk.usage is not None]
    assert (usages[-1] if usages else None) == completion.usage
    cited = tuple(citation for chunk in chunks for citation in chunk.citations)
    assert cited == completion.citations
