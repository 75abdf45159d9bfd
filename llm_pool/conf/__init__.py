"""``settings.LLM_POOL`` as frozen values. No other part of this package reads Django's settings."""

from __future__ import annotations

from llm_pool.conf.reader import Problem
from llm_pool.conf.secret import Secret
from llm_pool.conf.settings import PoolSettings, load, load_with_problems

__all__ = ["PoolSettings", "Problem", "Secret", "load", "load_with_problems"]
