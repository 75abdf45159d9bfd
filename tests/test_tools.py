"""``llm_pool.tools``: Python functions as tools of a model."""

from __future__ import annotations

import functools
import gc
import json
import re
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from llm_pool import tools
from llm_pool.exceptions import InvalidOutput, InvalidParameter, InvalidRequest
from llm_pool.providers.results import ToolCall
from testbed.provider import ToolCall as AskedCall
from tests.fixtures.calls import CALLS, ask
from tests.fixtures.scripts import run_script

if TYPE_CHECKING:
    from llm_pool.calling.pool import LLMPool
    from testbed import ScriptedServer
    from testbed.provider import ScriptedProvider


class Place(BaseModel):
    city: str


def weather(
    city: Annotated[str, Field(description="Its name.")],
    unit: Literal["C", "F"] = "C",
    *,
    days: int | None = None,
) -> str:
    """Return the weather in a city.

    It is made up.
    """
    return f"{city} {unit} {days}"


async def wait(place: Place) -> str:
    return place.city


class Shop:
    """Has a method that is a tool."""

    def find(self, name: str) -> str:
        """Find a thing."""
        return f"{name}!"

    def __call__(self, name: str) -> str:
        return name


def doubled(function: Callable[..., str]) -> Callable[..., str]:
    @functools.wraps(function)
    def twice(*args: Any, **kwargs: Any) -> str:
        return 2 * function(*args, **kwargs)

    return twice


@doubled
def echo(text: str) -> str:
    return text


@functools.lru_cache
def cached(number: int) -> int:
    return number


def called(function: Callable[..., Any], **arguments: Any) -> Any:
    return tools.call(function, ToolCall("c1", function.__name__, json.dumps(arguments)))


PARAMETERS = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "title": "City", "description": "Its name."},
        "unit": {"type": "string", "title": "Unit", "enum": ["C", "F"], "default": "C"},
        "days": {"anyOf": [{"type": "integer"}, {"type": "null"}], "title": "Days", "default": None},
    },
    "required": ["city"],
    "additionalProperties": False,
}


def test_a_definition_has_name_docstring_and_parameters() -> None:
    text = "Return the weather in a city.\n\nIt is made up."
    function = {"name": "weather", "description": text, "parameters": PARAMETERS}
    assert tools.schema(weather) == {"type": "function", "function": function}
    anthropic = {"name": "weather", "description": text, "input_schema": PARAMETERS}
    assert tools.schema(weather, provider="anthropic") == anthropic
    with pytest.raises(InvalidParameter, match="provider is 'claude'; give one of 'openai'"):
        tools.schema(weather, "claude")


@pytest.mark.parametrize(
    ("function", "name", "properties"),
    [
        (wait, "wait", {"place": {"$ref": "#/$defs/Place"}}),
        (Shop().find, "find", {"name": {"type": "string", "title": "Name"}}),
        (echo, "echo", {"text": {"type": "string", "title": "Text"}}),
        (cached, "cached", {"number": {"type": "integer", "title": "Number"}}),
    ],
)
def test_each_kind_of_function_is_a_tool(
    function: Callable[..., Any], name: str, properties: dict[str, Any]
) -> None:
    definition = tools.schema(function)["function"]
    assert definition["name"] == name
    described = definition["parameters"]["properties"]
    assert described.keys() == properties.keys()
    for parameter, expected in properties.items():
        assert expected.items() <= described[parameter].items()  # pydantic before 2.12 adds a title


def positional(city: str, /) -> None: ...
def starred(*cities: str) -> None: ...
def named(**cities: str) -> None: ...
def strange(shop: Shop) -> None: ...
def calling_back(function: Callable[[], None]) -> None: ...
def lost(place: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def stand_alone(self, city: str) -> None: ...  # type: ignore[no-untyped-def]


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (positional, "The tool positional cannot be called by name: city is positional only."),
        (starred, "The tool starred cannot be called by name: *cities has no names."),
        (named, "The tool named cannot be called by name: **cities has no names."),
        (lambda city: city, "The tool <lambda> has no name that APIs accept; define it with def."),
        (Place, "A tool is the class Place; give a function or a method."),
        (Shop(), "A tool is a Shop; give a function or a method."),
        (functools.partial(weather, unit="F"), "A tool is a partial; give a function or a method."),
        ("weather", "A tool is a str; give a function or a method."),
        (Shop.find, "The tool find needs self; give the method of an object: thing.find."),
        (
            strange,
            "pydantic cannot describe the parameters of the tool strange (PydanticSchemaGenerationError",
        ),
        (calling_back, "pydantic cannot describe the parameters of the tool calling_back"),
        (lost, "pydantic cannot describe the parameters of the tool lost"),
        (len, "The tool len cannot be called by name: obj is positional only."),
        (max, "The tool max has no signature; wrap it in a function."),
    ],
)
def test_what_cannot_be_a_tool_is_refused_with_the_reason(function: Any, says: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        tools.schema(function)
    assert str(caught.value).startswith(says)


@pytest.mark.parametrize("function", [starred, strange, Place, "weather"])
def test_what_cannot_be_a_tool_cannot_be_called(function: Any) -> None:
    with pytest.raises(InvalidParameter):
        tools.call(function, ToolCall("c1", "any", "{}"))


async def test_a_call_runs_the_function_with_validated_arguments() -> None:
    assert called(weather, city="Rome") == "Rome C None"
    assert called(weather, city="Rome", unit="F", days=3) == "Rome F 3"
    assert called(Shop().find, name="pen") == "pen!"
    assert called(echo, text="a") == "aa"
    assert called(cached, number=7) == 7
    assert await called(wait, place={"city": "Rome"}) == "Rome"


def test_a_call_without_arguments_needs_none() -> None:
    def now(zone: str = "UTC") -> str:
        return zone

    for arguments in ("", "{}"):
        assert tools.call(now, ToolCall("c1", "now", arguments)) == "UTC"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ('{"city": 7}', "city: Input should be a valid string"),
        ('{"city": "Rome", "unit": "K"}', "unit: Input should be 'C' or 'F'"),
        ('{"city": "Rome", "zip": 1}', "zip: Unexpected keyword argument"),
        ("{}", "city: Missing required argument"),
        ('["Rome"]', "the arguments are a list, not an object"),
        ('"Rome"', "Arguments must be an array or an object"),
        ('{"city": "Ro', "Invalid JSON: "),
    ],
)
def test_arguments_that_do_not_fit_are_an_error_for_the_model(arguments: str, problem: str) -> None:
    with pytest.raises(InvalidOutput) as caught:
        tools.call(weather, ToolCall("c1", "weather", arguments))
    assert str(caught.value).startswith(f"The arguments of weather do not fit: {problem}")
    assert caught.value.text == arguments
    assert caught.value.problems[0].startswith(problem)
    assert caught.value.__context__ is None  # it would hold the arguments


def test_an_error_of_the_function_is_raised_as_it_is() -> None:
    """Also one of pydantic, which is not about the arguments."""

    def broken(city: str) -> None:
        Place.model_validate({"town": city})

    with pytest.raises(ValueError, match="1 validation error for Place"):
        called(broken, city="Rome")


@pytest.mark.parametrize("call", CALLS)
def test_functions_in_a_call_are_sent_in_the_form_of_the_api(
    call: str, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    other = {"type": "function", "function": {"name": "other"}}
    given = [weather, other, Shop().find]
    ask(call, configure(upstream), tools=given, tool_choice="auto")
    assert upstream.requests[0].json()["tools"] == [tools.schema(weather), other, tools.schema(Shop().find)]
    assert given[0] is weather


def test_functions_in_a_call_to_anthropic_are_sent_in_its_form(
    configure: Callable[..., LLMPool], llm_provider: ScriptedProvider
) -> None:
    llm_provider.reply("Sunny.")
    pool = configure(llm_provider, PROVIDER="anthropic", BASE_URL=llm_provider.anthropic_url)
    pool.complete("hello", max_tokens=9, tools=(weather,))
    assert llm_provider.requests[0].json()["tools"] == [tools.schema(weather, "anthropic")]


@pytest.mark.parametrize("call", CALLS)
def test_a_function_that_is_no_tool_is_refused_before_a_connection_is_opened(
    call: str, configure: Callable[..., LLMPool], upstream: ScriptedServer
) -> None:
    with pytest.raises(InvalidParameter, match="The tool starred cannot be called by name"):
        ask(call, configure(upstream), tools=[weather, starred])
    parrot = configure(upstream, PROVIDER="tests.providers.test_custom_provider.Parrot")
    with pytest.raises(InvalidRequest, match="'parrot' has no form for functions in tools"):
        ask(call, parrot, tools=[weather])
    assert upstream.connections_accepted == 0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"weather": weather}, r"tools is a dict; give a list: list\(tools\.values\(\)\)"),
        (weather, r"tools is a function; give a list: \[function\]"),
    ],
)
def test_tools_that_are_not_in_a_list_are_refused(
    given: Any, says: str, configure: Callable[..., LLMPool], llm_provider: ScriptedProvider
) -> None:
    with pytest.raises(InvalidParameter, match=says):
        configure(llm_provider).complete("x", tools=given)


def test_a_definition_is_the_callers_own() -> None:
    tools.schema(weather)["function"]["parameters"].clear()
    assert tools.schema(weather)["function"]["parameters"] == PARAMETERS


def test_a_function_is_not_kept_alive() -> None:
    """Functions are often made for one request, and hold it."""

    def lookup(key: str) -> str:
        return key

    tools.schema(lookup)
    called(lookup, key="a")
    left = weakref.ref(lookup)
    del lookup
    gc.collect()
    assert left() is None


def test_the_loop_of_the_readme_calls_the_tool_and_ends(
    configure: Callable[..., LLMPool], llm_provider: ScriptedProvider, capsys: pytest.CaptureFixture[str]
) -> None:
    llm_provider.tool_call("temperature", {"city": "Rome"}, id="c1")
    llm_provider.reply("21 degrees.")
    configure(llm_provider)
    readme = Path(__file__).parents[1].joinpath("README.md").read_text(encoding="utf-8")
    code = re.search(r"### Tools\n.*?```python\n(.*?)```", readme, re.DOTALL)
    assert code is not None
    exec(compile(code[1], "README.md", "exec", dont_inherit=True), {"__name__": "readme"})
    assert capsys.readouterr().out == "21 degrees.\n"
    first, second = (request.json() for request in llm_provider.requests)
    assert first["tools"][0]["function"]["name"] == "temperature"
    question, asked, result = second["messages"]
    assert [question] == first["messages"]
    assert (asked["role"], asked["tool_calls"][0]["id"]) == ("assistant", "c1")
    assert result == {"role": "tool", "tool_call_id": "c1", "content": "21 C"}


def test_the_same_loop_works_with_anthropic(
    configure: Callable[..., LLMPool], llm_provider: ScriptedProvider
) -> None:
    """The results go into one message of the user, as the README says."""
    cities = [{"city": "Rome"}, {"city": "Oslo", "unit": "F"}]
    llm_provider.tool_call([AskedCall("weather", arguments) for arguments in cities])
    llm_provider.reply("Mild.")
    pool = configure(llm_provider, PROVIDER="anthropic", BASE_URL=llm_provider.anthropic_url)
    messages: list[Any] = [{"role": "user", "content": "How is the weather?"}]
    while (completion := pool.complete(messages, tools=[weather], max_tokens=99)).tool_calls:
        results = [
            {"type": "tool_result", "tool_use_id": call.id, "content": tools.call(weather, call)}
            for call in completion.tool_calls
        ]
        messages += [completion.message, {"role": "user", "content": results}]
    assert completion.text == "Mild."
    _, asked, answered = llm_provider.requests[1].json()["messages"]
    assert [block["id"] for block in asked["content"]] == [each["tool_use_id"] for each in results]
    assert [each["content"] for each in answered["content"]] == ["Rome C None", "Oslo F None"]


def test_pydantic_is_imported_only_when_a_function_is_described() -> None:
    program = """
import sys
from llm_pool import exceptions, tools, types
assert "pydantic" not in sys.modules
sys.modules["pydantic"] = None
call = types.ToolCall("c1", "call", "{}")
for use in (lambda: tools.schema(tools.call), lambda: tools.call(tools.call, call)):
    try:
        use()
    except exceptions.InvalidParameter as error:
        print(error)
"""
    schema, call = run_script(program).splitlines()
    assert schema == call
    assert schema.startswith("A function as a tool needs pydantic 2: pip install")
