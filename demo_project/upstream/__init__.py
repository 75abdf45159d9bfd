"""The demo's own model server (the upstream), in a separate process, and the launcher of the demo."""
