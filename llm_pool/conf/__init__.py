"""``settings.LLM_POOL`` as frozen values. Nothing else in this package reads Django's settings."""

from __future__ import annotations

from llm_pool.conf.reader import Problem
from llm_pool.conf.secret import Secret
from llm_pool.conf.settings import PoolSettings, load, problems, survey

__all__ = ["PoolSettings", "Problem", "Secret", "load", "problems", "survey"]
