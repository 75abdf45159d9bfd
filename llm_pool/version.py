"""The version of this package, in a file that all modules can import without a cycle."""

from __future__ import annotations

__version__ = "0.1.0"
