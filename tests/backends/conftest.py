"""Every test of this folder runs on every engine, over each protocol that the engine supports."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from django.test import override_settings

from llm_pool import pools
from tests.backends.servers import answer, over_http1, over_http2
from tests.fixtures.loops import each_loop, server_loop

__all__ = ["HTTP1", "HTTP2", "KINDS", "each_loop", "server_loop"]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llm_pool.calling.pool import LLMPool
    from testbed import Script, ScriptedServer
    from tests.backends.servers import Behaviour

KINDS: dict[str, dict[str, Any]] = {
    "native-http1": {"ENGINE": "native", "HTTP2": False},
    "native-http2": {"ENGINE": "native", "HTTP2": "prior-knowledge"},
    "httpcore-http1": {"ENGINE": "httpcore", "HTTP2": False},
    "httpcore-http2": {"ENGINE": "httpcore", "HTTP2": "prior-knowledge"},
    "aiohttp": {"ENGINE": "aiohttp"},
}
HTTP1 = [kind for kind in KINDS if not kind.endswith("http2")]
HTTP2 = [kind for kind in KINDS if kind.endswith("http2")]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize ``kind``: every key of ``KINDS``, or those that the mark ``kinds`` lists."""
    if "kind" in metafunc.fixturenames:
        mark = metafunc.definition.get_closest_marker("kinds")
        metafunc.parametrize("kind", mark.args[0] if mark else list(KINDS))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "kinds(names): the engines and protocols that a test runs on")


@pytest.fixture
def play(kind: str) -> Callable[[Behaviour], Script]:
    """``play(behaviour)``: the script of a server that uses the protocol of ``kind``."""
    return over_http2 if kind.endswith("http2") else over_http1


@pytest.fixture
def server(serve: Callable[..., ScriptedServer], play: Callable[[Behaviour], Script]) -> ScriptedServer:
    """A server that answers every request."""
    return serve(play(answer))


@pytest.fixture
def configure(kind: str) -> Iterator[Callable[..., LLMPool]]:
    """``configure(server, LIMITS={...})`` returns ``pools["default"]`` on the engine of ``kind``.

    ``streams`` is the number of calls that an HTTP/2 connection carries at a time.
    """
    with contextlib.ExitStack() as changed:

        def change(server: Any, *, streams: int = 1, **settings: Any) -> LLMPool:
            url = server if isinstance(server, str) else server.url
            default = {"BASE_URL": f"{url}/v1", "API_KEY": "sk-test", "MODEL": "test-model", "PROXY": ""}
            default |= {**KINDS[kind], **settings}
            if kind != "aiohttp":
                limits = {"max_streams_per_connection": streams}
                default["LIMITS"] = {**limits, **settings.get("LIMITS", {})}
            changed.enter_context(override_settings(LLM_POOL={"default": default}))
            return pools["default"]

        yield change
