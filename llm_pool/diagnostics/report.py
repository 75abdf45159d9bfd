"""The report of a check, as plain values. ``cleaned`` removes API keys from a step of the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any
from urllib.parse import quote

from llm_pool.redaction import redact

__all__ = ["CheckReport", "Finding", "Level", "Step", "Verdict", "cleaned", "sentence", "worst"]


class Level(StrEnum):
    """The severity of a finding, the lowest first.

    ``SKIPPED``  the step was not reached, or is not needed
    ``OK``       the step works
    ``NOTE``     the step works; the finding is for information only
    ``WARNING``  calls work, but something needs attention
    ``ERROR``    calls fail
    """

    SKIPPED = "skipped"
    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


class Verdict(StrEnum):
    """The result of a check, for one pool or for all.

    ``HEALTHY``   calls work
    ``WARNINGS``  calls work, but something needs attention
    ``BROKEN``    calls fail
    """

    HEALTHY = "healthy"
    WARNINGS = "warnings"
    BROKEN = "broken"

    @property
    def exit_status(self) -> int:
        """The exit status of ``llmpool_check``: 0 for HEALTHY, 1 for WARNINGS, 2 for BROKEN.

        The option ``--fail-on`` can change 1 and 2 to 0.
        """
        return list(Verdict).index(self)


_ORDER = list(Level)
_VERDICTS = {Level.WARNING: Verdict.WARNINGS, Level.ERROR: Verdict.BROKEN}


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of a step.

    ``code``    the kind of the finding, such as "tls.expired"; ``docs/operations.md`` lists all codes
    ``level``   the severity
    ``text``    what was found
    ``advice``  what to do; "" if there is nothing to do
    """

    code: str
    level: Level
    text: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a check.

    ``name``      "dns", "tcp", "tunnel", "tls", "authentication", "reuse", "http2", "rate_limits", "live" or
                  "settings"
    ``findings``  what was found, at least one
    ``seconds``   how long the step took; None if it was not timed
    ``facts``     measured values, for programs; ``docs/llmpool_check.schema.json`` describes them
    """

    name: str
    findings: tuple[Finding, ...]
    seconds: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def level(self) -> Level:
        """The highest level among the findings of the step."""
        return max((finding.level for finding in self.findings), key=_ORDER.index)


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The report on one pool.

    ``pool``      the pool's name in ``LLM_POOL``
    ``provider``  the provider's name
    ``base_url``  the URL of the API
    ``engine``    "native", "httpcore" or "aiohttp"
    ``seconds``   how long the check took
    ``steps``     all steps in order, including those that were not reached
    """

    pool: str
    provider: str
    base_url: str
    engine: str
    seconds: float
    steps: tuple[Step, ...]

    @property
    def verdict(self) -> Verdict:
        """BROKEN if a step has an error, otherwise WARNINGS if a step has a warning, otherwise HEALTHY."""
        return _VERDICTS.get(max((step.level for step in self.steps), key=_ORDER.index), Verdict.HEALTHY)

    def step(self, name: str) -> Step:
        """Return the step ``name``. Raises KeyError if the report has no such step."""
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(name)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as a dict for JSON. ``docs/llmpool_check.schema.json`` describes it."""
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
    """Return the worst of the verdicts; HEALTHY if there are no verdicts."""
    return max(verdicts, key=lambda verdict: verdict.exit_status, default=Verdict.HEALTHY)


def sentence(error: Exception) -> str:
    """Return the message of ``error``, with a full stop at its end."""
    return f"{str(error).rstrip('.')}."


def cleaned(step: Step, secrets: Iterable[str]) -> Step:
    """Return a copy of ``step`` with "***" in place of each of the ``secrets``, plain or percent-encoded.

    Replaces unprintable characters with U+FFFD, because a terminal interprets control characters. Rounds the
    numbers in ``Step.facts`` to six decimal places.
    """
    forms = [form for secret in secrets if secret for form in {secret, quote(secret, safe="")}]
    findings = tuple(
        replace(finding, text=_clean(finding.text, forms), advice=_clean(finding.advice, forms))
        for finding in step.findings
    )
    return replace(step, findings=findings, facts=_clean(dict(step.facts), forms))


def _clean(value: Any, secrets: list[str]) -> Any:
    return _printable(redact(value, secrets))


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
