"""The top-level folder ``testbed``: its servers do what they say and count right."""
