"""``manage.py llmpool_check``: what stands between this machine and each pool's provider."""

from __future__ import annotations

import argparse
import json
import math
from typing import Any

from asgiref.sync import async_to_sync
from django.core.management.base import BaseCommand, CommandError, CommandParser

from llm_pool.conf import PoolSettings, Problem, load_with_problems
from llm_pool.diagnostics import CheckReport, Sizing, Verdict, run_checks
from llm_pool.diagnostics.report import worst
from llm_pool.management.presentation import Printer, progress

__all__ = ["Command"]

SCHEMA_VERSION = 1
MOST_CALLS = 1000
FAILS = {
    "warning": (Verdict.WARNINGS, Verdict.BROKEN),
    "error": (Verdict.BROKEN,),
    "never": (),
}


class Command(BaseCommand):
    help = (
        "Try everything between this machine and the provider of each pool, step by step, and say what to "
        "do. Exit status: 0 healthy, 1 warnings, 2 broken."
    )
    requires_system_checks: list[str] = []  # noqa: RUF012  what they would find is told here

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--pool",
            action="append",
            metavar="ALIAS",
            help="only this pool; may be given again (default: all)",
        )
        parser.add_argument(
            "--timeout",
            type=_above_zero,
            default=10.0,
            metavar="SECONDS",
            help="the longest that a step may take (default: 10); the pool's own timeouts hold too",
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
            help="what one process has to carry, in calls per second and seconds for each: is there room?",
        )
        parser.add_argument("--format", choices=["text", "json"], default="text", help="default: text")
        parser.add_argument(
            "--fail-on",
            choices=list(FAILS),
            default="warning",
            help="the mildest thing that makes the exit status other than 0 (default: warning)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        wanted: list[str] | None = options["pool"]
        pools, problems = load_with_problems()
        chosen = self._chosen(pools, wanted)
        problems = [problem for problem in problems if not wanted or problem.alias in wanted]
        broken = {problem.alias for problem in problems}
        show = None if options["format"] == "json" else Printer(self.stdout, color=_color(options))
        reports = []
        for pool in chosen:
            if pool.alias not in broken:
                reports.append(_check(pool, options))
                if show is not None:
                    show.report(reports[-1])
        verdict = worst([report.verdict for report in reports] + [Verdict.BROKEN] * bool(problems))
        if show is None:
            self.stdout.write(json.dumps(_document(verdict, reports, problems), indent=2))
        elif problems:
            show.problems(problems)
        if verdict in FAILS[options["fail_on"]]:
            raise SystemExit(verdict.exit_status)

    def _chosen(self, pools: dict[str, PoolSettings], wanted: list[str] | None) -> list[PoolSettings]:
        for alias in wanted or ():
            if alias not in pools:
                known = ", ".join(map(repr, pools)) or "none"
                raise CommandError(f"LLM_POOL names no pool {alias!r}; it has {known}.", returncode=2)
        return [pool for alias, pool in pools.items() if not wanted or alias in wanted]


def _check(pool: PoolSettings, options: dict[str, Any]) -> CheckReport:
    load = Sizing(*options["load"]) if options["load"] else None
    timeout, live = options["timeout"], options["live"]
    try:
        with progress(pool.alias) as announce:
            return async_to_sync(run_checks)(pool, timeout=timeout, live=live, load=load, announce=announce)
    except KeyboardInterrupt:
        raise SystemExit(130) from None  # as a shell has it; where it was interrupted tells nobody anything


def _document(verdict: Verdict, reports: list[CheckReport], problems: list[Problem]) -> dict[str, Any]:
    """What ``docs/llmpool_check.schema.json`` describes."""
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
    """What the user said about colours, None for nothing."""
    return True if options.get("force_color") else False if options.get("no_color") else None


def _above_zero(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError("give a number above 0")
    return value


def _count(text: str) -> int:
    value = int(text)
    if not 0 < value <= MOST_CALLS:
        raise argparse.ArgumentTypeError(f"give a number of calls from 1 to {MOST_CALLS}")
    return value
