"""Servers on real sockets that do exactly what a test tells them, and count what is done to them."""

from __future__ import annotations

from tests.servers.board import Board, Gate
from tests.servers.connection import ClientGone, ReceivedRequest, ServerConnection
from tests.servers.scripted import Disconnect, Script, ScriptedServer

__all__ = [
    "Board",
    "ClientGone",
    "Disconnect",
    "Gate",
    "ReceivedRequest",
    "Script",
    "ScriptedServer",
    "ServerConnection",
]
