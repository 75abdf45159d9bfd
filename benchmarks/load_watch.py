"""Read the demo's numbers: those of its status page, those of ``/metrics``, and its upstream's counts."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

__all__ = ["Look", "Watch", "difference"]

LOOK_SECONDS = 0.5  # between two looks
ARRIVAL_SECONDS = 2.0  # for all users to begin
SETTLE_SECONDS = 10.0  # for the numbers to agree after the last call
FROM_PAGE = (
    "requests",
    "opened",
    "reused",
    "pool_timeouts",
    "refused",
    "in_use",
    "waiting",
    "max_connections",
)
FROM_METRICS = {
    "requests": "llm_pool_requests_total",
    "opened": "llm_pool_connections_opened_total",
    "reused": "llm_pool_reused_total",
    "pool_timeouts": "llm_pool_timeouts_total",
    "refused": "llm_pool_refused_total",
    "in_use": "http_client_open_connections",
    "waiting": "llm_pool_waiting",
    "waited": "llm_pool_wait_seconds_sum",
}


@dataclass
class Look:
    """The numbers of one moment, by name; those of several pools are added up.

    ``page``     from the status page
    ``metrics``  from ``/metrics``
    ``counted``  from the upstream
    """

    page: Counter[str]
    metrics: Counter[str]
    counted: Counter[str]


class Watch:
    """Reads the numbers of the demo at ``url``."""

    def __init__(self, url: str) -> None:
        self._browser = httpx.AsyncClient(base_url=url, timeout=30.0, trust_env=False, follow_redirects=True)

    async def __aenter__(self) -> Watch:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._browser.aclose()

    async def look(self) -> Look:
        """Read all three sources now. Raises httpx.HTTPError."""
        page, metrics, counted = await asyncio.gather(
            self._get("/llm-pool/data/"), self._get("/metrics"), self._get("/counts/")
        )
        return Look(_of_page(page.json()), _of_metrics(metrics.text), Counter(counted.json()["pool"]))

    async def watch(self, seconds: float) -> list[Look]:
        """Look every half second, at least once, after the users have had time to begin."""
        looks: list[Look] = []
        ends_at = time.monotonic() + seconds
        await asyncio.sleep(min(ARRIVAL_SECONDS, seconds / 2))
        while not looks or time.monotonic() < ends_at:
            due = time.monotonic() + LOOK_SECONDS
            looks.append(await self.look())
            await asyncio.sleep(max(0.0, min(due, ends_at) - time.monotonic()))
        return looks

    async def settled(self) -> Look:
        """Wait until no call runs and page and metrics agree; return the numbers. Raises TimeoutError."""
        async with asyncio.timeout(SETTLE_SECONDS):
            while True:
                look = await self.look()
                page = look.page["requests"], look.page["reused"], look.page["opened"]
                metrics = look.metrics["requests"], look.metrics["reused"], look.metrics["opened"]
                if page == metrics and not look.page["in_use"] and not look.metrics["in_use"]:
                    return look
                await asyncio.sleep(LOOK_SECONDS)

    async def _get(self, path: str) -> httpx.Response:
        response = await self._browser.get(path)
        return response.raise_for_status()


def difference(after: Counter[str], before: Counter[str]) -> dict[str, float]:
    """The growth of each number."""
    return {name: after[name] - before[name] for name in after}


def _of_page(shown: dict[str, Any]) -> Counter[str]:
    total: Counter[str] = Counter()
    for pool in shown["pools"]:
        total.update({name: pool["now"][name] for name in FROM_PAGE})
    return total


def _of_metrics(text: str) -> Counter[str]:
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    total: Counter[str] = Counter()
    for name, metric in FROM_METRICS.items():
        chosen = (each for each in samples if each.name == metric)
        if metric == "http_client_open_connections":
            chosen = (each for each in chosen if each.labels["http_connection_state"] == "active")
        total[name] = sum(each.value for each in chosen)
    return total
