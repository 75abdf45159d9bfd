"""The steps in their order."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace

from django.core.exceptions import ImproperlyConfigured

from llm_pool.backends import make_pool
from llm_pool.conf import PoolSettings
from llm_pool.diagnostics.dial import DialResult, dial
from llm_pool.diagnostics.machine import Server, file_limit, settings_step
from llm_pool.diagnostics.probes import Prober
from llm_pool.diagnostics.report import CheckReport, Finding, Level, Step, cleaned
from llm_pool.diagnostics.sizing import Sizing
from llm_pool.diagnostics.steps import connecting_steps, http2_step
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
    """Try everything between here and the provider of one pool. Raises nothing: the report tells.

    It opens connections of its own, with the settings of the pool and beside those that the pool has.
    No step takes longer than ``timeout`` seconds, nor than the pool's own timeouts. ``live`` cheap calls
    are made at once. ``load`` is what the pool has to carry, to hold its size against. ``announce`` is
    called with the name of each step that begins.
    """
    return await _Checkup(settings, timeout, live, load, announce or (lambda _: None)).run()


class _Checkup:
    """One run."""

    def __init__(
        self, settings: PoolSettings, timeout: float, live: int, load: Sizing | None, announce: Announce
    ) -> None:
        self._settings = settings
        # It is the check itself that uses up its connections: no reason to warn.
        timeouts = _bounded(settings.pool.timeouts, timeout)
        self._config = replace(settings.pool, timeouts=timeouts, warn_utilization=None)
        self._live = live
        self._announce = announce
        self._key: str | None = None
        self._load = load

    async def run(self) -> CheckReport:
        began = time.monotonic()
        settings = self._settings
        steps = await self._steps()
        secrets = settings.secrets(self._key)
        return CheckReport(
            pool=settings.alias,
            provider=settings.provider.name,
            base_url=settings.base_url,
            engine=settings.engine,
            seconds=time.monotonic() - began,
            steps=tuple(cleaned(step, secrets) for step in _complete(steps, self._live)),
        )

    async def _steps(self) -> list[Step]:
        settings = self._settings
        origin = settings.origin
        self._announce("connection")
        tried = await dial(self._config, origin)
        steps = connecting_steps(settings, origin, tried)
        http2 = http2_step(settings, tried)
        streams = settings.pool.limits.max_streams_per_connection if http2.facts["spoken"] else 1
        self._key, no_key = await _key(settings)
        if no_key is not None:
            steps.append(Step("authentication", (no_key,)))
        elif tried.error is None:
            steps += await self._call(tried, streams)
        if tried.error is None:
            steps.append(http2)
        server = Server.from_environment(os.environ)
        size = settings_step(settings, streams=streams, files=file_limit(), server=server, load=self._load)
        return [*steps, size]

    async def _call(self, tried: DialResult, streams: int) -> list[Step]:
        # Under a name of its own, so that in the metrics its connections are not taken for the pool's.
        pool = make_pool(self._settings.engine, self._config, f"{self._settings.alias}/check")
        try:
            prober = Prober(self._settings, pool, self._key, self._announce)
            return await prober.steps(tried.seconds, self._live, streams)
        finally:
            await pool.aclose()


async def _key(settings: PoolSettings) -> tuple[str | None, Finding | None]:
    """The key, or what is wrong with it."""
    try:
        return await settings.akey(), None
    except ImproperlyConfigured as error:
        text = str(error).removesuffix(settings.how_to_give_key).rstrip()
        return None, Finding("auth.no_key", Level.ERROR, text, settings.how_to_give_key)
    except Exception as error:  # noqa: BLE001  it is the user's own function, and may say the key
        text = f"The function given as API_KEY raised {type(error).__name__}."
        return None, Finding("auth.no_key", Level.ERROR, text, "Call it in manage.py shell to see why.")


def _bounded(timeouts: Timeouts, most: float) -> Timeouts:
    def lower(value: float | None) -> float:
        return most if value is None else min(value, most)

    return Timeouts(
        connect=lower(timeouts.connect),
        read=lower(timeouts.read),
        write=lower(timeouts.write),
        pool=lower(timeouts.pool),
        total=lower(timeouts.total),
    )


def _complete(steps: list[Step], live: int) -> list[Step]:
    """In the order of a report; those that nothing came of are there as not reached."""
    by_name = {step.name: step for step in steps}
    names = ["dns", "tcp", *(["tunnel"] if "tunnel" in by_name else []), "tls", "authentication", "reuse"]
    names += ["http2", "rate_limits", *(["live"] if live else []), "settings"]
    not_reached = {
        name: Step(name, (Finding(f"{name}.skipped", Level.SKIPPED, "not reached"),)) for name in names
    }
    return [by_name.get(name) or not_reached[name] for name in names]
