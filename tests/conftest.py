"""Fixtures for all tests, and the checks for leaks after each test."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import os
import threading
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from testbed import Script, ScriptedServer, programs
from testbed.chat import chat_completion
from testbed.dns import FakeDNS
from testbed.echoes import echo
from testbed.nameserver import NameServer
from testbed.provider import ScriptedProvider
from testbed.proxy import Proxy
from testbed.socks import SocksProxy
from testbed.tls import Certificates
from tests.fixtures.leaks import Holdings, assert_balanced, assert_balanced_and_no_tasks, live_pools
from tests.fixtures.pools import configure, pool_to, secret, serve_first, upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from llm_pool.engine.pool import Pool

__all__ = ["configure", "pool_to", "secret", "serve_first", "upstream"]

T = TypeVar("T")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "forks: forks or execs; its sockets and threads are not compared")


# After each test.


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """After the test and its other fixtures, close all pools; no socket or thread may be left."""
    before = Holdings.now()
    yield
    for pool in live_pools():
        pool.close()
    if request.node.get_closest_marker("forks") is None:
        before.assert_no_more_than_these()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Check the pools at the end of the test, before its servers stop, which would hide leaks."""
    if isinstance(item, pytest.Function) and item.get_closest_marker("asyncio"):
        plain = item.obj
        if inspect.iscoroutinefunction(plain):
            item.obj = _checked(plain)
        try:
            yield
        finally:
            item.obj = plain
    else:
        yield
    assert_balanced()


def _checked(test: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap an async test: after it, on its loop, check its tasks and the pools, and close the pools."""

    @functools.wraps(test)
    async def checked(*args: Any, **kwargs: Any) -> None:
        before = asyncio.all_tasks()
        try:
            await test(*args, **kwargs)
            await assert_balanced_and_no_tasks(before)
        finally:
            for pool in live_pools():
                await pool.aclose()

    return checked


# Servers.


@pytest.fixture
def serve() -> Iterator[Callable[..., ScriptedServer]]:
    """``serve(script, tls=..., host=...)``: a running ScriptedServer, stopped after the test."""
    with contextlib.ExitStack() as running:

        def start(script: Script, **options: Any) -> ScriptedServer:
            return running.enter_context(ScriptedServer(script, **options))

        yield start


@pytest.fixture
def serve_proxy() -> Iterator[Callable[..., Proxy]]:
    """``serve_proxy(credentials=..., refuse=..., stall=...)``: a running Proxy, stopped after the test."""
    with contextlib.ExitStack() as running:

        def start(**options: Any) -> Proxy:
            return running.enter_context(Proxy(**options))

        yield start


@pytest.fixture
def serve_socks() -> Iterator[Callable[..., SocksProxy]]:
    """``serve_socks(credentials=..., reply=...)``: a running SocksProxy, stopped after the test."""
    with contextlib.ExitStack() as running:

        def start(**options: Any) -> SocksProxy:
            return running.enter_context(SocksProxy(**options))

        yield start


@pytest.fixture
def chat_server(serve: Callable[..., ScriptedServer]) -> ScriptedServer:
    """A server that answers every request with the chat completion "Hello!"."""
    return serve(chat_completion("Hello!"))


@pytest.fixture
def llm_provider() -> Iterator[ScriptedProvider]:
    """A provider of models: ``llm_provider.reply("Hello")`` scripts its next answer."""
    with ScriptedProvider() as provider:
        yield provider


@pytest.fixture
def fake_dns() -> Iterator[FakeDNS]:
    """A name service without names: ``fake_dns.names["llm.test"] = "127.0.0.1"`` adds one."""
    with FakeDNS() as dns:
        yield dns


@pytest.fixture
def name_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    """Like ``fake_dns``, but on a socket: the only name server that aiodns queries."""
    import aiodns  # noqa: PLC0415
    import pycares  # noqa: PLC0415

    make = aiodns.DNSResolver

    def resolver() -> aiodns.DNSResolver:
        server.threads.append(threading.current_thread())
        # Without the search domains of /etc/resolv.conf.
        return make([server.address], flags=pycares.ARES_FLAG_NOSEARCH, timeout=server.timeout)

    with NameServer() as server:
        monkeypatch.setattr(aiodns, "DNSResolver", resolver)
        yield server


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """The certificate authority of the tests, and valid and invalid certificates."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def ca_file(certificates: Certificates) -> str:
    """Path of the PEM file of the tests' certificate authority."""
    return certificates.ca_file


# Programs.


@pytest.fixture
def start_nginx(tmp_path: Path) -> Iterator[Callable[..., programs.Nginx]]:
    """``start_nginx(size=..., certificate=...)``; skips without nginx, but fails in CI."""
    yield from _starter(programs.nginx, tmp_path / "nginx")


@pytest.fixture
def start_nginx_proxy(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """``start_nginx_proxy(backend_port, read_timeout=1, silent_port=...)``; skips like ``start_nginx``."""
    yield from _starter(programs.nginx_proxy, tmp_path / "nginx-proxy")


@pytest.fixture
def start_nghttpd(tmp_path: Path) -> Iterator[Callable[..., programs.Nghttpd]]:
    """``start_nghttpd(certificate=...)``; skips without nghttpd, but fails in CI."""
    yield from _starter(programs.nghttpd, tmp_path / "nghttpd")


@pytest.fixture
def start_haproxy(tmp_path: Path) -> Iterator[Callable[..., programs.Haproxy]]:
    """``start_haproxy(backend_port, certificate=...)``; skips without haproxy, but fails in CI."""
    yield from _starter(programs.haproxy, tmp_path / "haproxy")


@pytest.fixture
def start_echo(tmp_path: Path, certificates: Certificates) -> Iterator[Callable[[str], int]]:
    """``start_echo("node")``: the port of a server of ECHOES; skips without its program, but fails in CI."""
    files = certificates.good_files
    yield from _starter(lambda directory, name: echo(directory, name, files), tmp_path / "echo")


def _starter(
    program: Callable[..., contextlib.AbstractContextManager[T]], directory: Path
) -> Iterator[Callable[..., T]]:
    with contextlib.ExitStack() as running:

        def start(*args: Any, **options: Any) -> T:
            try:
                return running.enter_context(program(directory, *args, **options))
            except programs.ProgramMissing as missing:
                if os.environ.get("CI"):
                    pytest.fail(f"{missing}, and CI must have it")
                pytest.skip(str(missing))

        yield start


# The engine.


@pytest.fixture
def engine_pool() -> Iterator[Callable[..., Pool]]:
    """``engine_pool(max_connections=2, read=0.5, tls=TLS(...))``: an engine Pool, closed after the test.

    Every field of Limits, Timeouts, DNS and PoolConfig may be given by its name.
    """
    from llm_pool.engine.config import DNS, Limits, PoolConfig, Timeouts  # noqa: PLC0415
    from llm_pool.engine.pool import Pool  # noqa: PLC0415

    made: list[Pool] = []

    def make(name: str = "test", **options: Any) -> Pool:
        config: dict[str, Any] = {"proxy": ""}  # not the environment's proxy
        for part, kind in {"limits": Limits, "timeouts": Timeouts, "dns": DNS}.items():
            own = {field.name for field in fields(kind)} & options.keys()
            if own:
                config[part] = kind(**{key: options.pop(key) for key in own})
        made.append(Pool(PoolConfig(**{**config, **options}), name=name))
        return made[-1]

    yield make
    for pool in made:
        pool.close()
