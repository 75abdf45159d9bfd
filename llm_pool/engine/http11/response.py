"""Reads responses off an HTTP/1.1 connection (RFC 9112), and tells the exchange of each what comes."""

from __future__ import annotations

import httptools

from llm_pool.exceptions import ProtocolError

from ..exchange import Exchange
from ..request import Headers

__all__ = ["ResponseParser"]

MAX_HEAD = 64 * 1024  # bytes that may come without completing a head or bringing any body
TOO_LONG = f"a header block of over {MAX_HEAD} bytes"
FAULTS = (httptools.HttpParserError, httptools.HttpParserUpgrade)
SPOKEN = {"1.1": b"HTTP/1.1", "1.0": b"HTTP/1.0"}


class ResponseParser:
    """Parses one response after another: ``expect`` its exchange, then ``feed`` until it is ``complete``.

    ``in_body``: its head has come. ``keeps_alive``: the connection may go on after it. ``hint``: seconds the
    server says that it keeps an idle connection. ``surplus``: there came more than belongs to it.
    ``is_chunked``: its body came in chunks.
    """

    def __init__(self) -> None:
        self.surplus = False
        self._parser = httptools.HttpResponseParser(self)
        self._exchange: Exchange | None = None
        self._silent_bytes = 0
        self._bodiless = False
        self._reset()

    def _reset(self) -> None:
        self.in_body = False
        self.complete = False
        self.keeps_alive = False
        self.hint: float | None = None
        self._headers: Headers = []
        self._reason = b""
        self._has_length = False
        self.is_chunked = False

    def expect(self, exchange: Exchange) -> None:
        """What comes from now on is the response of this exchange."""
        if self._bodiless:
            self._parser = httptools.HttpResponseParser(self)  # the old one may still wait for a body
            self._bodiless = False
        self._exchange = exchange
        self._silent_bytes = 0
        self._reset()

    def feed(self, data: bytes) -> ProtocolError | None:
        """Take bytes of the response; the error is that of a server which breaks the rules."""
        self._silent_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except FAULTS as error:
            if _is_ours(error):
                raise
            if not self.complete:
                return self._error(_cause(error))
            self.surplus = True
        if not self.complete and self._silent_bytes > MAX_HEAD:
            return self._error(TOO_LONG)
        return None

    def end(self) -> bool:
        """The server has ended the connection. True where that ends the response (section 6.3)."""
        if not self.in_body or self.complete or self._has_length or self.is_chunked:
            return False
        self._finish(keeps_alive=False)
        return True

    # For httptools

    def on_message_begin(self) -> None:
        if self.complete:
            self.surplus = True

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_body:
            return  # a trailer: nothing here asks for any
        self._headers.append((name, value))
        size = len(name)
        if size == 14 and name.lower() == b"content-length":  # most names are not worth lowering
            self._has_length = True
        elif size == 17 and name.lower() == b"transfer-encoding":
            if value.lower() != b"chunked":
                raise ProtocolError(f"its transfer coding {value!r} is not one that we can undo")
            self.is_chunked = True
        elif size == 10 and name.lower() == b"keep-alive":
            self.hint = _timeout_parameter(value)

    def on_headers_complete(self) -> None:
        if self.complete:
            return
        status, version = self._parser.get_status_code(), self._parser.get_http_version()
        if status < 100 or version not in SPOKEN:
            raise ProtocolError(f"its status line says HTTP/{version} {status}")
        if self._silent_bytes > MAX_HEAD and _size(self._headers) > MAX_HEAD:
            raise ProtocolError(TOO_LONG)
        if status == 101:
            raise ProtocolError("the server switched protocols, although the request did not accept that")
        if status >= 200:
            self._begin(status, version)

    def on_body(self, data: bytes) -> None:
        if self.complete:
            self.surplus = True
            return
        self._silent_bytes = 0
        assert self._exchange is not None
        self._exchange.on_data(data)

    def on_message_complete(self) -> None:
        if self.complete:
            return
        if not self.in_body:
            self._reset()  # an interim response (RFC 9110, section 15.2): the real one follows
        else:
            self._finish(keeps_alive=self._parser.should_keep_alive())

    def _begin(self, status: int, version: str) -> None:
        exchange = self._exchange
        assert exchange is not None
        self.in_body = True
        self._silent_bytes = 0
        exchange.on_head(status, self._reason, SPOKEN[version], self._headers)
        if exchange.request.method == b"HEAD" or status in (204, 304):
            self._bodiless = True  # whatever the headers say (section 6.3)
            self._finish(keeps_alive=self._parser.should_keep_alive())

    def _finish(self, *, keeps_alive: bool) -> None:
        assert self._exchange is not None
        self.complete = True
        self.keeps_alive = keeps_alive
        self._exchange.on_end()
        self._exchange = None

    def _error(self, what: str) -> ProtocolError:
        assert self._exchange is not None
        return ProtocolError(f"{self._exchange.request.origin} sent no valid HTTP: {what}")


def _timeout_parameter(value: bytes) -> float | None:
    """The seconds of ``Keep-Alive: timeout=5, max=100``."""
    for part in value.split(b","):
        name, _, number = part.strip().partition(b"=")
        if name.lower() == b"timeout" and number.isdigit():
            return float(number[:9])
    return None


def _is_ours(error: Exception) -> bool:
    """Whether a callback of the parser failed by a mistake in this file, and by no fault of the server's."""
    called_back = isinstance(error, httptools.HttpParserCallbackError)
    return called_back and not isinstance(error.__context__, ProtocolError)


def _cause(error: Exception) -> str:
    cause = error.__context__ if isinstance(error.__context__, ProtocolError) else error
    return str(cause) or error.__class__.__name__


def _size(headers: Headers) -> int:
    return sum(len(name) + len(value) + len(b": \r\n") for name, value in headers)
