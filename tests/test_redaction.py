"""Keys are replaced, and control characters escaped, in either order."""

from __future__ import annotations

import json

import pytest

from llm_pool.redaction import printable, redact

ESCAPED = {
    "\x1b[31mred": "\\u001b[31mred",
    "one\r\ntwo": "one\\u000d\\u000atwo",
    "nul \0, tab \t, delete \x7f": "nul \\u0000, tab \\u0009, delete \\u007f",
    "C1 \x9b2J": "C1 \\u009b2J",
    "lines\u2028and\u2029paragraphs": "lines\\u2028and\\u2029paragraphs",
    "right to left \u202e and back \u2069": "right to left \\u202e and back \\u2069",
    "half a pair \ud83d": "half a pair \\ud83d",
}
LEFT_ALONE = [
    "",
    "Plain.",
    "C:\\u001b is no escape",
    "é 拒否 \N{ROCKET}\N{NO-BREAK SPACE}\N{ZERO WIDTH JOINER}",
]


@pytest.mark.parametrize("text", ESCAPED)
def test_control_characters_are_escaped_once(text: str) -> None:
    assert printable(text) == ESCAPED[text]
    assert printable(ESCAPED[text]) == ESCAPED[text]


@pytest.mark.parametrize("text", LEFT_ALONE)
def test_all_other_characters_stay(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize("key", ["KEY\t2", '"KEY"', "KEY\\u001b", "KEY\\", "KEY +/=&%41<b>", "\\u0073KEY"])
@pytest.mark.parametrize("times", [0, 1, 2, 3])
def test_a_key_is_hidden_before_and_after_the_escape(key: str, times: int) -> None:
    text = f"no \x1b[0m{key}\n, sorry"
    for _ in range(times):
        text = json.dumps(text)
    for hidden in (printable(redact(text, [key])), redact(printable(text), [key])):
        assert "***" in hidden
        assert "KEY" not in hidden
