"""The status page, with the pools of this machine now and over the last five minutes; the health checks."""

from __future__ import annotations
