"""The compared clients, each used in the way its documentation recommends."""

from __future__ import annotations

from importlib import import_module

from benchmarks.clients.base import AsyncClient, Client, Target

__all__ = ["CLIENTS", "AsyncClient", "Client", "Target", "load"]

CLIENTS = {
    # on an event loop
    "floor": "floor:Floor",
    "acomplete": "llm_pool:Complete",
    "acomplete, default limits": "llm_pool:CompleteByDefault",
    "acomplete+metrics": "llm_pool:ObservedComplete",
    "aclient": "llm_pool:HTTPXOnPool",
    "httpx": "httpx:HTTPX",
    "httpx2": "httpx:HTTPX2",
    "aiohttp": "aiohttp:AIOHTTP",
    "httpx-aiohttp": "httpx:HTTPXOnAIOHTTP",
    "openai": "openai:OpenAI",
    "openai+aiohttp": "openai:OpenAIOnAIOHTTP",
    "anthropic": "anthropic:Anthropic",
    "litellm": "litellm:LiteLLM",
    "niquests": "niquests:Niquests",
    "pyreqwest": "pyreqwest:Pyreqwest",
    # one client for each call
    "httpx, one per call": "httpx:HTTPXPerCall",
    "openai, one per call": "openai:OpenAIPerCall",
    # in threads
    "complete": "llm_pool:CompleteInThreads",
    "httpx.Client": "httpx:HTTPXInThreads",
    "openai.OpenAI": "openai:OpenAIInThreads",
    "requests": "requests:Requests",
}


def load(name: str) -> type[AsyncClient | Client]:
    """The class of the client with that name. Raises ImportError if its library is not installed."""
    module, _, attribute = CLIENTS[name].partition(":")
    client: type[AsyncClient | Client] = getattr(import_module(f"benchmarks.clients.{module}"), attribute)
    return client
