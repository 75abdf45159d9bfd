"""The steps that call the provider: authentication, reuse, rate limits, live calls."""

from __future__ import annotations

from collections.abc import Callable

from llm_pool.conf.request_builder import RequestBuilder
from llm_pool.conf.settings import PoolSettings
from llm_pool.diagnostics.answers import (
    SLOW_SECONDS,
    answer_finding,
    failure_finding,
    rate_limits,
    slow_answer,
    unlisted_model,
)
from llm_pool.diagnostics.live import live_step, make_live_calls
from llm_pool.diagnostics.report import Finding, Level, Step, sentence
from llm_pool.engine.clock import monotonic
from llm_pool.engine.pool import Pool
from llm_pool.engine.request import WholeResponse
from llm_pool.exceptions import LLMPoolError
from llm_pool.transports.redirects import afollow

__all__ = ["Prober"]


class Prober:
    """Sends a check's requests to the provider, and makes steps from the responses.

    ``settings``  the settings of the pool that is checked
    ``pool``      a pool that only the check uses
    ``key``       the API key; None to send none
    ``announce``  is called with "authentication", "reuse" and "live" when that step begins
    """

    def __init__(
        self, settings: PoolSettings, pool: Pool, key: str | None, announce: Callable[[str], object]
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._builder = RequestBuilder(settings)
        self._key = key
        self._announce = announce

    async def steps(self, dial_seconds: float, live: int, streams: int) -> list[Step]:
        """Send the requests, and return the steps "authentication", "reuse", "rate_limits" and "live".

        ``dial_seconds``  how long the dial of a new connection took
        ``live``          how many live calls to make at the same time; 0 for none, without the step "live"
        ``streams``       how many calls one connection carries at a time

        If the first request fails without a response, returns only "authentication". If "authentication" has
        an error, leaves out "live".
        """
        self._announce("authentication")
        began = monotonic()
        try:
            first = await self._get()
        except LLMPoolError as error:
            found = failure_finding(self._settings, error)
            return [Step("authentication", (found,), monotonic() - began)]
        steps = [self._authentication(first)]
        self._announce("reuse")
        steps += [await self._reuse(first, dial_seconds), rate_limits(first)]
        if live and steps[0].level is not Level.ERROR:
            self._announce("live")
            made = await make_live_calls(self._get, live, lambda: self._pool.stats().opened)
            steps.append(live_step(made, self._settings.pool.limits.max_connections * streams))
        return steps

    async def _get(self) -> WholeResponse:
        path, timeouts = self._settings.provider.models_path, self._pool.config.timeouts
        request = self._builder.get(path, self._key, timeouts)
        return await afollow(self._pool.fetch, request, await self._pool.fetch(request))

    def _authentication(self, first: WholeResponse) -> Step:
        seconds = first.marks.ended - first.marks.acquired
        findings = [answer_finding(self._settings, first, self._key)]
        if (unlisted := unlisted_model(self._settings, first.body)) is not None:
            findings.append(unlisted)
        if seconds >= SLOW_SECONDS:
            findings.append(slow_answer(seconds))
        return Step("authentication", tuple(findings), seconds, {"status": first.status})

    async def _reuse(self, first: WholeResponse, dial_seconds: float) -> Step:
        limits = self._settings.pool.limits
        saved = f"{dial_seconds * 1000:.1f} ms"
        try:
            second = await self._get()
        except LLMPoolError as error:
            return Step("reuse", (_not_reused(f"The second request failed: {sentence(error)}"),))
        seconds = second.marks.ended - second.marks.started
        facts = {
            "reused": second.marks.reused,
            "connections_opened": self._pool.stats().opened,
            "saved_seconds": dial_seconds if second.marks.reused else 0.0,
        }
        if second.marks.reused:
            text = f"the second request used the same connection, which saved {saved} of dialing"
            found = Finding("reuse.same_connection", Level.OK, text)
        elif limits.keepalive_expiry == 0 or limits.max_keepalive_connections == 0:
            found = Finding(
                "reuse.off",
                Level.WARNING,
                f"The settings keep no connection open: every call takes {saved} longer for a new one.",
                "Raise LIMITS['keepalive_expiry'] and LIMITS['max_keepalive_connections'] above 0.",
            )
        else:
            found = _not_reused(f"The second request needed a new connection, which took {saved}.")
        return Step("reuse", (found,), seconds, facts)


def _not_reused(text: str) -> Finding:
    advice = (
        "The server, or a proxy before it, closes after each answer: switch on keep-alive there, or check "
        "whether a gateway answers instead."
    )
    return Finding("reuse.closed", Level.WARNING, text, advice)
