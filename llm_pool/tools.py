"""Python functions as tools of a model. The loop that calls them is yours; the README shows it in five lines.

``pool.complete(messages, tools=[function])`` takes functions as they are. This module has what that does:
``schema`` makes the definition of a tool, and ``call`` runs a tool call of the model. Both need pydantic.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeVar

from llm_pool.calling.functions import definition, validated_arguments
from llm_pool.exceptions import InvalidParameter
from llm_pool.providers import PROVIDERS
from llm_pool.providers.results import ToolCall

__all__ = ["call", "schema"]

Result = TypeVar("Result")


def schema(function: Callable[..., Any], provider: str = "openai") -> dict[str, Any]:
    """Return the definition of ``function`` as a tool, in the form of the API of ``provider``.

    The tool has the name of the function, its docstring as the description, and its parameters, which are
    described by their types, defaults and ``Annotated[..., pydantic.Field(description=...)]``. ``provider``
    is a name that ``PROVIDER`` in the settings can have.

    Raises ``InvalidParameter`` for a function whose parameters have no names (``*args``, ``**kwargs``,
    positional ones) or no types of JSON, for a lambda and for a class.
    """
    if provider not in PROVIDERS:
        known = ", ".join(map(repr, PROVIDERS))
        raise InvalidParameter(f"provider is {provider!r}; give one of {known}.")
    return copy.deepcopy(definition(PROVIDERS[provider](), function))


def call(function: Callable[..., Result], tool_call: ToolCall) -> Result:
    """Call ``function`` with the arguments of ``tool_call``, validated, and return its result.

    For an async function this is a coroutine: ``await tools.call(...)``. ``tool_call`` is one of
    ``Completion.tool_calls``.

    Raises ``InvalidOutput`` if the arguments are not JSON, or do not fit the parameters. Its message can be
    sent to the model as the result. Errors of ``function`` itself are raised unchanged.
    """
    args, kwargs = validated_arguments(function, tool_call)
    return function(*args, **kwargs)
