"""The event loops that host connections, and calls to them from other loops and threads."""
