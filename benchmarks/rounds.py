"""Run the workloads in rounds. Each round measures every contestant once, in a fresh process.

So a slow phase of the machine affects all contestants equally.
"""

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
from benchmarks.machine import cpu_so_far, load_by_others
from benchmarks.results import Measured
from benchmarks.upstreams.nginx import nginx
from benchmarks.upstreams.streaming import streaming
from benchmarks.workloads import ROUND_TRIP, Contestant, Workload
from testbed.programs import ProgramMissing

__all__ = ["run", "run_round"]

VIEWS = {"view": view.measure, "streaming view": view.measure_stream}
"""What measures a view, by the work of the workload."""

MANY = 750  # events of a stream: more than are measured

Progress = Callable[[str], None]
"""Called with a line of text before each measurement."""


def run(
    workloads: Sequence[Workload], seconds: float, scale: float, progress: Progress
) -> dict[str, Measured]:
    """Run the first round of all workloads, then the second of all, and so on.

    A workload takes part in as many rounds as its ``rounds`` says. A round is left out if it would end
    more than ``seconds`` after the start; it is expected to take as long as the workload's last round.
    ``scale`` multiplies the durations of the measurements.
    """
    began = time.monotonic()
    measured = {workload.name: Measured(workload.name) for workload in workloads}
    last_duration = dict.fromkeys(measured, 0.0)
    for number in range(max(workload.rounds for workload in workloads)):
        for workload in workloads:
            found, start = measured[workload.name], time.monotonic()
            if number >= workload.rounds or found.not_run:
                continue
            if start - began + last_duration[workload.name] > seconds:
                found.not_run = "" if found.rounds else f"the limit of {seconds / 60:g} minutes was reached"
                continue
            cpu = cpu_so_far()
            run_round(workload, number, found, scale, progress)
            seconds_taken = last_duration[workload.name] = time.monotonic() - start
            found.loads.append(load_by_others((cpu_so_far() - cpu) / seconds_taken))
    return measured


def run_round(workload: Workload, number: int, measured: Measured, scale: float, progress: Progress) -> None:
    """Run one round of a workload and add it to ``measured``; every second round runs in reverse order."""
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
                _measure(workload, contestant, target, scale, measured)


def _measure(
    workload: Workload, contestant: Contestant, target: Target, scale: float, measured: Measured
) -> None:
    try:
        found = _run_contestant(workload, contestant, target, scale)
    except (Failed, RuntimeError) as error:  # RuntimeError with the whole log: a view's server did not start
        measured.skip(contestant.label, f"failed: {str(error).splitlines()[-1]}")
        return
    if "missing" in found:
        measured.skip(contestant.label, why_missing(found["missing"]))
    else:
        measured.add(contestant.label, found)


def _run_contestant(
    workload: Workload, contestant: Contestant, target: Target, scale: float
) -> dict[str, Any]:
    parameters = {**workload.parameters, **contestant.parameters}
    if "seconds" in parameters:
        parameters["seconds"] *= scale
    if workload.work == "startup":
        return startup.measure(contestant.client, contestant.checkout)
    if measure_view := VIEWS.get(workload.work):
        with tempfile.TemporaryDirectory(prefix="bench-") as directory:
            return measure_view(
                contestant.client, target, Path(directory), checkout=contestant.checkout, **parameters
            )
    task = {"client": contestant.client, "work": workload.work, "loop": workload.loop}
    return work({**task, "target": asdict(target), "parameters": parameters}, contestant.checkout)


@contextlib.contextmanager
def _upstream(workload: Workload, directory: Path) -> Iterator[Target]:
    match workload.upstream:
        case "http" | "tls":
            with nginx(directory, tls=workload.upstream == "tls") as target:
                yield target
        case "events":
            with streaming(
                directory, interval=0.02, streams=workload.parameters["concurrency"], events=MANY
            ) as target:
                yield target
        case "tokens":
            pace, streams = workload.parameters["interval"], workload.parameters["concurrency"]
            with streaming(directory, interval=pace, streams=streams, events=MANY) as target:
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
