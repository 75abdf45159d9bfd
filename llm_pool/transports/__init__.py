"""The engine worn as httpx transports: one pool under ``httpx.AsyncClient`` and ``httpx.Client``."""

from __future__ import annotations

from .asynchronous import AsyncTransport
from .synchronous import Transport

__all__ = ["AsyncTransport", "Transport"]
