"""The status page (the pools of this machine, now and over the last five minutes) and the health checks."""

from __future__ import annotations
