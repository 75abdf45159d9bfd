"""The model server behind the demo, and the command that starts it together with the pages."""
