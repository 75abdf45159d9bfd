"""The bodies that the upstreams send."""

from __future__ import annotations

import json

__all__ = ["COMPLETION", "EVENT", "MESSAGE", "TEXT", "TOKEN"]

TEXT = "Hello! How can I help you today? " * 8
TOKEN = " token"

COMPLETION = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "test-model",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 72, "total_tokens": 82},
    }
)
"""In the form of OpenAI's chat completions."""

MESSAGE = json.dumps(
    {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "test-model",
        "content": [{"type": "text", "text": TEXT}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 72},
    }
)
"""In the form of Anthropic's messages."""

EVENT = (
    b"data: %s\n\n"
    % json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1700000000,
            "model": "test-model",
            "choices": [{"index": 0, "delta": {"content": TOKEN}, "finish_reason": None}],
        }
    ).encode()
)
"""One token of a streamed chat completion."""
