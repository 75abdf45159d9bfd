"""The tokens of a call, as the provider counts them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Usage", "token_count"]

_MAX_COUNT = 2**53  # metrics are floats, which can hold each whole number up to this one exactly

# Where OpenAI, its Responses API, Anthropic, DeepSeek, Moonshot and Perplexity put these numbers.
_CACHED = (
    ("prompt_tokens_details", "cached_tokens"),
    ("input_tokens_details", "cached_tokens"),
    ("cache_read_input_tokens",),
    ("prompt_cache_hit_tokens",),
    ("cached_tokens",),
)
_REASONING = (
    ("completion_tokens_details", "reasoning_tokens"),
    ("output_tokens_details", "reasoning_tokens"),
    ("output_tokens_details", "thinking_tokens"),
    ("reasoning_tokens",),
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
        return _first_count(self.raw, _CACHED)

    @property
    def reasoning_tokens(self) -> int:
        """Tokens of the answer that are reasoning."""
        return _first_count(self.raw, _REASONING)


def token_count(value: Any) -> int:
    """Return ``value`` if it is a valid number of tokens, otherwise 0. No number fails a call."""
    return value if type(value) is int and 0 < value < _MAX_COUNT else 0


def _first_count(usage: Mapping[str, Any], paths: Sequence[Sequence[str]]) -> int:
    """Return the first number of tokens that is not 0; 0 if there is none.

    A path has the key of ``usage``, or this key and that of the object that it has there.
    """
    for path in paths:
        value: Any = usage
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if count := token_count(value):
            return count
    return 0
