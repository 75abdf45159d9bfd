"""The status page (the pools of this machine, now and in the last minutes) and the health checks."""

from __future__ import annotations
