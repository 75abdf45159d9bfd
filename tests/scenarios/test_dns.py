"""Names are looked up once for concurrent callers, cached for a TTL, and never on an event loop."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from functools import partial

import pytest

from llm_pool.engine.config import DNS
from llm_pool.engine.dialer.resolver import MAX_NAMES, Resolver
from llm_pool.exceptions import ConnectFailed, ConnectTimeout, DNSFailed, PoolClosed
from testbed import Gate
from testbed.behaviours import close, json_reply, steps
from testbed.ports import unanswering_port
from tests.fixtures.engine import request_to, until_pool
from tests.fixtures.internals import names_of, resolver_of

one_answer = steps(json_reply(headers={"Connection": "close"}), close)


@pytest.fixture(params=["system", "aiodns"])
def way(request):
    """The resolver below the cache; aiodns asks only the tests' name server."""
    if request.param == "aiodns":
        request.getfixturevalue("name_server")
    return request.param


@pytest.fixture
def dns(way, request):
    """A FakeDNS or a NameServer, without names."""
    return request.getfixturevalue({"system": "fake_dns", "aiodns": "name_server"}[way])


@pytest.fixture
def make_resolver(way):
    return lambda **options: Resolver(DNS(resolver=way, **options))


@pytest.fixture
def engine_pool(engine_pool, way):
    return partial(engine_pool, resolver=way)


only_system = pytest.mark.parametrize("way", ["system"], indirect=True)


async def test_a_hundred_lookups_at_once_ask_once(make_resolver, dns):
    """Scenario 47: 100 lookups at once are one query."""
    dns.names["llm.test"] = "127.0.0.1"
    dns.gate = Gate()
    resolver = make_resolver()
    askers = [asyncio.create_task(resolver.resolve("llm.test", 80)) for _ in range(100)]
    await dns.gate.await_reached()
    dns.gate.open()
    assert {rows[0][4] for rows in await asyncio.gather(*askers)} == {("127.0.0.1", 80)}
    assert dns.queries == ["llm.test"]


async def test_both_loops_share_one_query(serve, engine_pool, dns, server_loop):
    """Scenario 47: lookups on the server loop and on the portal wait for the same query."""
    server = serve(json_reply())
    dns.names["llm.test"] = "127.0.0.1"
    dns.gate = Gate()
    pool = engine_pool()
    request = request_to(server, host="llm.test")
    here = asyncio.create_task(pool.fetch(request))
    there = asyncio.create_task(asyncio.to_thread(pool.fetch_sync, request))
    await until_pool(pool, lambda: pool.stats().dialing == 2)
    dns.gate.open()
    assert [(await here).status, (await there).status] == [200, 200]
    assert dns.queries == ["llm.test"]
    assert server.connections_accepted == 2


async def test_a_caller_cancelled_in_the_lookup_leaves_the_others_their_answer(make_resolver, dns):
    """Scenario 47 and 17: one lookup is cancelled; the others get the result of the same query."""
    dns.names["llm.test"] = "127.0.0.1"
    dns.gate = Gate()
    resolver = make_resolver()
    askers = [asyncio.create_task(resolver.resolve("llm.test", 80)) for _ in range(3)]
    await dns.gate.await_reached()
    askers[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await askers[0]
    dns.gate.open()
    assert [row[4] for rows in await asyncio.gather(*askers[1:]) for row in rows] == [("127.0.0.1", 80)] * 2
    assert dns.queries == ["llm.test"]


async def test_an_answer_without_waiting_callers_is_cached(make_resolver, dns):
    """Scenario 47: a query goes on after its caller is cancelled, and its result is used."""
    dns.names["llm.test"] = "127.0.0.1"
    dns.gate = Gate()
    resolver = make_resolver()
    asker = asyncio.create_task(resolver.resolve("llm.test", 80))
    await dns.gate.await_reached()
    asker.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asker
    next_asker = asyncio.create_task(resolver.resolve("llm.test", 80))
    dns.gate.open()
    assert (await next_asker)[0][4] == ("127.0.0.1", 80)
    assert dns.queries == ["llm.test"]


def test_a_query_may_outlive_the_loop_of_its_caller(make_resolver, dns, caplog):
    """Scenario 47: the loop is closed when the result comes."""
    dns.names["llm.test"] = "127.0.0.1"
    dns.gate = Gate()
    resolver = make_resolver()

    async def ask_briefly():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(resolver.resolve("llm.test", 80), 0.01)

    asyncio.run(ask_briefly())
    dns.gate.open()
    assert asyncio.run(resolver.resolve("llm.test", 80))[0][4] == ("127.0.0.1", 80)
    assert caplog.records == []


async def test_an_answer_is_kept_for_its_ttl(make_resolver, dns):
    """Scenario 47: the TTL is obeyed: no second query before it, one after it."""
    dns.names["llm.test"] = "127.0.0.1"
    lasting, brief = make_resolver(ttl=60), make_resolver(ttl=0.02)
    for resolver in (lasting, brief):
        await resolver.resolve("llm.test", 80)
    dns.names["llm.test"] = "127.0.0.2"
    await asyncio.sleep(0.03)  # longer than the short TTL
    assert (await lasting.resolve("llm.test", 80))[0][4] == ("127.0.0.1", 80)
    assert (await brief.resolve("llm.test", 80))[0][4] == ("127.0.0.2", 80)
    assert len(dns.queries) == 3


async def test_a_connect_that_is_refused_drops_the_entry(serve, engine_pool, dns):
    """Scenario 47: the dial after the failed one queries the name again: the host may have moved."""
    server = serve(one_answer)
    dns.names["llm.test"] = "127.0.0.2"  # nothing listens on this port there
    pool = engine_pool(ttl=60)
    request = request_to(server, host="llm.test")
    with pytest.raises(ConnectFailed, match=r"^no connection to http://llm.test:\d+: Connection refused$"):
        await pool.fetch(request)
    dns.names["llm.test"] = "127.0.0.1"
    assert (await pool.fetch(request)).status == 200
    assert (await pool.fetch(request)).status == 200  # on a new connection, by the cached result
    assert len(dns.queries) == 2
    assert server.connections_accepted == 2


async def test_a_connect_that_is_never_answered_drops_the_entry(serve, engine_pool, dns):
    """Scenario 47: a connect that ends at the connect timeout counts as failed too."""
    dns.names["llm.test"] = "127.0.0.2"
    pool = engine_pool(ttl=60)
    with unanswering_port("127.0.0.2") as port:
        server = serve(json_reply(), port=port)
        # Before the call: otherwise the timeout could end a slow lookup, and its result would come later.
        await resolver_of(pool).resolve("llm.test", port)
        with pytest.raises(ConnectTimeout, match=r"^no connection to http://llm.test:\d+ within 0.1 s$"):
            await pool.fetch(request_to(server, host="llm.test", connect=0.1))
    dns.names["llm.test"] = "127.0.0.1"
    assert (await pool.fetch(request_to(server, host="llm.test"))).status == 200
    assert len(dns.queries) == 2


async def test_a_failure_is_kept_for_the_negative_ttl(make_resolver, dns):
    """Scenario 47: failures are cached for ``negative_ttl``, and a failed connect does not drop them."""
    lasting, brief = make_resolver(negative_ttl=60), make_resolver(negative_ttl=0.02)
    for resolver in (lasting, brief):
        with pytest.raises(DNSFailed):
            await resolver.resolve("llm.test", 80)
    dns.names["llm.test"] = "127.0.0.1"
    await asyncio.sleep(0.03)  # longer than the short TTL
    lasting.forget("llm.test", 80)
    with pytest.raises(DNSFailed, match=r"^the name 'llm.test' has no address: Name or service not known$"):
        await lasting.resolve("llm.test", 80)
    assert await brief.resolve("llm.test", 80)
    assert len(dns.queries) == 3


async def test_connections_spread_over_the_addresses(serve, engine_pool, dns):
    """Scenario 47: addresses rotate, so that each dial tries the next address first."""
    first = serve(one_answer)
    second = serve(one_answer, host="127.0.0.2", port=first.port)
    dns.names["llm.test"] = ["127.0.0.1", "127.0.0.2"]
    pool = engine_pool()
    for _ in range(6):
        await pool.fetch(request_to(first, host="llm.test"))
    assert (first.connections_accepted, second.connections_accepted) == (3, 3)
    assert dns.queries == ["llm.test"]


@only_system  # aiodns has another order
async def test_rotation_keeps_the_order_of_the_families(make_resolver, dns):
    """Scenario 47: each family rotates by itself; the system decides which family comes first."""
    dns.names["llm.test"] = ["::1", "127.0.0.1", "127.0.0.2"]
    resolver = make_resolver()
    seen = [[row[4][0] for row in await resolver.resolve("llm.test", 80)] for _ in range(3)]
    assert seen == [
        ["::1", "127.0.0.1", "127.0.0.2"],
        ["::1", "127.0.0.2", "127.0.0.1"],
        ["::1", "127.0.0.1", "127.0.0.2"],
    ]


async def test_rotation_goes_on_when_the_entry_is_dropped(make_resolver, dns):
    """Scenario 47: an address that accepts and then fails is not the first again after the next query."""
    dns.names["llm.test"] = ["127.0.0.1", "127.0.0.2"]
    resolver = make_resolver()
    first = await resolver.resolve("llm.test", 80)
    resolver.forget("llm.test", 80)
    second = await resolver.resolve("llm.test", 80)
    assert len(dns.queries) == 2
    assert first[0] != second[0]


async def test_lookups_run_on_no_event_loop(serve, engine_pool, dns, server_loop):
    """Scenario 47: each lookup runs on its own thread, for both loops."""
    server = serve(json_reply())
    dns.names.update({"here.test": "127.0.0.1", "there.test": "127.0.0.1"})
    pool = engine_pool()
    await pool.fetch(request_to(server, host="here.test"))
    await asyncio.to_thread(pool.fetch_sync, request_to(server, host="there.test"))
    loops = {threading.current_thread().name, "llm_pool-portal"}
    assert len(dns.threads) == 2
    assert not loops & {thread.name for thread in dns.threads}


async def test_a_lookup_that_hangs_ends_at_the_connect_timeout_and_holds_up_no_other(serve, engine_pool, dns):
    """Scenario 47: the lookup of one name hangs; other names are looked up meanwhile."""
    server = serve(json_reply())
    dns.names.update({"slow.test": "127.0.0.1", "fast.test": "127.0.0.1"})
    dns.gate = Gate()
    pool = engine_pool()
    with pytest.raises(ConnectTimeout, match=r"no connection to http://slow.test:\d+ within 0.1 s"):
        await pool.fetch(request_to(server, host="slow.test", connect=0.1))
    fast = asyncio.create_task(pool.fetch(request_to(server, host="fast.test")))
    await dns.gate.await_reached(2)
    dns.gate.open()
    assert (await fast).status == 200


async def test_closing_the_pool_in_a_lookup_leaves_nothing(serve, engine_pool, dns):
    """Scenario 17: the dial is cancelled in DNS; its call fails, and no socket is opened."""
    server = serve(json_reply())
    dns.names["llm.test"] = "127.0.0.1"
    dns.gate = Gate()
    pool = engine_pool()
    call = asyncio.create_task(pool.fetch(request_to(server, host="llm.test")))
    await dns.gate.await_reached()
    await pool.aclose()
    with pytest.raises(PoolClosed, match="pool 'test' is closed"):
        await call
    dns.gate.open()
    assert server.connections_accepted == 0
    assert pool.stats().dialing == 0


HOSTS = {
    "a label that is too long": f"{'x' * 64}.test",
    "a name that is too long": ".".join(["x" * 60] * 6),
    "an empty label": "llm..test",
    "a leading dot": ".test",
    "nothing": "",
    "a letter outside ASCII": "bücher.test",
    "half a letter": "\ud800.test",
    "a NUL, where the system would end the name": "127.0.0.1\0.test",
    "a line break": "llm\r\n.test",
    "a space": "llm .test",
    "a zone that does not exist": "fe80::1%nowhere0",
    "a zone that is no number": "fe80::1%99999999999999999999",
    "a zone on IPv4": "127.0.0.1%lo",
    "nothing but a zone": "%lo",
}


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS.keys())
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_an_invalid_host_is_a_dns_failure(serve, engine_pool, scheme, host):
    """Scenario 47: never a bare UnicodeError, ValueError or OSError, and nothing is dialed."""
    server = serve(json_reply())
    request = request_to(server)
    request.origin = request.origin._replace(scheme=scheme, host=host)
    with pytest.raises(DNSFailed):
        await engine_pool().fetch(request)
    assert server.connections_accepted == 0


@pytest.mark.parametrize("port", [0, -1, 65536 + 80])
async def test_an_invalid_port_is_refused(serve, engine_pool, dns, port):
    """Scenario 47: ``getaddrinfo`` would use port 80 for 65616."""
    dns.names["llm.test"] = "127.0.0.1"
    request = request_to(serve(json_reply()))
    request.origin = request.origin._replace(host="llm.test", port=port)
    with pytest.raises(DNSFailed, match="is no port"):
        await engine_pool().fetch(request)
    assert dns.queries == []


@pytest.mark.parametrize("host", ["xn--bcher-kva.test", "llm.test.", "LLM.test", "_llm.test"])
async def test_names_go_to_the_resolver_as_they_are(serve, engine_pool, dns, way, host):
    """Scenario 47: IDNA names in ASCII form, and names with a final dot, which no DNS query contains."""
    server = serve(json_reply())
    asked = host.removesuffix(".") if way == "aiodns" else host
    dns.names[asked] = "127.0.0.1"
    assert (await engine_pool().fetch(request_to(server, host=host))).status == 200
    assert dns.queries == [asked]


async def test_an_ipv6_literal_needs_no_query(serve, engine_pool, dns):
    """Scenario 47: IP addresses are used as they are."""
    server = serve(json_reply(), host="::1")
    assert (await engine_pool().fetch(request_to(server))).status == 200
    assert dns.queries == []


async def test_an_ipv6_zone_is_the_interface(make_resolver):
    """Scenario 47: a link-local address can only be used with its zone."""
    index = socket.if_nametoindex("lo")
    assert (await make_resolver().resolve("fe80::1%lo", 80))[0][4] == ("fe80::1", 80, 0, index)
    assert (await make_resolver().resolve(f"fe80::1%{index}", 80))[0][4] == ("fe80::1", 80, 0, index)


@only_system
async def test_the_cache_is_bounded(make_resolver, dns):
    """Scenario 47: callers that look up ever new names do not fill the memory."""
    resolver = make_resolver()
    dns.names.update({f"{number}.test": "127.0.0.1" for number in range(MAX_NAMES + 1)})
    for name in dns.names:
        await resolver.resolve(name, 80)
    await resolver.resolve(f"{MAX_NAMES}.test", 80)
    assert len(dns.queries) == MAX_NAMES + 1
    assert len(names_of(resolver)) == MAX_NAMES


async def test_a_failed_lookup_is_the_last_dial_failure(engine_pool, dns, serve):
    """Scenario 47: each call gets its own error object."""
    pool = engine_pool()
    request = request_to(serve(json_reply()), host="nowhere.test")
    errors = await asyncio.gather(*[pool.fetch(request) for _ in range(3)], return_exceptions=True)
    assert {type(error) for error in errors} == {DNSFailed}
    assert len({id(error) for error in errors}) == 3
    assert "nowhere.test" in pool.stats().dial_failure


# Names of this machine (RFC 6761, section 6.3).


@pytest.mark.parametrize("host", ["localhost", "llm.localhost", "LLM.localhost"])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_names_below_localhost_need_no_resolver(serve, engine_pool, dns, host, address):
    """Scenario 47: the resolver has no answer, or only one of the two addresses."""
    dns.names["llm.localhost"] = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    server = serve(json_reply(), host=address)
    assert (await engine_pool().fetch(request_to(server, host=host))).status == 200


@only_system
async def test_a_name_below_localhost_can_lead_to_another_machine(make_resolver, dns):
    """Scenario 47: the resolver's answer counts, as with Docker's names of containers."""
    dns.names["llm.localhost"] = "192.0.2.1"
    assert [info[4] for info in await make_resolver().resolve("llm.localhost", 80)] == [("192.0.2.1", 80)]


@only_system
async def test_a_loopback_address_that_the_machine_lacks_is_not_tried(make_resolver, dns, monkeypatch):
    """Scenario 47: without IPv6 there is no ::1, and its error would hide that of 127.0.0.1."""
    bind = socket.socket.bind

    def bind_ipv4(sock, address):
        if sock.family == socket.AF_INET6:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        return bind(sock, address)

    monkeypatch.setattr(socket.socket, "bind", bind_ipv4)
    found = await make_resolver().resolve("llm.localhost.", 80)
    assert [info[4][0] for info in found] == ["127.0.0.1"]
