"""System checks of ``settings.LLM_POOL``.

==============  ==============================================================
llm_pool.E001   LLM_POOL, or a pool in it, is no dict, or has no proper name
llm_pool.E002   an unknown key
llm_pool.E003   a value of the wrong type
llm_pool.E004   a value that cannot be
llm_pool.E005   no API key where the server will want one (only with ``check --deploy``)
llm_pool.E006   a file of TLS certificates that is not there
llm_pool.W001   certificates are not verified
llm_pool.W002   no API key where the server will want one, so that calls will fail
                (no error by itself: builds and CI runs often have none)
llm_pool.W003   the API key travels unencrypted to another machine
==============  ==============================================================
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.core import checks

from llm_pool.conf import PoolSettings, is_loopback, survey

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["check_deployment", "check_settings", "register_checks"]


def register_checks() -> None:
    """Called once, from ``AppConfig.ready``."""
    checks.register(check_settings, "llm_pool")
    checks.register(check_deployment, "llm_pool", checks.Tags.security, deploy=True)


def check_settings(**_: Any) -> list[checks.CheckMessage]:
    """What is wrong, all of it, and what is doubtful."""
    pools, problems = survey()
    messages: list[checks.CheckMessage] = [
        checks.Error(problem.message, hint=problem.hint, id=f"llm_pool.{problem.id}") for problem in problems
    ]
    broken = {problem.alias for problem in problems}
    for pool in pools.values():
        if pool.alias not in broken:
            messages += _doubts(pool)
    return messages


def check_deployment(**_: Any) -> list[checks.CheckMessage]:
    """What no deployment can do without."""
    pools, problems = survey()
    broken = {problem.alias for problem in problems}
    return [
        checks.Error(pool.missing_key, hint=pool.how_to_give_key, id="llm_pool.E005")
        for pool in pools.values()
        if pool.needs_key and pool.alias not in broken
    ]


def _doubts(pool: PoolSettings) -> Iterator[checks.CheckMessage]:
    place = f"LLM_POOL[{pool.alias!r}]"
    tls = pool.pool.tls
    if not tls.verify:
        yield checks.Warning(
            f"{place}['TLS']['verify'] is False: anyone on the way can read the API key and the answers.",
            hint="Leave it out, and name your own authority's certificate as ca_file.",
            id="llm_pool.W001",
        )
    if pool.needs_key:
        yield checks.Warning(pool.missing_key, hint=pool.how_to_give_key, id="llm_pool.W002")
    elsewhere = pool.pool.uds is None and not is_loopback(pool.base_url)
    if pool.api_key is not None and elsewhere and pool.base_url.startswith("http://"):
        yield checks.Warning(
            f"{place} sends its API key unencrypted to {pool.base_url}.",
            hint='Give a BASE_URL that begins with https://, or "API_KEY": "" where the server wants none.',
            id="llm_pool.W003",
        )
    certificate = tls.client_cert if isinstance(tls.client_cert, tuple) else (tls.client_cert,)
    for path in (tls.ca_file, *certificate[:2]):
        if path is not None and not Path(path).is_file():
            yield checks.Error(
                f"{place}['TLS'] names the file {path!r}, which is not there.",
                hint="Give the path of a PEM file that this process can read.",
                id="llm_pool.E006",
            )
