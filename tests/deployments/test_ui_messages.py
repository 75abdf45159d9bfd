"""``format="ai-sdk"``: the AI SDK posts to a view and reads its response, as ``useChat`` does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.node import ui_message_reader

if TYPE_CHECKING:
    from collections.abc import Callable

    from testbed import ScriptedServer
    from tests.deployments.launcher import Deployment


@pytest.mark.server
@pytest.mark.parametrize("name", ["uvicorn", "gunicorn-gthread"])
def test_a_question_is_answered(
    name: str,
    deploy: Callable[..., Deployment],
    upstream: ScriptedServer,
    pytestconfig: pytest.Config,
) -> None:
    server = deploy(name, upstream)
    with ui_message_reader(pytestconfig, "ai") as read:
        answer = read(url=f"http://127.0.0.1:{server.port}/ui-messages")
    assert answer["errors"] == []
    assert answer["message"]["parts"][-1] == {"type": "text", "text": "onetwothree", "state": "done"}
