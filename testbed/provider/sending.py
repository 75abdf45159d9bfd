"""Responses, and how they are sent."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from testbed.behaviours import EVENTS, JSON

if TYPE_CHECKING:
    from collections.abc import Mapping

    from testbed.board import Gate
    from testbed.connection import ServerConnection
    from testbed.provider.api import APIRequest, Event
    from testbed.scripted import Script

__all__ = ["Response", "beats", "pause", "send"]


@dataclass(frozen=True)
class Response:
    """A response that a provider sends.

    ``events``   its parts, in order; a script among them is played in its place, and may end the connection
    ``status``   its HTTP status; None to send no head, so that scripts send everything
    ``headers``  its headers, besides those of the body
    ``request``  the request as it is answered: a quirk can send a stream where JSON was asked for
    """

    events: list[Event]
    status: int | None
    headers: Mapping[str, str]
    request: APIRequest


async def send(conn: ServerConnection, response: Response) -> None:
    """Send a response: JSON of one part with its Content-Length, everything else in chunks."""
    events, request = response.events, response.request
    if response.status is None:
        await _play(conn, events, request)
        return
    given = {name.lower() for name in response.headers}
    own = {request.api.request_id_header: f"req_{request.number}", **(EVENTS if request.stream else JSON)}
    headers = {**{name: own[name] for name in own if name.lower() not in given}, **response.headers}
    if not request.stream and len(events) == 1 and not callable(events[0]):
        await conn.respond(response.status, headers, request.encode(events[0]))
        return
    await conn.send_head(response.status, {**headers, "Transfer-Encoding": "chunked"})
    *rest, last = events or [b""]
    await _play(conn, rest, request)
    if callable(last):
        await last(conn)
        await conn.end_chunks()
    elif data := request.encode(last):  # with the end of the body in one write: a client reads both together
        await conn.send_last_chunk(data)
    else:
        await conn.end_chunks()


async def _play(conn: ServerConnection, events: list[Event], request: APIRequest) -> None:
    for event in events:
        if callable(event):
            await event(conn)
        elif data := request.encode(event):  # an empty chunk would end the body
            await conn.send_chunk(data)


def pause(gap: float | Gate | str, heartbeat: bytes, every: float | None) -> Script:
    """Wait ``gap`` seconds, or at that gate; meanwhile send the heartbeat every so many seconds."""

    async def script(conn: ServerConnection) -> None:
        wait = asyncio.sleep(gap) if isinstance(gap, (int, float)) else conn.wait_for(gap)
        waiting = asyncio.ensure_future(wait)
        try:
            while every is not None and not (await asyncio.wait({waiting}, timeout=every))[0]:
                await conn.send_chunk(heartbeat)
            await waiting
        finally:
            waiting.cancel()

    return script


def beats(heartbeat: bytes, every: float) -> Script:
    """Send the heartbeat every so many seconds until the connection ends."""

    async def script(conn: ServerConnection) -> None:
        while True:
            await asyncio.sleep(every)
            await conn.send_chunk(heartbeat)

    return script
