"""docs/dialects.md agrees with the readers and with the dialects of the scripted provider."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from llm_pool import exceptions
from llm_pool.providers.rate_limits import read_rate_limit
from testbed.provider import QUIRKS
from tests.fixtures.calls import CALLS, ask
from tests.fixtures.internals import error_names, reasoning_names

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_pool.calling.pool import LLMPool
    from testbed.provider import ScriptedProvider

PAGE = (Path(__file__).parents[1] / "docs/dialects.md").read_text(encoding="utf-8")


def test_every_dialect_of_the_scripted_provider_is_on_it() -> None:
    column = {
        name
        for row in re.findall(r"^\|.*\| (.*) \|$", PAGE, re.MULTILINE)
        for name in re.findall(r"`([\w-]+)`", row)
    }
    assert set(QUIRKS) - column == set()


def test_the_names_of_errors_are_in_the_row_of_their_class() -> None:
    rows = {
        name: set(re.findall(r"`(\w+)`", row))
        for name, row in re.findall(r"^\| `(\w+)`([^\n]*)", PAGE, re.MULTILINE)
    }
    for status, names in error_names().items():
        assert set(names) <= rows[exceptions.status_error(status).__name__]


def test_the_names_of_the_reasoning_are_in_their_order() -> None:
    row = re.findall(r"^\| `reasoning` \|([^|]*)", PAGE, re.MULTILINE)[0]
    assert tuple(re.findall(r"`(\w+)`", row))[: len(reasoning_names())] == reasoning_names()


def test_the_headers_with_limits_are_read() -> None:
    headers = re.findall(r"`((?:x|anthropic)-ratelimit-[\w-]+)`", PAGE)
    assert len(headers) >= 12
    assert [name for name in headers if read_rate_limit({name: "5"}) is None] == []


def test_its_links_to_its_own_sections_lead_somewhere() -> None:
    headings = {
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-")
        for title in re.findall(r"^#+ (.*)", PAGE, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([\w-]+)\)", PAGE)) <= headings


@pytest.mark.parametrize("call", CALLS)
def test_its_provider_works(
    call: str,
    llm_provider: ScriptedProvider,
    configure: Callable[..., LLMPool],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    secret: str,
) -> None:
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "ours.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    message = {"role": "assistant", "content": "Hi"}
    llm_provider.body({"thoughts": "Be brief.", "choices": [{"message": message, "finish_reason": "stop"}]})
    settings = llm_provider.settings(PROVIDER="ours.Ours", API_KEY=secret)
    completion = ask(call, configure(llm_provider, **settings), "Hello?")
    assert (completion.text, completion.reasoning) == ("Hi", "Be brief.")
    [request] = llm_provider.requests
    assert request.headers["x-token"] == secret
    assert "authorization" not in request.headers
