"""Calls to a model: ``LLMPool``, the two ways to send a call, streams, and the record of each call."""
