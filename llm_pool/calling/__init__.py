"""Calls to a model: the pool as views use it, the two ways to send a call, and the record of each call."""
