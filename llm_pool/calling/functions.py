"""Python functions as tools: their definitions for the model, and the arguments of the model's calls.

pydantic makes the JSON schema of a function's parameters, and validates the arguments.
"""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from llm_pool.calling.structured import import_pydantic, problems_in, refused_by_pydantic
from llm_pool.exceptions import InvalidOutput, InvalidParameter, with_article

if TYPE_CHECKING:
    from llm_pool.providers.base import Provider
    from llm_pool.providers.results import ToolCall

__all__ = ["definition", "validated_arguments", "with_definitions"]

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")  # what OpenAI's and Anthropic's APIs accept
_GIVE = (
    "Give them types of JSON; bind what is not for the model, such as the request, in a function or object "
    "of your own."
)
_NOT_NAMED = {
    inspect.Parameter.POSITIONAL_ONLY: "{} is positional only",
    inspect.Parameter.VAR_POSITIONAL: "*{} has no names",
    inspect.Parameter.VAR_KEYWORD: "**{} has no names",
}
_schemas: MutableMapping[Callable[..., Any], dict[str, Any]] = WeakKeyDictionary()
"""The JSON schema of the parameters of each function: to make it takes a millisecond."""


def with_definitions(provider: Provider, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``params`` with a definition in place of each function in ``tools``."""
    tools = [definition(provider, tool) if callable(tool) else tool for tool in params["tools"]]
    return {**params, "tools": tools}


def definition(provider: Provider, function: Callable[..., Any]) -> dict[str, Any]:
    """Return the definition of the tool ``function``, in the form of the provider's API.

    Raises ``InvalidParameter`` if pydantic is not installed, or if ``function`` cannot be a tool, and
    ``InvalidRequest`` if the provider has no tools.
    """
    name = _name_of(function)
    if function not in _schemas:
        adapter = _adapter(function)
        with _refusal_of(function):
            _schemas[function] = adapter.json_schema()
    return provider.tool_definition(name, inspect.getdoc(function) or "", _schemas[function])


def validated_arguments(
    function: Callable[..., Any], call: ToolCall
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of ``call`` for ``function``, by position and by name.

    Raises ``InvalidOutput`` if they do not fit the parameters of ``function``.
    """
    pydantic = import_pydantic("A function as a tool")
    name, text = _name_of(function), call.arguments or "{}"
    try:
        args, kwargs = _adapter(function).validate_json(text)
    except pydantic.ValidationError as error:
        problems = problems_in(error)
    else:
        if not args:
            return args, kwargs
        problems = ("the arguments are a list, not an object",)
    raise InvalidOutput(  # outside of the handler: the context of an error would hold the arguments
        f"The arguments of {name} do not fit: {'; '.join(problems)}.", text=text, problems=problems
    )


def _name_of(function: Any) -> str:
    """Return the name of ``function``. Raises ``InvalidParameter`` if ``function`` cannot be a tool."""
    name = getattr(function, "__name__", None)
    if isinstance(function, type) or not isinstance(name, str):
        what = f"the class {name}" if isinstance(function, type) else with_article(function)
        raise InvalidParameter(f"A tool is {what}; give a function or a method.")
    if not _NAME.fullmatch(name):
        raise InvalidParameter(f"The tool {name} has no name that APIs accept; define it with def.")
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        raise InvalidParameter(f"The tool {name} has no signature; wrap it in a function.") from None
    for parameter in parameters:
        if parameter.kind in _NOT_NAMED:
            problem = _NOT_NAMED[parameter.kind].format(parameter.name)
            raise InvalidParameter(f"The tool {name} cannot be called by name: {problem}.")
    if parameters and parameters[0].name == "self":
        raise InvalidParameter(f"The tool {name} needs self; give the method of an object: thing.{name}.")
    return name


def _adapter(function: Callable[..., Any]) -> Any:
    """Return a pydantic adapter that validates arguments, and returns them instead of calling ``function``.

    An error of ``function`` itself could otherwise look like one of its arguments.
    """
    pydantic = import_pydantic("A function as a tool")

    @functools.wraps(function)
    def arguments(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, kwargs

    with _refusal_of(function):
        # pydantic before 2.12 looks up names in the module of ``arguments``, not of ``function``
        arguments.__annotations__ = typing.get_type_hints(function, include_extras=True)
        return pydantic.TypeAdapter(arguments)


def _refusal_of(function: Callable[..., Any]) -> AbstractContextManager[None]:
    """Raise ``InvalidParameter`` in place of the errors of pydantic about the parameters of ``function``."""
    what = f"pydantic cannot describe the parameters of the tool {function.__name__}"
    return refused_by_pydantic(what, _GIVE)
