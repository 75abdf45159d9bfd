"""``run_checks``: runs the steps of a check, and makes the report."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, replace

from django.core.exceptions import ImproperlyConfigured

from llm_pool.backends import make_pool
from llm_pool.conf.settings import PoolSettings
from llm_pool.diagnostics.dial import DialResult, dial
from llm_pool.diagnostics.machine import Server, file_limit, settings_step
from llm_pool.diagnostics.probes import Prober
from llm_pool.diagnostics.report import CheckReport, Finding, Level, Step, cleaned
from llm_pool.diagnostics.sizing import Sizing
from llm_pool.diagnostics.steps import connecting_steps, http2_step
from llm_pool.engine.clock import monotonic
from llm_pool.engine.config import Timeouts

__all__ = ["run_checks"]

Announce = Callable[[str], object]


async def run_checks(
    settings: PoolSettings,
    *,
    timeout: float,
    live: int = 0,
    load: Sizing | None = None,
    announce: Announce | None = None,
) -> CheckReport:
    """Check every step between this process and the provider of one pool, and return the report.

    Problems are findings of the report; none is raised. The check opens its own connections with the pool's
    settings, and uses none of the pool's connections.

    ``settings``  the settings of the pool
    ``timeout``   the longest timeout in seconds; used for each of the pool's timeouts that is longer or None
    ``live``      how many cheap calls (``GET /models``) to make at the same time; 0 for none
    ``load``      the load to compare the pool's size with; None for no such comparison
    ``announce``  is called with "connection", "authentication", "reuse" and "live" when that part begins
    """
    return await _CheckRun(settings, timeout, live, load, announce or (lambda _: None)).run()


class _CheckRun:
    """One check of one pool. The arguments are those of ``run_checks``."""

    def __init__(
        self, settings: PoolSettings, timeout: float, live: int, load: Sizing | None, announce: Announce
    ) -> None:
        self._settings = settings
        # No warning of high utilization: the check itself would cause it.
        timeouts = _bounded(settings.pool.timeouts, timeout)
        self._config = replace(settings.pool, timeouts=timeouts, warn_utilization=None)
        self._live = live
        self._announce = announce
        self._key: str | None = None
        self._load = load

    async def run(self) -> CheckReport:
        began = monotonic()
        settings = self._settings
        steps = await self._steps()
        secrets = settings.secrets(self._key)
        return CheckReport(
            pool=settings.alias,
            provider=settings.provider.name,
            base_url=settings.base_url,
            engine=settings.engine,
            seconds=monotonic() - began,
            steps=tuple(cleaned(step, secrets) for step in _in_order(steps, self._live)),
        )

    async def _steps(self) -> list[Step]:
        settings = self._settings
        origin = settings.origin
        self._announce("connection")
        dialed = await dial(self._config, origin)
        steps = connecting_steps(settings, origin, dialed)
        http2 = http2_step(settings, dialed)
        streams = settings.pool.limits.max_streams_per_connection if http2.facts["spoken"] else 1
        self._key, key_error = await _key(settings)
        if key_error is not None:
            steps.append(Step("authentication", (key_error,)))
        elif dialed.error is None:
            steps += await self._call_provider(dialed, streams)
        if dialed.error is None:
            steps.append(http2)
        server = Server.from_environment(os.environ)
        size = settings_step(settings, streams=streams, files=file_limit(), server=server, load=self._load)
        return [*steps, size]

    async def _call_provider(self, dialed: DialResult, streams: int) -> list[Step]:
        # Under another name, so that the metrics do not count these connections as the pool's.
        pool = make_pool(self._settings.engine, self._config, f"{self._settings.alias}/check")
        try:
            prober = Prober(self._settings, pool, self._key, self._announce)
            return await prober.steps(dialed.seconds, self._live, streams)
        finally:
            await pool.aclose()


async def _key(settings: PoolSettings) -> tuple[str | None, Finding | None]:
    """Return the API key and None, or None and the finding that explains why there is no key.

    Both are None if no API_KEY is set and none is needed.
    """
    try:
        return await settings.akey(), None
    except ImproperlyConfigured as error:
        text = str(error).removesuffix(settings.how_to_give_key).rstrip()
        return None, Finding("auth.no_key", Level.ERROR, text, settings.how_to_give_key)
    except Exception as error:  # noqa: BLE001  the user's function raised it; the message may contain the key
        text = f"The function given as API_KEY raised {type(error).__name__}."
        return None, Finding("auth.no_key", Level.ERROR, text, "Call it in manage.py shell to see why.")


def _bounded(timeouts: Timeouts, limit: float) -> Timeouts:
    def lower(value: float | None) -> float:
        return limit if value is None else min(value, limit)

    return Timeouts(**{name: lower(value) for name, value in asdict(timeouts).items()})


def _in_order(steps: list[Step], live: int) -> list[Step]:
    """Return ``steps`` in the order of a report. Missing steps are added, as "not reached".

    "tunnel" is not added if it is missing. "live" is in the report only if ``live``, the number of live
    calls, is above 0.
    """
    by_name = {step.name: step for step in steps}
    names = ["dns", "tcp", *(["tunnel"] if "tunnel" in by_name else []), "tls", "authentication", "reuse"]
    names += ["http2", "rate_limits", *(["live"] if live else []), "settings"]
    not_reached = {
        name: Step(name, (Finding(f"{name}.skipped", Level.SKIPPED, "not reached"),)) for name in names
    }
    return [by_name.get(name) or not_reached[name] for name in names]
