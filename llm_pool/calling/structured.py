"""Structured output: a Python type as ``response_format``, and its value as ``Completion.parsed``.

pydantic makes the JSON schema, and validates the answer. It is imported when a call needs it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from llm_pool.exceptions import InvalidOutput, InvalidParameter, with_article
from llm_pool.providers.json_schema import root_of

if TYPE_CHECKING:
    import pydantic

    from llm_pool.providers.base import Provider
    from llm_pool.providers.results import Completion

__all__ = ["OutputType", "import_pydantic", "is_json", "output_type", "problems_in", "refused_by_pydantic"]

_GIVE = "Give a dict in the form of the API, or a type such as a pydantic model or a dataclass."
_MAX_PROBLEMS = 5  # that a message shows
_CUT = frozenset({"length", "max_tokens", "max_output_tokens", "model_context_window_exceeded"})
_REFUSED = frozenset({"refusal", "content_filter"})


def is_json(value: Any) -> bool:
    """Return whether ``value`` goes into the request as it is, instead of a type or a function."""
    return value is None or isinstance(value, (Mapping, list, tuple, str, int, float))


def import_pydantic(what: str) -> Any:
    """Return the module pydantic. Raises ``InvalidParameter`` if it is not installed; ``what`` needs it."""
    try:
        import pydantic  # noqa: PLC0415  it is optional, and takes 0.1 s
    except ImportError:
        pydantic = None  # type: ignore[assignment]
    if not hasattr(pydantic, "TypeAdapter"):
        raise InvalidParameter(
            f"{what} needs pydantic 2: pip install 'django-llm-pool[pydantic]'. "
            "Without it, give the JSON schema as a dict in the form of the API."
        )
    return pydantic


@contextmanager
def refused_by_pydantic(what: str, advice: str) -> Iterator[None]:
    """Raise ``InvalidParameter`` in place of an error of pydantic about a type.

    Its message is ``what``, a clause about the type, the problem that pydantic has with it, and ``advice``.
    """
    import pydantic  # noqa: PLC0415  see ``import_pydantic``

    try:
        yield
    except (pydantic.PydanticUserError, NameError) as error:  # NameError: a name in an annotation
        problem = str(error).partition("\n")[0]
        raise InvalidParameter(f"{what} ({type(error).__name__}: {problem}). {advice}") from None


def problems_in(error: pydantic.ValidationError) -> tuple[str, ...]:
    """Return a sentence for each problem, with its place, without the values that were validated."""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    return tuple(f"{_place(detail['loc'])}{detail['msg']}" for detail in details)


def output_type(provider: Provider, kind: Any) -> OutputType:
    """Return the output type of a call to ``provider`` for ``kind``, a type that pydantic can validate.

    Raises ``InvalidParameter`` if pydantic is not installed or cannot validate the type, or if the API has no
    form for its schema; ``InvalidRequest`` if the provider has no structured output.
    """
    try:
        hash(kind)
    except TypeError:  # such as Annotated[int, a dict]
        return _make(provider, kind)
    return _cached(provider, kind)


@dataclass(frozen=True, slots=True)
class OutputType:
    """The type of the answers to a call.

    ``name``     the name of the type
    ``adapter``  validates an answer
    ``wrapped``  whether the answer is an object with the value in "value": APIs accept only objects
    ``params``   the parameters of the request that ask for it, in the provider's form
    """

    name: str
    adapter: pydantic.TypeAdapter[Any]
    wrapped: bool
    params: Mapping[str, Mapping[str, Any]]

    def add_to(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``params``, the caller's, with the parameters of this type in place of ``response_format``.

        Raises ``InvalidParameter`` if the caller has given the same field of an object, such as
        ``output_config={"format": ...}``, or no object.
        """
        result = {name: value for name, value in params.items() if name != "response_format"}
        for name, fields in self.params.items():
            given = result.get(name) or {}
            if not isinstance(given, Mapping):
                raise InvalidParameter(
                    f"{name} is {with_article(given)}; beside response_format, give a dict."
                )
            if twice := given.keys() & fields.keys():
                raise InvalidParameter(
                    f"{name}[{min(twice)!r}] contradicts response_format; give one of the two."
                )
            result[name] = {**given, **fields}
        return result

    def parse(self, completion: Completion) -> Completion:
        """Return ``completion`` with the value in ``parsed``. It stays None if the model calls tools.

        Raises ``InvalidOutput`` if the text does not fit the type.
        """
        import pydantic  # noqa: PLC0415  see ``import_pydantic``

        if completion.tool_calls:
            return completion
        try:
            value = self.adapter.validate_json(completion.text)
        except pydantic.ValidationError as error:
            problems = problems_in(error)
        else:
            return replace(completion, parsed=value.value if self.wrapped else value)
        raise InvalidOutput(  # outside of the handler: the context of an error would hold the answer
            self._describe_mismatch(completion, problems),
            completion.request_id,
            completion=completion,
            text=completion.text,
            problems=problems,
        )

    def _describe_mismatch(self, completion: Completion, problems: tuple[str, ...]) -> str:
        reason = completion.finish_reason
        if completion.refusal or reason in _REFUSED:
            return "The model refused to answer; its words are in completion.refusal and completion.text."
        if reason in _CUT:
            return f"The answer was cut (finish_reason {reason!r}), and is no {self.name}; allow more tokens."
        more = f"; and {len(problems) - _MAX_PROBLEMS} more" if len(problems) > _MAX_PROBLEMS else ""
        return f"The answer does not fit {self.name}: {'; '.join(problems[:_MAX_PROBLEMS])}{more}."


@lru_cache(maxsize=128)
def _cached(provider: Provider, kind: Any) -> OutputType:
    return _make(provider, kind)


def _make(provider: Provider, kind: Any) -> OutputType:
    pydantic = import_pydantic("A type as response_format")
    if isinstance(kind, pydantic.BaseModel) or (is_dataclass(kind) and not isinstance(kind, type)):
        raise InvalidParameter(f"response_format is {with_article(kind)}; give the class itself.")
    with refused_by_pydantic("response_format is not a type that pydantic knows", _GIVE):
        adapter = pydantic.TypeAdapter(kind)
        schema = root_of(adapter.json_schema())
        wrapped = schema.get("type") != "object"
        if wrapped:
            adapter = pydantic.TypeAdapter(pydantic.create_model("Answer", value=(kind, ...)))
            schema = adapter.json_schema()
    name = getattr(kind, "__name__", "answer")
    tidy_name = re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:64].strip("_") or "answer"
    return OutputType(name, adapter, wrapped, provider.output_params(tidy_name, schema))


def _place(location: tuple[int | str, ...]) -> str:
    path = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in location)
    return f"{path.removeprefix('.')}: " if path else ""
