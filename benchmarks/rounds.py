"""Rounds of a workload: each contestant in its turn, each in a fresh process, so that a drift hits all."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import link, startup, view
from benchmarks.child import Failed, work
from benchmarks.clients import Target
from benchmarks.install import why_missing
from benchmarks.results import Measured
from benchmarks.upstreams.nginx import nginx
from benchmarks.upstreams.streaming import streaming
from benchmarks.workloads import ROUND_TRIP, Contestant, Workload
from testbed.programs import ProgramMissing

__all__ = ["run", "run_round"]

Progress = Callable[[str], None]


def run(
    workloads: Sequence[Workload], seconds: float, scale: float, progress: Progress
) -> dict[str, Measured]:
    """The first round of all workloads, then the second of all, and so on, each as often as it wants.

    A round that would not end within so many seconds in all is left out. ``scale`` is for all durations.
    """
    began = time.monotonic()
    measured = {workload.name: Measured(workload.name) for workload in workloads}
    lasted = dict.fromkeys(measured, 0.0)
    for number in range(max(workload.rounds for workload in workloads)):
        for workload in workloads:
            found, start = measured[workload.name], time.monotonic()
            if number >= workload.rounds or found.not_run:
                continue
            if start - began + lasted[workload.name] > seconds:
                found.not_run = "" if found.rounds else f"{seconds / 60:g} minutes were over"
                continue
            run_round(workload, number, found, scale, progress)
            lasted[workload.name] = time.monotonic() - start
    return measured


def run_round(workload: Workload, number: int, measured: Measured, scale: float, progress: Progress) -> None:
    """One round: the contestants have their turns in one order, in the next round in the other."""
    with contextlib.ExitStack() as running:
        directory = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        try:
            target = running.enter_context(_upstream(workload, directory))
        except (ProgramMissing, link.LinkImpossible) as error:
            measured.not_run = str(error)
            return
        for contestant in workload.contestants[:: -1 if number % 2 else 1]:
            if contestant.label not in measured.skipped:
                progress(f"Round {number + 1}: {workload.title}: {contestant.label}")
                _turn(workload, contestant, target, scale, measured)


def _turn(
    workload: Workload, contestant: Contestant, target: Target, scale: float, measured: Measured
) -> None:
    try:
        found = _found(workload, contestant, target, scale)
    except Failed as error:
        measured.skip(contestant.label, f"failed: {error}")
        return
    if "missing" in found:
        measured.skip(contestant.label, why_missing(found["missing"]))
    else:
        measured.add(contestant.label, found)


def _found(workload: Workload, contestant: Contestant, target: Target, scale: float) -> dict[str, Any]:
    parameters = {**workload.parameters, **contestant.parameters}
    if "seconds" in parameters:
        parameters["seconds"] *= scale
    if workload.work == "startup":
        return startup.measure(contestant.client)
    if workload.work == "view":
        with tempfile.TemporaryDirectory(prefix="bench-") as directory:
            return view.measure(contestant.client, target, Path(directory), parameters["seconds"])
    task = {"client": contestant.client, "work": workload.work, "loop": workload.loop}
    return work({**task, "target": asdict(target), "parameters": parameters})


@contextlib.contextmanager
def _upstream(workload: Workload, directory: Path) -> Iterator[Target]:
    match workload.upstream:
        case "http" | "tls":
            with nginx(directory, tls=workload.upstream == "tls") as target:
                yield target
        case "events":
            with streaming(
                directory, interval=0.02, streams=workload.parameters["concurrency"], events=750
            ) as target:
                yield target
        case "silence":
            with streaming(directory, interval=3600, streams=1_000_000, events=1) as target:
                yield target
        case "far":
            with (
                link.link(ROUND_TRIP) as far,
                nginx(directory, tls=True, host=far.host, inside=far.inside) as target,
            ):
                yield target
        case "none":
            yield Target("")
