"""Quirks of embeddings."""

from __future__ import annotations

import base64
import struct
from typing import TYPE_CHECKING

from testbed.provider.quirks.registry import quirk
from testbed.provider.quirks.shapes import objects

if TYPE_CHECKING:
    from testbed.provider.api import APIRequest, Event


@quirk("embeddings")
def vectors_reversed(events: list[Event], request: APIRequest) -> list[Event]:
    """The vectors come in another order than the inputs; only their index says which is whose."""
    for event in objects(events):
        event["data"].reverse()
    return events


@quirk("embeddings")
def vectors_without_index(events: list[Event], request: APIRequest) -> list[Event]:
    """The vectors have no index, and are in the order of the inputs."""
    for event in objects(events):
        for each in event["data"]:
            del each["index"]
    return events


@quirk("embeddings")
def floats_for_base64(events: list[Event], request: APIRequest) -> list[Event]:
    """Floats where base64 was asked for: the server does not know ``encoding_format``."""
    for event in objects(events):
        for each in event["data"]:
            if isinstance(each["embedding"], str):
                data = base64.b64decode(each["embedding"])
                each["embedding"] = list(struct.unpack(f"<{len(data) // 4}f", data))
    return events
