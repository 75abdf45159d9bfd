"""A provider of models that says what a test scripts, in OpenAI's and Anthropic's words, with their faults.

    provider.reply("Hello")
    provider.stream(["Hel", "lo"], gap=0.01, quirk="no-done")
    provider.tool_call("weather", {"city": "Rome"})
    provider.fail(429, retry_after=1)

``ScriptedProvider`` has all words. ``answers.py`` has what an answer can hold, a file for each API turns it
into JSON and events, ``quirks/`` are the dialects of real servers, by name.
"""

from __future__ import annotations

from testbed.provider.answers import Citation, Tokens, ToolCall
from testbed.provider.embeddings import vector
from testbed.provider.errors import ERRORS
from testbed.provider.provider import ScriptedProvider
from testbed.provider.quirks import QUIRKS

__all__ = ["ERRORS", "QUIRKS", "Citation", "ScriptedProvider", "Tokens", "ToolCall", "vector"]
