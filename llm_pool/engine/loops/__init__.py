"""The event loops on which connections live, and calls to them from other loops and threads."""
