"""QUERY: the parameters in the URLs of all requests to a pool's server."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from urllib.parse import quote, unquote_plus, urlencode

import httpx

__all__ = ["Parameters", "Query"]

Parameters = Mapping[str, str | Sequence[str]]


class Query:
    """The parameters of QUERY, encoded once. A name with several values becomes several parameters."""

    __slots__ = ("_by_name", "_whole")

    def __init__(self, parameters: Parameters) -> None:
        self._by_name = {
            name: urlencode({name: value}, doseq=True, quote_via=quote).encode("ascii")
            for name, value in parameters.items()
        }
        self._whole = b"&".join(self._by_name.values())

    def add_to(self, target: bytes) -> bytes:
        """Return ``target``, a path with or without a query, with the parameters whose names it lacks."""
        path, _, own = target.partition(b"?")
        if not own:
            return b"%b?%b" % (path, self._whole) if self._whole else target
        names = {unquote_plus(pair.partition("=")[0]) for pair in own.decode("latin-1").split("&")}
        return b"&".join([target, *(pair for name, pair in self._by_name.items() if name not in names)])

    def add_to_url(self, request: httpx.Request) -> None:
        """Add the parameters to the URL of ``request`` as ``add_to`` does. httpx's log does not show them."""
        if self._whole:
            target = self.add_to(request.url.raw_path)
            request.url = _URLWithQuery(request.url.copy_with(raw_path=target))


class _URLWithQuery(httpx.URL):
    """A URL whose query can contain a secret."""


def _without_query(record: logging.LogRecord) -> bool:
    """Remove the query of each ``_URLWithQuery`` in ``record``. Return True: the record is logged."""
    if isinstance(record.args, tuple):
        record.args = tuple(
            value.copy_with(query=None) if isinstance(value, _URLWithQuery) else value
            for value in record.args
        )
    return True


# httpx logs the URL of each request, at INFO.
logging.getLogger("httpx").addFilter(_without_query)
