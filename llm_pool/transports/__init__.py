"""The engine as httpx transports: one pool under ``httpx.AsyncClient`` and ``httpx.Client``."""
