"""What a checkup has found, as plain values. No text in a report holds the key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any
from urllib.parse import quote

from llm_pool.redaction import redact

__all__ = ["CheckReport", "Finding", "Level", "Step", "Verdict", "cleaned", "sentence", "worst"]


class Level(StrEnum):
    """How much a finding matters: a note is worth knowing, a warning will cost, an error breaks calls."""

    SKIPPED = "skipped"
    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


class Verdict(StrEnum):
    """A pool, or all of them, in a word."""

    HEALTHY = "healthy"
    WARNINGS = "warnings"
    BROKEN = "broken"

    @property
    def exit_status(self) -> int:
        """0, 1 or 2."""
        return list(Verdict).index(self)


_ORDER = list(Level)
_VERDICTS = {Level.WARNING: Verdict.WARNINGS, Level.ERROR: Verdict.BROKEN}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found. ``code`` names its kind for programs: "tls.expired"; ``advice`` is what to do."""

    code: str
    level: Level
    text: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what was found, how long it took (None where nothing was timed), and the bare facts."""

    name: str
    findings: tuple[Finding, ...]
    seconds: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def level(self) -> Level:
        """That of the gravest finding."""
        return max((finding.level for finding in self.findings), key=_ORDER.index)


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a checkup found of one pool. ``seconds`` is how long it took."""

    pool: str
    provider: str
    base_url: str
    engine: str
    seconds: float
    steps: tuple[Step, ...]

    @property
    def verdict(self) -> Verdict:
        """Broken: calls fail. Warnings: they work, and something will cost."""
        return _VERDICTS.get(max((step.level for step in self.steps), key=_ORDER.index), Verdict.HEALTHY)

    def step(self, name: str) -> Step:
        """The step of that name. Raises KeyError."""
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(name)

    def as_dict(self) -> dict[str, Any]:
        """For JSON, as ``docs/llmpool_check.schema.json`` says."""
        return {
            "pool": self.pool,
            "provider": self.provider,
            "base_url": self.base_url,
            "engine": self.engine,
            "verdict": self.verdict.value,
            "seconds": round(self.seconds, 6),
            "steps": [_step_as_dict(step) for step in self.steps],
        }


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The gravest; healthy where there are none."""
    return max(verdicts, key=lambda verdict: verdict.exit_status, default=Verdict.HEALTHY)


def sentence(error: Exception) -> str:
    """What an error says, with a full stop."""
    return f"{str(error).rstrip('.')}."


def cleaned(step: Step, secrets: Iterable[str]) -> Step:
    """The step with stars for every secret, and with nothing in it that a terminal would obey."""
    hidden = [form for secret in secrets if secret for form in {secret, quote(secret, safe="")}]
    findings = tuple(
        replace(finding, text=_clean(finding.text, hidden), advice=_clean(finding.advice, hidden))
        for finding in step.findings
    )
    return replace(step, findings=findings, facts=_clean(dict(step.facts), hidden))


def _clean(value: Any, hidden: list[str]) -> Any:
    return _printable(redact(value, hidden))


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in value)
    if isinstance(value, dict):
        return {_printable(key): _printable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_printable(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value


def _step_as_dict(step: Step) -> dict[str, Any]:
    return {
        "name": step.name,
        "level": step.level.value,
        "seconds": None if step.seconds is None else round(step.seconds, 6),
        "findings": [asdict(finding) for finding in step.findings],
        "facts": dict(step.facts),
    }
