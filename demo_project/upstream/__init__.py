"""The upstream: the demo's own model server, which runs as a separate process, and the launcher of both."""
