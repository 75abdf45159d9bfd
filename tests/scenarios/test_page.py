"""docs/scenarios.md lists the tests of each scenario."""

from __future__ import annotations

import re

from tests.scenarios.page import PAGE, render, scenarios_of_tests


def test_the_page_lists_the_tests_of_each_scenario():
    """Update the lists by ``python -m tests.scenarios.page``."""
    page = PAGE.read_text(encoding="utf-8")
    assert page == render(page, scenarios_of_tests())


def test_each_scenario_of_the_page_has_a_test_and_no_test_names_another():
    listed = {
        int(number) for number in re.findall(r"^\*\*(\d+)\.\*\* ", PAGE.read_text("utf-8"), re.MULTILINE)
    }
    assert listed == set(scenarios_of_tests())


def test_a_list_that_has_changed_is_written_again():
    page = "# Page\n\n**14.** While queued.\n\n- [tests/old.py](../tests/old.py): all\n\n**15.** Later.\n"
    tests = {14: {"tests/test_a.py": ["test_x", "test_y"]}, 15: {"tests/test_b.py": ["all"]}}
    written = render(page, tests)
    assert written == (
        "# Page\n\n**14.** While queued.\n\n- [tests/test_a.py](../tests/test_a.py): `test_x`, `test_y`\n\n"
        "**15.** Later.\n\n- [tests/test_b.py](../tests/test_b.py): all\n"
    )
    assert render(written, tests) == written
