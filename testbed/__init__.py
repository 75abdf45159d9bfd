"""Servers on real sockets that do exactly what a test scripts, and count connections and requests."""

from __future__ import annotations

from testbed.board import Board, Gate
from testbed.connection import ClientGone, ReceivedRequest, ServerConnection
from testbed.scripted import Disconnect, Script, ScriptedServer

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
