"""Lists the tests of each scenario in docs/scenarios.md: ``python -m tests.scenarios.page`` writes the lists.

A test belongs to a scenario if its docstring, or its file's, names it: "Scenario 14", "Scenarios 14 to 16".
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

__all__ = ["PAGE", "render", "scenarios_of_tests"]

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/scenarios.md"

Tests = dict[int, dict[str, list[str]]]
"""Scenario, then file, then names of tests; ["all"] if the file's own docstring names the scenario."""

_NAMED = re.compile(r"Scenarios? (\d+(?:(?:, and | and |, | to )\d+)*)")
_SCENARIO = re.compile(r"^\*\*(\d+)\.\*\* .*$")
_TEST_LINE = re.compile(r"^- \[tests/")


def scenarios_of_tests() -> Tests:
    """Find the tests of each scenario in all test files."""
    found: Tests = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        place = path.relative_to(ROOT).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for number in _numbers(ast.get_docstring(tree)):
            found.setdefault(number, {})[place] = ["all"]
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_"):
                for number in _numbers(ast.get_docstring(node)):
                    tests = found.setdefault(number, {}).setdefault(place, [])
                    if tests != ["all"]:
                        tests.append(node.name)
    return found


def render(page: str, tests: Tests) -> str:
    """Return the page with the current list of tests under each scenario."""
    lines: list[str] = []
    for line in page.splitlines():
        if _TEST_LINE.match(line):
            continue
        if lines and not line and not lines[-1]:
            continue  # the blank line after a list that was removed
        lines.append(line)
        if scenario := _SCENARIO.match(line):
            lines += ["", *_list(tests.get(int(scenario[1]), {})), ""]
    return "\n".join(lines).rstrip() + "\n"


def _list(tests: dict[str, list[str]]) -> list[str]:
    return [f"- [{place}](../{place}): {_names(names)}" for place, names in sorted(tests.items())]


def _names(names: list[str]) -> str:
    return "all" if names == ["all"] else ", ".join(f"`{name}`" for name in names)


def _numbers(docstring: str | None) -> set[int]:
    numbers: set[int] = set()
    for named in _NAMED.findall(docstring or ""):
        for part in re.split(r", and | and |, ", named):
            first, _, last = part.partition(" to ")
            numbers |= set(range(int(first), int(last or first) + 1))
    return numbers


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8"), scenarios_of_tests()), encoding="utf-8")
