"""``llm_pool.types``: every public type can be imported from there, and is documented."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import llm_pool
from llm_pool import types
from llm_pool.calling import record
from tests.fixtures.scripts import run_script

PACKAGE = Path(types.__file__).parent
ALIASES = {"EmbeddingInput", "Messages"}  # a union has no docstring, only a line in the module's


def test_the_names_are_sorted_and_each_is_there_once() -> None:
    assert types.__all__ == sorted(set(types.__all__))


def test_the_module_exports_exactly_what_it_imports() -> None:
    imported = {name for name in vars(types) if not name.startswith("_")} - {"annotations"}
    assert imported == set(types.__all__)


@pytest.mark.parametrize("name", [name for name in types.__all__ if name not in ALIASES])
def test_each_type_has_a_docstring_of_its_own(name: str) -> None:
    found = getattr(types, name)
    assert isinstance(found, type)
    own = vars(found)["__doc__"]
    assert own
    assert not own.startswith(f"{name}(")  # the default of dataclasses and named tuples


def test_the_module_describes_each_type() -> None:
    assert types.__doc__ is not None
    assert sorted(re.findall(r"^``(\w+)``  +\w", types.__doc__, re.MULTILINE)) == types.__all__


def test_the_package_itself_does_not_need_the_module() -> None:
    importing = re.compile(r"llm_pool\.types import|from llm_pool import .*\btypes\b")
    users = [file for file in PACKAGE.rglob("*.py") if importing.search(file.read_text(encoding="utf-8"))]
    assert not users


def test_types_and_observers_can_be_imported_before_the_settings() -> None:
    program = """
import sys, llm_pool
assert "llm_pool.calling.record" not in sys.modules
from llm_pool import observe, types, unobserve
observe(print)
unobserve(print)
"""
    assert run_script(program) == ""


def test_the_package_exports_the_functions_for_observers() -> None:
    assert llm_pool.observe is record.observe
    assert llm_pool.unobserve is record.unobserve
