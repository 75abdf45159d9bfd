"""No error report shows the API key, on any engine."""

from __future__ import annotations

import pytest

from llm_pool.exceptions import LLMPoolError
from testbed.behaviours import close, json_reply, reply, reset, send, steps
from tests.backends.conftest import HTTP1
from tests.fixtures.callers import in_thread
from tests.fixtures.reports import reported

KEY = "sk-in-no-report"
ANSWERS = {
    "a close": steps(lambda conn: conn.read_request(), close),
    "a reset": steps(lambda conn: conn.read_request(), reset),
    "garbage": steps(lambda conn: conn.read_request(), send(b"\0\1garbage\r\n\r\n"), close),
    "a page that repeats the key": reply(200, f"<html>{KEY}".encode(), {"Content-Type": "text/html"}),
    "a refusal that repeats the key": json_reply({"error": {"message": f"Bad key {KEY}"}}, status=401),
}


@pytest.mark.kinds(HTTP1)
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
@pytest.mark.parametrize("call", ["acomplete", "complete", "astream"])
async def test_no_frame_of_an_error_shows_the_key(serve, configure, call, answer):
    """Neither this package's frames nor the library's, in the error and in its causes."""
    pool = configure(serve(answer), API_KEY=KEY)
    with pytest.raises(LLMPoolError) as caught:
        await ask(pool, call)
    assert KEY not in reported(caught.value)


async def ask(pool, call):
    match call:
        case "acomplete":
            await pool.acomplete("Hello?")
        case "complete":
            await in_thread(pool.complete, "Hello?")
        case "astream":
            async for _ in pool.astream("Hello?"):
                pass
