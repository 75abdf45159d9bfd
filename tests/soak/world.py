"""The servers and pools of a soak, and the weather that they live in."""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from llm_pool.calling.pool import LLMPool
from llm_pool.conf import load
from llm_pool.engine.config import TLS, Limits, Origin, PoolConfig, Timeouts
from llm_pool.engine.pool import Pool
from testbed.tls import Certificates
from tests.fixtures.internals import open_connections_of
from tests.soak.calls import Place
from tests.soak.server import SoakServer, play_http11
from tests.soak.server_http2 import play_http2

if TYPE_CHECKING:
    from tests.soak.record import Record

__all__ = ["World"]

MOST = 8
"""Connections that each pool may have."""
LIMITS = Limits(
    max_connections=MOST,
    max_keepalive_connections=5,
    keepalive_expiry=0.5,
    max_lifetime=3.0,
    max_waiting=10,
    max_connections_per_host=4,
    max_streams_per_connection=4,
)
TIMEOUTS = Timeouts(connect=0.5, read=0.4, write=0.4, pool=0.5, total=3.0)


class World:
    """A context manager: everything runs inside."""

    def __init__(self, record: Record, seed: str) -> None:
        self.record, self._seed = record, seed
        self.servers: list[SoakServer] = []
        self.pools: list[Pool] = []
        self.places: list[Place] = []
        self._running = contextlib.ExitStack()
        self._over = threading.Event()
        self._weather = threading.Thread(target=self._change, name="soak weather", daemon=True)

    def __enter__(self) -> Self:
        directory = Path(self._running.enter_context(tempfile.TemporaryDirectory()))
        certificates = Certificates(directory)
        chat = self._serve(play_http11)
        chat2 = self._serve(play_http2, tls=_speaking_http2(certificates))
        several = [
            self._serve(play_http11),
            self._serve(play_http11),
            self._serve(play_http11, tls=certificates.good),
        ]
        self._service("chat", chat, certificates, min_connections=1)
        self._service("chat, HTTP/2", chat2, certificates)
        config = PoolConfig(LIMITS, TIMEOUTS, tls=TLS(ca_file=certificates.ca_file), proxy="")
        pool = self._add(Pool(config, "several"), several)
        origins = [
            Origin(server.scheme, host, server.port) for server, host in zip(several, HOSTS, strict=True)
        ]
        self.places.append(Place(pool, origins))
        self._weather.start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.servers:
            while server.errors:
                self.record.violation(f"a server broke down: {server.url}", server.errors.pop())
        self._running.close()

    def held(self) -> int:
        """The connections that pools hold, as the kernel knows at the servers' ends."""
        return sum(
            _is_held(connection) for server in self.servers for connection in open_connections_of(server)
        )

    def clear_up(self) -> None:
        """The weather ends: every server answers properly from now on."""
        self._over.set()
        self._weather.join()
        for server in self.servers:
            server.calm = True

    # Its parts.

    def _serve(self, play: Any, **options: Any) -> SoakServer:
        chance = random.Random(f"{self._seed}/server {len(self.servers)}")
        server = self._running.enter_context(SoakServer(play, self.record, chance, **options))
        self.servers.append(server)
        return server

    def _service(self, name: str, server: SoakServer, certificates: Certificates, **limits: int) -> None:
        of_limits = {**_fields(LIMITS), "max_connections_per_host": None, **limits}
        settings = {
            "BASE_URL": f"{server.url}/v1",
            "API_KEY": "key",
            "MODEL": "m",
            "PROXY": "",
            "LIMITS": of_limits,
            "TIMEOUTS": _fields(TIMEOUTS),
            "TLS": {"ca_file": certificates.ca_file},
        }
        service = LLMPool(load({"default": settings})["default"])
        service.engine.name = name
        engine = self._add(service.engine, [server])
        self.places.append(Place(engine, [Origin(server.scheme, server.host, server.port)], service))

    def _add(self, pool: Pool, servers: list[SoakServer]) -> Pool:
        def count() -> None:
            there = [connection for server in servers for connection in open_connections_of(server)]
            # All of them were there before the first was looked at: those still held were open together.
            self.record.peak(pool.name, sum(map(_is_held, there)), MOST)

        for server in servers:
            server.opened = count
        self.pools.append(pool)
        return pool

    # Weather.

    def _change(self) -> None:
        chance = random.Random(f"{self._seed}/weather")
        while not self._over.wait(chance.random()):
            try:
                chance.choice((self._drain, self._refuse, self._prewarm, self._look))(chance)
            except BaseException as error:  # noqa: BLE001 - it would be missed
                self.record.violation("the weather broke down", error)

    def _drain(self, chance: random.Random) -> None:
        pool = chance.choice(self.pools)
        self.record.event("drains")
        self.record.event("drains that ended in time" if pool.drain(0.5) else "drains that did not")

    def _refuse(self, chance: random.Random) -> None:
        server = chance.choice(self.servers)
        server.refuse()
        self.record.event("servers that refuse for a while")
        self._over.wait(chance.random() * 0.5)
        server.listen_again()

    def _prewarm(self, chance: random.Random) -> None:
        place = chance.choice(self.places)
        if place.service is not None:
            asyncio.run(place.service.aprewarm())
            self.record.event("prewarms")

    def _look(self, chance: random.Random) -> None:
        for pool in self.pools:
            stats = pool.stats()
            if stats.connections > MOST or min(stats.in_use, stats.idle, stats.dialing, stats.waiting) < 0:
                self.record.violation(f"the books of pool {pool.name!r} are impossible: {stats}")


HOSTS = ("127.0.0.1", "localhost", "127.0.0.1")


def _is_held(connection: Any) -> bool:
    try:
        return bool(connection.still_held)
    except OSError:  # closed while we looked, by its server's thread
        return False


def _speaking_http2(certificates: Certificates) -> Any:
    context = certificates.good
    second = Certificates.good.func(certificates)
    second.set_alpn_protocols(["h2"])
    assert second is not context
    return second


def _fields(values: Any) -> dict[str, Any]:
    return {name: getattr(values, name) for name in values.__slots__}
