"""The measures of a run, round by round; they can be written as JSON and read again."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Measured", "Results"]

Round = dict[str, float]
"""By name: ``cpu`` (seconds per call, event or token), ``rate`` (per second), ``p50`` and ``p99`` (seconds),
``memory`` (bytes), ``wall`` (seconds), ``behind`` (seconds), ``times`` (a ratio), ``bytes`` (per stream),
``per_cpu_second``, and the numbers ``functions``, ``python`` (functions) and ``dials``."""


@dataclass
class Measured:
    """The measures of one workload.

    ``name``     the workload's name
    ``rounds``   the rounds of each contestant, by label
    ``skipped``  the reason why a contestant was not measured, by label
    ``not_run``  the reason why nothing was measured; "" if something was
    ``loads``    the load of the machine by other processes, round by round
    """

    name: str
    rounds: dict[str, list[Round]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    not_run: str = ""
    loads: list[float] = field(default_factory=list)

    def add(self, contestant: str, found: Round) -> None:
        """Add a round of a contestant."""
        self.rounds.setdefault(contestant, []).append(found)

    def skip(self, contestant: str, reason: str) -> None:
        """Skip a contestant and drop its earlier rounds: a ratio needs every round of both contestants."""
        self.rounds.pop(contestant, None)
        self.skipped[contestant] = reason

    def values(self, contestant: str, metric: str) -> list[float]:
        """A contestant's measures of one metric, by round; [] if it was not measured."""
        return [found[metric] for found in self.rounds.get(contestant, []) if metric in found]


@dataclass
class Results:
    """A run.

    ``date``      of its end, in UTC: "2026-01-31"
    ``seconds``   its duration
    ``machine``   what ``facts.machine`` found
    ``versions``  of the libraries, by name
    ``measured``  the workloads, by name
    """

    date: str
    seconds: float
    machine: dict[str, str]
    versions: dict[str, str]
    measured: dict[str, Measured] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The run as dicts, lists, strings and numbers."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> Results:
        """Read the output of ``as_json``."""
        measured = {name: Measured(**each) for name, each in plain["measured"].items()}
        return cls(**{**plain, "measured": measured})
