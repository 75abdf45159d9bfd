"""The version of this package: a file of its own, since the package itself imports from all others."""

from __future__ import annotations

__version__ = "0.1.0"
