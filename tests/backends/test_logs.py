"""What the libraries below the pool write into the log."""

from __future__ import annotations

import logging
import threading

import pytest

KEYS = {"X-Api-Key": "canary-1", "X-Gateway-Token": "canary-2"}


@pytest.mark.usefixtures("server_loop")
async def test_no_key_is_in_the_log(kind, server, configure, caplog):
    """Even if all loggers are at DEBUG. On httpcore all but hpack's, which logs each header."""
    caplog.set_level(logging.DEBUG)
    if not kind.startswith("httpcore"):
        caplog.set_level(logging.DEBUG, logger="hpack.hpack")
    pool = configure(server, API_KEY="canary-3")
    for number in range(2):
        answer = await pool.arequest("GET", "/x", headers=KEYS | {"X-New": f"canary-{number}"})
        assert answer.status_code == 200
    assert server.requests[-1].headers["x-gateway-token"] == "canary-2"
    messages = [record.getMessage() for record in caplog.records if record.thread == threading.get_ident()]
    assert messages
    assert not [each for each in messages if "canary" in each or "header block" in each]
