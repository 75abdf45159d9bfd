"""Which provider the demo uses: the one whose key the environment holds, or else its own upstream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["is_given", "pool_settings"]

ANTHROPIC_MODEL = "claude-haiku-4-5"
OPENAI_MODEL = "gpt-4o-mini"


def is_given(environ: Mapping[str, str]) -> bool:
    """Whether there is one: otherwise the launcher starts an upstream, and names it like OpenAI's."""
    return bool(_openai_given(environ) or environ.get("ANTHROPIC_API_KEY"))


def pool_settings(environ: Mapping[str, str]) -> dict[str, Any]:
    """Provider, address, key and model of a pool, for ``LLM_POOL``."""
    if environ.get("ANTHROPIC_API_KEY") and not _openai_given(environ):
        return {
            "PROVIDER": "anthropic",
            "BASE_URL": environ.get("ANTHROPIC_BASE_URL") or "https://api.anthropic.com",
            "API_KEY": environ["ANTHROPIC_API_KEY"],
            "MODEL": environ.get("ANTHROPIC_MODEL") or ANTHROPIC_MODEL,
        }
    return {
        "PROVIDER": "openai",
        "BASE_URL": environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1",
        "API_KEY": environ.get("OPENAI_API_KEY") or "none needed",
        "MODEL": environ.get("OPENAI_MODEL") or OPENAI_MODEL,
    }


def _openai_given(environ: Mapping[str, str]) -> bool:
    return bool(environ.get("OPENAI_API_KEY") or environ.get("OPENAI_BASE_URL"))
