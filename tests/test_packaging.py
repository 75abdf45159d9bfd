"""The content of the source distribution."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_source_distribution_has_all_that_its_tests_use():
    """The packages that they import, and the pages that they read."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packed = set(project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"])
    packages = {f"/{init.parent.name}" for init in ROOT.glob("*/__init__.py")}
    assert packages == {"/benchmarks", "/demo_project", "/llm_pool", "/testbed", "/tests"}
    assert packages | {"/docs"} <= packed
