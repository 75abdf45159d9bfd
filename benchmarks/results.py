"""What was measured, round by round, as it is written to JSON and read from there."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Measured", "Results"]

Round = dict[str, float]
"""By name: ``cpu`` (seconds per call or event), ``rate`` (per second), ``p50`` and ``p99`` (seconds),
``memory`` (bytes), ``wall`` (seconds), ``bytes`` (per stream), ``per_cpu_second``."""


@dataclass
class Measured:
    """One workload. ``not_run`` says why nothing of it was measured, ``skipped`` why a contestant was not."""

    name: str
    rounds: dict[str, list[Round]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    not_run: str = ""

    def add(self, contestant: str, found: Round) -> None:
        """A round of a contestant."""
        self.rounds.setdefault(contestant, []).append(found)

    def skip(self, contestant: str, reason: str) -> None:
        """Measure it no further, and forget what there is: ratios are those within a round."""
        self.rounds.pop(contestant, None)
        self.skipped[contestant] = reason

    def values(self, contestant: str, metric: str) -> list[float]:
        """One of its measures, by round; none where it was not measured."""
        return [found[metric] for found in self.rounds.get(contestant, []) if metric in found]


@dataclass
class Results:
    """A run: where, when, and all its workloads."""

    date: str
    seconds: float
    machine: dict[str, str]
    versions: dict[str, str]
    measured: dict[str, Measured] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> Results:
        """What ``as_json`` gave."""
        measured = {name: Measured(**each) for name, each in plain["measured"].items()}
        return cls(**{**plain, "measured": measured})
