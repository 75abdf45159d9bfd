"""Servers that answer at once and are not the bottleneck, each a process of its own."""
