"""Rounds of a workload: each contestant in its turn, each in a fresh process, so that a drift hits all."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
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
from tests.servers.programs import ProgramMissing

__all__ = ["run"]

Progress = Callable[[str], None]


def run(workload: Workload, rounds: int, scale: float, progress: Progress) -> Measured:
    """All rounds of a workload; durations are multiplied by ``scale``."""
    measured = Measured(workload.name)
    with contextlib.ExitStack() as running:
        directory = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        try:
            target = running.enter_context(_upstream(workload, directory))
        except (ProgramMissing, link.LinkImpossible) as error:
            measured.not_run = str(error)
            return measured
        for number in range(rounds):
            order = workload.contestants if number % 2 == 0 else workload.contestants[::-1]
            for contestant in order:
                if contestant.label in measured.skipped:
                    continue
                progress(f"{workload.name}: round {number + 1} of {rounds}, {contestant.label}")
                _turn(workload, contestant, target, scale, measured)
    return measured


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
            with streaming(directory, interval=0.02, streams=100) as target:
                yield target
        case "silence":
            with streaming(directory, interval=3600, streams=1_000_000) as target:
                yield target
        case "far":
            with (
                link.link(ROUND_TRIP) as far,
                nginx(directory, tls=True, host=far.host, inside=far.inside) as target,
            ):
                yield target
        case "none":
            yield Target("")
