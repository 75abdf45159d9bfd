"""Certificates, keys and trust stores that change on disk, or cannot be read for a moment."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import ssl
import threading
from pathlib import Path

import pytest
import trustme
from OpenSSL import crypto

from llm_pool.engine.config import TLS
from llm_pool.engine.loops import threads
from llm_pool.exceptions import TLSFailed
from testbed.behaviours import close, json_reply, steps
from testbed.tls import NAMES, server_context
from tests.fixtures.callers import until
from tests.fixtures.engine import request_to
from tests.fixtures.internals import tls_of

respond_once_and_close = steps(json_reply(headers={"Connection": "close"}), close)


class ClientFiles:
    """The files of a client certificate. ``replace`` writes a new pair."""

    def __init__(self, certificates, directory):
        self.certificates, self.directory = certificates, directory
        self.certificate, self.key = certificates.new_client_cert()
        self.paths = (str(directory / "client.pem"), str(directory / "client.key"))

    def renew(self):
        self.certificate, self.key = self.certificates.new_client_cert()

    def write(self, directory=None):
        directory = directory or self.directory
        (directory / "client.pem").write_bytes(self.certificate)
        (directory / "client.key").write_bytes(self.key)

    def spoil(self, how):
        """Make the certificate "half written", "without its key" or "missing"."""
        path = self.directory / "client.pem"
        if how == "missing":
            path.unlink()
        else:
            path.write_bytes(self.certificate[: 100 if how == "half written" else None])


def write_in_place(files, number):
    files.write()


def replace_by_rename(files, number):
    new = files.directory / f"new-{number}"
    new.mkdir()
    files.write(new)
    for name in ("client.pem", "client.key"):
        (new / name).replace(files.directory / name)


def swap_the_symlink(files, number):
    """As Kubernetes replaces a secret: ``client.pem`` leads to ``..data``, which leads to a directory."""
    version = files.directory / f"..version-{number}"
    version.mkdir()
    files.write(version)
    link = files.directory / "..data_tmp"
    link.symlink_to(version.name)
    link.replace(files.directory / "..data")
    for name in ("client.pem", "client.key"):
        path = files.directory / name
        if not path.is_symlink():
            path.symlink_to(f"..data/{name}")


@pytest.fixture
def files(certificates, tmp_path):
    made = ClientFiles(certificates, tmp_path)
    made.write()
    return made


@pytest.fixture
def server(serve, certificates):
    """A server that requires a client certificate, and closes after each response."""
    return serve(respond_once_and_close, tls=certificates.requires_client_cert)


def shown_to(server):
    """The client certificate that the server got on its last connection."""
    return tls_of(server.connections[-1]).getpeercert(binary_form=True)


def as_der(pem):
    return ssl.PEM_cert_to_DER_cert(pem.decode())


@pytest.mark.parametrize("change", [write_in_place, replace_by_rename, swap_the_symlink])
async def test_a_new_client_certificate_is_used_by_new_connections(
    server, engine_pool, certificates, tmp_path, change, each_loop
):
    """Scenario 60: written in place, renamed, or by a symlink that is swapped."""
    files = ClientFiles(certificates, tmp_path)
    change(files, 0)
    pool = engine_pool(tls=TLS(ca_file=certificates.ca_file, client_cert=files.paths))
    for number in range(1, 4):
        assert (await pool.fetch(request_to(server))).status == 200
        assert shown_to(server) == as_der(files.certificate)
        files.renew()
        change(files, number)


async def test_an_open_connection_keeps_its_certificate(serve, engine_pool, certificates, files, each_loop):
    """Scenario 60: a new one is opened after ``max_lifetime``, or after a drain."""
    server = serve(json_reply(), tls=certificates.requires_client_cert)
    pool = engine_pool(tls=TLS(ca_file=certificates.ca_file, client_cert=files.paths))
    await pool.fetch(request_to(server))
    before = files.certificate
    files.renew()
    files.write()
    await pool.fetch(request_to(server))
    assert (server.connections_accepted, shown_to(server)) == (1, as_der(before))
    await pool.adrain()
    await pool.fetch(request_to(server))
    assert (server.connections_accepted, shown_to(server)) == (2, as_der(files.certificate))


@pytest.mark.parametrize("how", ["half written", "without its key", "missing"])
async def test_a_file_that_cannot_be_used_changes_nothing(
    server, engine_pool, certificates, files, caplog, how, each_loop
):
    """Scenario 60: one line in the log, and a new look at the next connection."""
    caplog.set_level(logging.WARNING, "llm_pool.engine")
    pool = engine_pool(tls=TLS(ca_file=certificates.ca_file, client_cert=files.paths))
    await pool.fetch(request_to(server))
    before = files.certificate
    files.renew()
    files.spoil(how)
    for _ in range(3):
        assert (await pool.fetch(request_to(server))).status == 200
        assert shown_to(server) == as_der(before)
    await until(lambda: caplog.records)
    files.write()
    assert (await pool.fetch(request_to(server))).status == 200
    assert shown_to(server) == as_der(files.certificate)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"the TLS setting client_cert ({files.paths[0]}) cannot be used: ")
    assert record.getMessage().endswith("; new connections use the files as they were before")


# The authorities.


class Authority:
    """An authority, and the settings and environment that make a pool trust only it."""

    def __init__(self, kind, directory, monkeypatch):
        self.path = directory / ("d" if kind == "SSL_CERT_DIR" else "ca.pem")
        self.kind = kind
        self.settings = TLS(ca_file=str(self.path) if kind == "ca_file" else None)
        for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
            monkeypatch.setenv(name, str(self.path if name == kind else directory / "none"))

    def write(self, authority):
        pem = authority.cert_pem.bytes()
        if self.kind == "SSL_CERT_DIR":
            self.path.mkdir(exist_ok=True)
            for path in self.path.iterdir():
                path.unlink()
            (self.path / f"{subject_hash(pem)}.0").write_bytes(pem)
        else:
            self.path.write_bytes(pem)


def subject_hash(pem):
    """The name under which OpenSSL looks for an authority in a directory."""
    return f"{crypto.load_certificate(crypto.FILETYPE_PEM, pem).subject_name_hash():08x}"


@pytest.mark.parametrize("kind", ["ca_file", "SSL_CERT_FILE", "SSL_CERT_DIR"])
async def test_new_authorities_are_trusted_by_new_connections(
    serve, engine_pool, tmp_path, monkeypatch, kind, each_loop
):
    """Scenario 60: the setting ``ca_file``, and the system's trust store."""
    old, new = trustme.CA(organization_name="old"), trustme.CA(organization_name="new")
    trusted = Authority(kind, tmp_path, monkeypatch)
    trusted.write(old)
    first = serve(respond_once_and_close, tls=server_context(old.issue_cert(*NAMES)))
    second = serve(respond_once_and_close, tls=server_context(new.issue_cert(*NAMES)))
    pool = engine_pool(tls=trusted.settings)
    assert (await pool.fetch(request_to(first))).status == 200
    with pytest.raises(TLSFailed):
        await pool.fetch(request_to(second))
    trusted.write(new)
    assert (await pool.fetch(request_to(second))).status == 200
    with pytest.raises(TLSFailed):
        await pool.fetch(request_to(first))


async def test_a_machine_without_a_trust_store_is_a_clear_error(
    serve, engine_pool, certificates, tmp_path, monkeypatch, each_loop
):
    """Scenario 60: the error says where it was looked for; a store that is installed later is found."""
    trusted = Authority("SSL_CERT_FILE", tmp_path, monkeypatch)
    server = serve(json_reply(), tls=certificates.good)
    pool = engine_pool()
    with pytest.raises(TLSFailed, match=rf"^this machine has no trust store, neither {trusted.path} nor "):
        await pool.fetch(request_to(server))
    trusted.write(certificates.authority)
    assert (await pool.fetch(request_to(server))).status == 200


async def test_a_trust_store_that_is_broken_is_named(
    serve, engine_pool, certificates, tmp_path, monkeypatch, each_loop
):
    """Scenario 60: OpenSSL itself would ignore it, and refuse each certificate."""
    trusted = Authority("SSL_CERT_FILE", tmp_path, monkeypatch)
    pem = certificates.authority.cert_pem.bytes()
    trusted.path.write_bytes(pem[: len(pem) // 2])
    server = serve(json_reply(), tls=certificates.good)
    with pytest.raises(TLSFailed, match=rf"^the system's trust store \({trusted.path}\) cannot be used: "):
        await engine_pool().fetch(request_to(server))


# A moment without file descriptors, or without threads.


@pytest.fixture
def starve(monkeypatch):
    """``starve()``: each context is built in a moment without a free descriptor, until ``starve(False)``."""
    build = ssl.create_default_context
    load = ssl.SSLContext.load_verify_locations

    def without_descriptors(function):
        def starved(*args, **kwargs):
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
            try:
                return function(*args, **kwargs)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)

        return starved

    def change(on=True):
        monkeypatch.setattr(ssl, "create_default_context", without_descriptors(build) if on else build)
        name = "load_verify_locations"
        monkeypatch.setattr(ssl.SSLContext, name, without_descriptors(load) if on else load)

    return change


@pytest.mark.parametrize("kind", ["ca_file", "SSL_CERT_FILE"])
@pytest.mark.parametrize("moment", ["first", "later"])
async def test_a_moment_without_descriptors_is_not_remembered(
    serve, engine_pool, tmp_path, certificates, monkeypatch, starve, kind, moment, each_loop
):
    """Scenario 60: neither is an empty trust store kept, nor the old one after a change."""
    trusted = Authority(kind, tmp_path, monkeypatch)
    server = serve(respond_once_and_close, tls=certificates.good)
    pool = engine_pool(tls=trusted.settings)
    if moment == "later":
        old = trustme.CA(organization_name="old")
        before = serve(respond_once_and_close, tls=server_context(old.issue_cert(*NAMES)))
        trusted.write(old)
        assert (await pool.fetch(request_to(before))).status == 200
        trusted.write(certificates.authority)
        starve()
        assert (await pool.fetch(request_to(before))).status == 200
    else:
        trusted.write(certificates.authority)
        starve()
        with pytest.raises(TLSFailed, match=r"cannot be used: Too many open files$"):
            await pool.fetch(request_to(server))
    starve(False)
    assert (await pool.fetch(request_to(server))).status == 200


async def test_a_moment_without_threads_needs_no_look(
    server, engine_pool, certificates, files, monkeypatch, each_loop
):
    """Scenario 60: new connections use the context that is there."""
    pool = engine_pool(tls=TLS(ca_file=certificates.ca_file, client_cert=files.paths))
    await pool.fetch(request_to(server))

    def no_thread(*_, **__):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threads, "start_thread", no_thread)
        patch.setattr(threading.Thread, "start", no_thread)
        assert (await pool.fetch(request_to(server))).status == 200


async def test_the_files_are_looked_at_on_no_event_loop(
    server, engine_pool, certificates, files, monkeypatch, each_loop
):
    """Scenario 60: files can be on a slow disk; connections at the same time share a look."""
    looked = []
    stat = Path.stat

    def watched(path, **options):
        if str(path) in files.paths:
            looked.append((os.fspath(path), threading.current_thread().name))
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", watched)
    pool = engine_pool(tls=TLS(ca_file=certificates.ca_file, client_cert=files.paths))
    for _ in range(2):
        await asyncio.gather(*(pool.fetch(request_to(server)) for _ in range(4)))
    assert server.connections_accepted == 8
    assert {path for path, _ in looked} == set(files.paths)
    assert {name for _, name in looked} == {"llm_pool-_look_at_files"}
