"""The tests on each Python and Django that the project supports. A Python that is absent is skipped."""

from __future__ import annotations

import nox

nox.options.error_on_missing_interpreters = False
nox.options.reuse_existing_virtualenvs = True

PAIRS = [
    ("3.11", "5.2"),
    ("3.12", "5.2"),
    ("3.12", "6.0"),
    ("3.13", "6.0"),
    ("3.13", "6.1"),
    ("3.14", "6.1"),
    ("3.15", "6.1"),
]


@nox.session(venv_backend="venv")
@nox.parametrize(["python", "django"], PAIRS)
def tests(session: nox.Session, django: str) -> None:
    """Run pytest; what follows ``--`` goes to it, and may choose the tests."""
    # Django is pinned only below Python 3.12, where 5.2 is the newest there is.
    session.install(
        *("--constraint", "constraints.txt", "--editable", ".[demo,test]", f"Django~={django}.0"),
        env={"AUTOBAHN_USE_NVX": "0"},  # see the Makefile
        silent=True,
    )
    # The long histories of the ledger are the same on every Python: once is enough.
    session.run("pytest", *session.posargs, env={"LLM_POOL_EXAMPLES": "200"})
