"""The status page: what the pools of this machine do and did in the last minutes; and the health checks."""

from __future__ import annotations
