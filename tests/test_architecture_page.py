"""docs/architecture.md agrees with the import contract and the code."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
NOT_OURS = {
    "with lock:",
    "complete",
    "asyncio.run",
    "async_to_sync",
    "os.register_at_fork",
    "ENGINE",
    "API_KEY",
}


def test_its_floors_are_those_of_the_import_contract() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    [floors] = [c for c in project["tool"]["importlinter"]["contracts"] if c["id"] == "floors"]
    contract = [set(re.findall(r"\w+", layer)) for layer in floors["layers"]]
    picture = PAGE.partition("```\n")[2].partition("```")[0]
    page = [set(re.findall(r"\b[a-z]\w*", line)) for line in picture.splitlines()]
    assert page == contract


def test_the_names_that_it_gives_are_in_the_code() -> None:
    sources = [*ROOT.glob("llm_pool/**/*.py"), ROOT / "pyproject.toml"]
    words = set(re.findall(r"\w+", "\n".join(path.read_text(encoding="utf-8") for path in sources)))
    prose = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
    names = {name for name in re.findall(r"`([\w.]+)(?:\(\))?`", prose) if "/" not in name}
    names = {name for name in names if not name.endswith((".py", ".md", ".toml", ".html", ".js"))}
    missing = [name for name in names - NOT_OURS if not set(name.split(".")) <= words]
    assert missing == []


def test_the_files_that_it_names_exist() -> None:
    paths = set(re.findall(r"`((?:[\w]+/)+[\w.]*|\w+\.py)`", PAGE))
    places = [ROOT, ROOT / "llm_pool", *[path for path in (ROOT / "llm_pool").rglob("*") if path.is_dir()]]
    missing = [path for path in paths if not any((place / path).exists() for place in places)]
    assert missing == []
