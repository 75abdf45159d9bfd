"""Rules of imports that import-linter cannot check: modules of Django and the standard library."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "llm_pool"
PURE = sorted(file.relative_to(PACKAGE).as_posix() for file in (PACKAGE / "engine" / "ledger").glob("*.py"))
IMPURE = {"asyncio", "concurrent", "select", "selectors", "socket", "ssl", "subprocess", "threading", "time"}
SETTINGS_READERS = PACKAGE / "conf"


def imports(file: Path) -> set[str]:
    """Every module that ``file`` imports, at any depth; ``from a import b`` counts as ``a`` and ``a.b``."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("name", PURE)
def test_the_ledger_imports_no_loop_no_thread_no_socket_and_no_clock(name: str) -> None:
    assert not {module for module in imports(PACKAGE / name) if module.partition(".")[0] in IMPURE}


def test_only_conf_reads_djangos_settings() -> None:
    readers = {
        file.relative_to(PACKAGE).as_posix()
        for file in PACKAGE.rglob("*.py")
        if SETTINGS_READERS not in file.parents
        and any(module == "django.conf" or module.startswith("django.conf.") for module in imports(file))
    }
    assert not readers
