from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from llm_pool.providers.results import Chunk, Completion, Timing, ToolCall
from llm_pool.providers.usage import Usage


def test_str_of_a_completion_or_chunk_is_its_text() -> None:
    assert str(Completion(text="Hello")) == "Hello"
    assert str(Chunk("Hel", {})) == "Hel"
    assert f"{Chunk('lo', {})}" == "lo"


def test_values_cannot_be_changed() -> None:
    for value in (Completion(text="a"), Usage(), Timing(), ToolCall("i", "n", "{}")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, dataclasses.fields(value)[0].name, "b")


def test_no_repr_is_long() -> None:
    long = "x" * 1_000_000
    completion = Completion(
        text=long, usage=Usage(1, 2, {"x": long}), tool_calls=(ToolCall("i", "n", long),), raw={"x": long}
    )
    assert len(repr(completion)) < 400
    assert "1000000 characters" in repr(completion)
    assert "tool_calls=1" in repr(completion)
    assert len(repr(completion.tool_calls[0])) < 200
    assert len(repr(Chunk(long, {"x": long}, "stop"))) < 200
    assert repr(Chunk("a", {}, "stop")) == "Chunk('a', finish_reason='stop')"


def test_chunks_do_not_share_a_list_of_tool_calls() -> None:
    assert Chunk("a", {}).tool_calls == []
    assert Chunk("a", {}).tool_calls is not Chunk("b", {}).tool_calls


def test_the_readme_lists_every_attribute_of_an_answer() -> None:
    """In its table, a star marks those that a chunk does not have."""
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    rows = readme.partition("| name | |\n| --- | --- |\n")[2].partition("\n\n")[0].splitlines()
    names = [name for row in rows for name in re.findall(r"`(\w+)`(\*?)", row.split(" | ")[0])]
    attributes = {name for name in dir(Completion) if not name.startswith("_")} - {"choices_in"}
    assert {name for name, _ in names} == attributes
    chunk = Chunk("", {})
    assert all(hasattr(chunk, name) is not bool(star) for name, star in names)
