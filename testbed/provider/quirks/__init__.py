"""Dialects of real providers and gateways by name: ``provider.stream([...], quirk="no-done")``.

Each is one small function over the events of a response, in the file of what it concerns. Its name is the
function's, with hyphens. ``QUIRKS`` has them all.
"""

from __future__ import annotations

from testbed.provider.quirks import (  # noqa: F401 - they add their quirks to the table
    bodies,
    choices,
    embeddings,
    errors,
    messages,
    reasoning,
    responses,
    streams,
    tools,
)
from testbed.provider.quirks.registry import QUIRKS, Quirk, apply, as_answered, quirks_of

__all__ = ["QUIRKS", "Quirk", "apply", "as_answered", "quirks_of"]
