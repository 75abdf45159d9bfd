"""``manage.py llmpool_check``: checks every step between this machine and the provider of each pool."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
from typing import Any

from asgiref.sync import async_to_sync
from django.core.management.base import BaseCommand, CommandError, CommandParser

from llm_pool.conf.reader import Problem
from llm_pool.conf.settings import PoolSettings, load_with_problems
from llm_pool.diagnostics import CheckReport, Sizing, Verdict, run_checks
from llm_pool.diagnostics.report import worst
from llm_pool.management.presentation import Printer, progress

__all__ = ["Command"]

SCHEMA_VERSION = 1
MAX_CALLS = 1000
FAILS = {
    "warning": (Verdict.WARNINGS, Verdict.BROKEN),
    "error": (Verdict.BROKEN,),
    "never": (),
}


class Command(BaseCommand):
    help = (
        "Check each step between this machine and the provider of each pool, and show what to "
        "do. Exit status: 0 healthy, 1 warnings, 2 broken."
    )
    requires_system_checks: list[str] = []  # noqa: RUF012  the command itself reports invalid settings

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--pool",
            action="append",
            metavar="ALIAS",
            help="only this pool; may be repeated (default: all)",
        )
        parser.add_argument(
            "--timeout",
            type=_above_zero,
            default=10.0,
            metavar="SECONDS",
            help="the longest that a step may take (default: 10); the pool's own timeouts apply too",
        )
        parser.add_argument(
            "--live",
            type=_count,
            default=0,
            metavar="N",
            help="make N cheap calls at once, and show percentiles",
        )
        parser.add_argument(
            "--load",
            nargs=2,
            type=_above_zero,
            metavar=("RATE", "SECONDS"),
            help="the load on one process, in calls per second and seconds for each: is there room?",
        )
        parser.add_argument("--format", choices=["text", "json"], default="text", help="default: text")
        parser.add_argument(
            "--fail-on",
            choices=list(FAILS),
            default="warning",
            help="the lowest level that makes the exit status other than 0 (default: warning)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        aliases: list[str] | None = options["pool"]
        pools, problems = load_with_problems()
        selected = self._select(pools, aliases)
        problems = [problem for problem in problems if not aliases or problem.alias in aliases]
        invalid = {problem.alias for problem in problems}
        printer = None if options["format"] == "json" else Printer(self.stdout, color=_color(options))
        reports = []
        for pool in selected:
            if pool.alias not in invalid:
                reports.append(_check(pool, options))
                if printer is not None:
                    printer.report(reports[-1])
        verdict = worst([report.verdict for report in reports] + [Verdict.BROKEN] * bool(problems))
        if printer is None:
            self.stdout.write(json.dumps(_document(verdict, reports, problems), indent=2))
        elif problems:
            printer.problems(problems)
        if verdict in FAILS[options["fail_on"]]:
            raise SystemExit(verdict.exit_status)

    def _select(self, pools: dict[str, PoolSettings], aliases: list[str] | None) -> list[PoolSettings]:
        for alias in aliases or ():
            if alias not in pools:
                known = ", ".join(map(repr, pools)) or "none"
                raise CommandError(f"LLM_POOL names no pool {alias!r}; it has {known}.", returncode=2)
        return [pool for alias, pool in pools.items() if not aliases or alias in aliases]


def _check(pool: PoolSettings, options: dict[str, Any]) -> CheckReport:
    load = Sizing(*options["load"]) if options["load"] else None
    timeout, live = options["timeout"], options["live"]
    try:
        with progress(pool.alias) as announce:
            return async_to_sync(run_checks)(pool, timeout=timeout, live=live, load=load, announce=announce)
    except KeyboardInterrupt:
        raise SystemExit(130) from None  # the exit status of interrupted programs; a traceback would not help


def _document(verdict: Verdict, reports: list[CheckReport], problems: list[Problem]) -> dict[str, Any]:
    """Return the output of ``--format json`` as a dict; ``docs/llmpool_check.schema.json`` describes it."""
    return {
        "schema": SCHEMA_VERSION,
        "verdict": verdict.value,
        "settings_problems": [
            {"id": f"llm_pool.{each.id}", "pool": each.alias, "text": each.message, "advice": each.hint}
            for each in problems
        ],
        "pools": [report.as_dict() for report in reports],
    }


def _color(options: dict[str, Any]) -> bool | None:
    """Return True for ``--force-color``, False for ``--no-color``, and None without these options."""
    return True if options.get("force_color") else False if options.get("no_color") else None


def _above_zero(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (value := float(text)) < math.inf:
            return value
    raise argparse.ArgumentTypeError(f"{text!r}: give a number above 0")


def _count(text: str) -> int:
    if text.isdecimal() and 0 < (value := int(text)) <= MAX_CALLS:
        return value
    raise argparse.ArgumentTypeError(f"{text!r}: give a number of calls from 1 to {MAX_CALLS}")
