"""A Python type as ``response_format``: what is sent, and the value of the answer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator
from typing_extensions import TypedDict

from llm_pool.exceptions import InvalidOutput, InvalidParameter, StreamInterrupted
from tests.fixtures.calls import CALLS, ask
from tests.fixtures.scripts import run_script

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_pool.calling.pool import LLMPool
    from llm_pool.calling.record import CallRecord
    from testbed.provider import ScriptedProvider


class Weather(BaseModel):
    """The weather at one place."""

    city: str
    degrees: float = Field(ge=-90, description="In Celsius.")

    @field_validator("city")
    @classmethod
    def has_a_name(cls, city: str) -> str:
        if not city:
            raise ValueError("no city")
        return city


@dataclass
class Point:
    x: int
    y: int = 0


class Pair(TypedDict):
    left: str


class Node(BaseModel):
    name: str
    children: list[Node] = []


class Plain:
    """A class that pydantic does not know."""


class Free(BaseModel):
    model_config = ConfigDict(extra="allow")


@pytest.mark.parametrize("call", CALLS)
def test_the_answer_is_a_value_of_the_type(
    call: str, configure: Callable[..., LLMPool], llm_provider: ScriptedProvider
) -> None:
    llm_provider.reply('{"city": "Rome", "degrees": 21}')
    completion = ask(call, configure(llm_provider), response_format=Weather, temperature=0)
    assert completion.parsed == Weather(city="Rome", degrees=21.0)
    assert completion.text == '{"city": "Rome", "degrees": 21}'
    body = llm_provider.requests[0].json()
    assert body["temperature"] == 0
    assert body["response_format"]["type"] == "json_schema"
    sent = body["response_format"]["json_schema"]
    assert (sent["name"], sent["strict"]) == ("Weather", True)
    assert sent["schema"]["description"] == "The weather at one place."
    assert sent["schema"]["properties"]["degrees"]["minimum"] == -90


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Point, '{"x": 1, "y": 2}', Point(1, 2)),
        (Pair, '{"left": "a"}', {"left": "a"}),
        (Node, '{"name": "a", "children": [{"name": "b", "children": []}]}',
         Node(name="a", children=[Node(name="b")])),
        (list[Point], '{"value": [{"x": 1, "y": 2}]}', [Point(1, 2)]),
        (Literal["yes", "no"], '{"value": "no"}', "no"),
        (Point | Pair, '{"value": {"left": "a"}}', {"left": "a"}),
        (int | None, '{"value": null}', None),
        (dict[str, int], '{"a": 1}', {"a": 1}),
        (Annotated[int, Field(json_schema_extra={"examples": [1]})], '{"value": 1}', 1),
        (Annotated[int, {"unhashable": 1}], '{"value": 1}', 1),
    ],
)  # fmt: skip
def test_any_type_that_pydantic_knows_is_an_output_type(
    kind: Any, text: str, value: Any, configure: Callable[..., LLMPool], llm_provider: ScriptedProvider
) -> None:
    llm_provider.reply(text)
    assert configure(llm_provider).complete("hello", response_format=kind).parsed == value
    schema = llm_provider.requests[0].json()["response_format"]["json_schema"]["schema"]
    assert schema["type"] == "object"


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("value", [{"type": "json_object"}, None, "text"])
def test_a_value_of_json_goes_into_the_request_unchanged(
    value: Any, call: str, configure: Callable[..., LLMPool], llm_provider: ScriptedProvider
) -> None:
    llm_provider.reply("{}")
    assert ask(call, configure(llm_provider), response_format=value).parsed is None
    assert llm_provider.requests[0].json()["response_format"] == value


def test_anthropic_gets_the_schema_beside_the_fields_of_the_caller(
    configure: Callable[..., LLMPool], llm_provider: ScriptedProvider
) -> None:
    llm_provider.reply('{"x": 3}')
    pool = configure(llm_provider, PROVIDER="anthropic", BASE_URL=llm_provider.anthropic_url)
    config = {"effort": "low"}
    completion = pool.complete("hello", max_tokens=9, response_format=Point, output_config=config)
    assert completion.parsed == Point(3)
    body = llm_provider.requests[0].json()
    assert "response_format" not in body
    assert body["output_config"]["effort"] == "low"
    assert body["output_config"]["format"]["schema"]["required"] == ["x"]
    assert config == {"effort": "low"}
    with pytest.raises(InvalidParameter, match=r"output_config\['format'\] contradicts response_format"):
        pool.complete("hello", max_tokens=9, response_format=Point, output_config={"format": {}})
    with pytest.raises(InvalidParameter, match="output_config is a str; beside response_format, give a dict"):
        pool.complete("hello", max_tokens=9, response_format=Point, output_config="low")
    with pytest.raises(InvalidParameter, match="cannot enforce Free: Free can have any keys"):
        pool.complete("hello", max_tokens=9, response_format=Free)


CUT = "The answer was cut (finish_reason 'length'), and is no Weather; allow more tokens."
TWO_PROBLEMS = "city: Input should be a valid string; degrees: Input should be greater than or equal to -90"


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("text", "options", "says", "problems"),
    [
        ('{"city": 7, "degrees": -91}', {}, f"The answer does not fit Weather: {TWO_PROBLEMS}.", 2),
        ('{"city": "", "degrees": 1}', {}, "does not fit Weather: city: Value error, no city.", 1),
        ("Sunny!", {}, "does not fit Weather: Invalid JSON", 1),
        ("", {}, "does not fit Weather: Invalid JSON", 1),
        ('{"city": "Ro', {"finish_reason": "length"}, CUT, 1),
        ("", {"refusal": "I cannot."}, "The model refused to answer; its words are in", 1),
    ],
)  # fmt: skip
def test_an_answer_that_does_not_fit_is_an_error_with_its_text(
    text: str, options: Any, says: str, problems: int, call: str,
    configure: Callable[..., LLMPool], llm_provider: ScriptedProvider, records: list[CallRecord],
) -> None:  # fmt: skip
    llm_provider.stream(text, **options)  # a piece for each character
    with pytest.raises(InvalidOutput) as caught:
        ask(call, configure(llm_provider), response_format=Weather)
    error = caught.value
    assert says in str(error)
    assert error.text == text
    assert len(error.problems) == problems
    assert error.completion is not None
    assert error.completion.text == text
    assert error.completion.parsed is None
    assert error.completion.refusal == options.get("refusal", "")
    assert error.__context__ is None  # it would hold the answer
    (record,) = records
    assert (record.error, record.status_code) == ("InvalidOutput", 200)


def test_a_refusal_of_anthropic_is_an_error_that_says_so(
    configure: Callable[..., LLMPool], llm_provider: ScriptedProvider
) -> None:
    llm_provider.reply("", finish_reason="refusal")
    pool = configure(llm_provider, PROVIDER="anthropic", BASE_URL=llm_provider.anthropic_url)
    with pytest.raises(InvalidOutput, match="The model refused to answer"):
        pool.complete("hello", max_tokens=9, response_format=Point)


def test_a_message_shows_only_the_first_problems(
    configure: Callable[..., LLMPool], llm_provider: ScriptedProvider
) -> None:
    llm_provider.reply(json.dumps({"value": [{"x": "secret"}] * 9}))
    pool = configure(llm_provider)
    with pytest.raises(InvalidOutput, match=r"value\[4\]\.x: [^;]*; and 4 more\.$") as caught:
        pool.complete("hello", response_format=list[Point])
    assert len(caught.value.problems) == 9
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("call", CALLS)
def test_an_answer_that_calls_tools_has_no_value_yet(
    call: str, configure: Callable[..., LLMPool], llm_provider: ScriptedProvider
) -> None:
    llm_provider.tool_call("look", {}, text="Let me look.")
    completion = ask(call, configure(llm_provider), response_format=Weather)
    assert completion.parsed is None
    assert completion.tool_calls[0].name == "look"


def test_a_stream_delivers_its_chunks_and_its_completion_before_the_error(
    configure: Callable[..., LLMPool], llm_provider: ScriptedProvider
) -> None:
    llm_provider.stream("Sunny!")
    stream = configure(llm_provider).stream("hello", response_format=Weather)
    chunks = []
    with pytest.raises(InvalidOutput):
        chunks.extend(chunk.text for chunk in stream)
    with pytest.raises(StreamInterrupted, match="an earlier step raised InvalidOutput"):
        next(stream)
    assert stream.text == "Sunny!"
    assert stream.completion is not None
    assert stream.completion.text == "Sunny!"


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (Plain, "is not a type that pydantic knows (PydanticSchemaGenerationError: "),
        (Point(1), "response_format is a Point; give the class itself."),
        (Weather(city="a", degrees=1), "response_format is a Weather; give the class itself."),
        (list["Nowhere"], "is not a type that pydantic knows"),  # type: ignore[name-defined]  # noqa: F821
        (len, "is not a type that pydantic knows"),
    ],
)
def test_what_is_no_type_is_refused_before_a_connection_is_opened(
    kind: Any, says: str, call: str, configure: Callable[..., LLMPool], llm_provider: ScriptedProvider
) -> None:
    with pytest.raises(InvalidParameter) as caught:
        ask(call, configure(llm_provider), response_format=kind)
    assert says in str(caught.value)
    assert llm_provider.connections_accepted == 0


def test_pydantic_is_imported_only_when_it_is_needed() -> None:
    program = """
import sys
from django.conf import settings
settings.configure(LLM_POOL={"default": {"API_KEY": "", "BASE_URL": "http://127.0.0.1:1/v1", "PROXY": ""}})
import django
django.setup()
from llm_pool import exceptions, pools, types
pool = pools["default"]
try:
    pool.complete("hello", model="m", response_format={"type": "json_object"}, tools=[{"type": "function"}])
except exceptions.ConnectFailed:
    pass
assert "pydantic" not in sys.modules
for broken in (None, type(sys)("pydantic")):  # not installed, or version 1
    sys.modules["pydantic"] = broken
    try:
        pool.complete("hello", model="m", response_format=types.Usage)
    except exceptions.InvalidParameter as error:
        print(error)
"""
    says = "A type as response_format needs pydantic 2: pip install 'django-llm-pool[pydantic]'."
    first, second = run_script(program).splitlines()
    assert first == second
    assert first.startswith(says)
