"""The tokens of a call, as the provider counts them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Usage", "count_in"]

_MAX_COUNT = 2**53  # metrics are floats, which can hold each whole number up to this one exactly

# Where OpenAI, its Responses API, Anthropic, DeepSeek, Moonshot and Perplexity put these numbers.
_CACHED = (
    "prompt_tokens_details.cached_tokens",
    "input_tokens_details.cached_tokens",
    "cache_read_input_tokens",
    "prompt_cache_hit_tokens",
    "cached_tokens",
)
_REASONING = (
    "completion_tokens_details.reasoning_tokens",
    "output_tokens_details.reasoning_tokens",
    "output_tokens_details.thinking_tokens",
    "reasoning_tokens",
)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call, as the provider counts them. A number that the answer does not state is 0.

    ``input_tokens``      tokens of the request. Anthropic does not count here what it reads from its cache
    ``output_tokens``     tokens of the answer
    ``raw``               the provider's usage object, parsed, with all its fields
    """

    input_tokens: int = 0
    output_tokens: int = 0
    raw: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def cached_tokens(self) -> int:
        """Tokens of the request that were read from the provider's cache."""
        return count_in(self.raw, *_CACHED)

    @property
    def reasoning_tokens(self) -> int:
        """Tokens of the answer that are reasoning."""
        return count_in(self.raw, *_REASONING)


def count_in(usage: Mapping[str, Any], *names: str) -> int:
    """Return the first valid number of tokens that is not 0; 0 if there is none. No number fails a call.

    ``names`` are keys of ``usage``; "a.b" is the key "b" of the object "a".
    """
    for name in names:
        outer, _, inner = name.partition(".")
        value = usage.get(outer)
        if inner:
            value = value.get(inner) if isinstance(value, dict) else None
        if type(value) is int and 0 < value < _MAX_COUNT:
            return value
    return 0
