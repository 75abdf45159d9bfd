"""Parses the responses on an HTTP/1.1 connection (RFC 9112), and passes each to its exchange."""

from __future__ import annotations

import httptools

from llm_pool.exceptions import ProtocolError

from ..exchange import Exchange
from ..head import Headers
from .lenient import head_length, is_response, rewrite_head

__all__ = ["ResponseParser"]

MAX_HEAD = 64 * 1024  # bytes that can come before a head is complete, or between two parts of the body
TOO_LONG = f"a header block of over {MAX_HEAD} bytes"
PARSER_ERRORS = (httptools.HttpParserError, httptools.HttpParserUpgrade)
OWN_ERRORS = (httptools.HttpParserCallbackError, httptools.HttpParserUpgrade)  # of the callbacks below
VERSIONS = {"1.1": b"HTTP/1.1", "1.0": b"HTTP/1.0", "0.9": b"HTTP/1.0", "2.0": b"HTTP/1.1"}


class ResponseParser:
    """Parses one response after another. For each, call ``expect``, then ``feed`` until ``complete``.

    ``has_head``     whether the head is complete, and the exchange has it
    ``complete``     whether the response is complete
    ``surplus``      whether the server has sent more bytes than the response has
    ``keeps_alive``  whether the connection can be used again after the response (RFC 9112, section 9.3)
    ``hint``         seconds for which the server keeps an idle connection open (``Keep-Alive: timeout=5``);
                     None if not announced
    ``is_chunked``   whether the body has the transfer coding chunked
    ``overhead``     bytes of a head or of the framing that have come since the exchange got a head or data
    """

    __slots__ = ("_exchange", "_has_length", "_headers", "_is_ambiguous", "_is_lenient", "_needs_new_parser",
                 "_parser", "_pieces", "_reason", "complete", "has_head", "hint", "is_chunked", "keeps_alive",
                 "overhead", "surplus")  # fmt: skip

    def __init__(self) -> None:
        self.surplus = False
        self._exchange: Exchange | None = None
        self.overhead = 0
        self._is_ambiguous = False  # whether another client could find another end of this response
        self._pieces: list[bytes] = []  # the bytes received before the head is complete
        self._is_lenient = False  # whether the heads of this response are rewritten
        self._renew_parser()
        self._reset()

    def _renew_parser(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(lenient_spaces_after_chunk_size=True)
        self._needs_new_parser = False

    def _reset(self) -> None:
        self.has_head = False
        self.complete = False
        self.keeps_alive = False
        self.hint: float | None = None
        self._headers: Headers = []
        self._reason = b""
        self._has_length = False
        self.is_chunked = False

    def expect(self, exchange: Exchange) -> None:
        """Prepare to parse the response of ``exchange``."""
        if self._needs_new_parser:
            self._renew_parser()
        self._exchange = exchange
        self.overhead = 0
        self._reset()

    def feed(self, data: bytes) -> ProtocolError | None:
        """Parse bytes of the response. Return a ProtocolError if they are not valid HTTP/1.1, else None.

        More than ``MAX_HEAD`` bytes before the head is complete, or between two parts of the body, are not
        valid either. Bytes after the response set ``surplus``.
        """
        self.overhead += len(data)
        if self.has_head:
            error = self._parse(data)
        else:
            self._pieces.append(data)
            error = self._parse_leniently() if self._is_lenient else self._parse(data)
        if error is None and self.overhead > MAX_HEAD and not self.complete:
            return self._error(TOO_LONG)
        return error

    def _parse(self, data: bytes) -> ProtocolError | None:
        try:
            self._parser.feed_data(data)
            return None
        except PARSER_ERRORS as error:
            if _is_internal(error):
                raise
            if self.complete:
                self.surplus = True
                return None
            if not self._can_be_rewritten(error):
                return self._error(_message(error))
        self._is_lenient = self._is_ambiguous = True
        return self._parse_leniently()

    def _can_be_rewritten(self, error: Exception) -> bool:
        if self.has_head or self._is_lenient or isinstance(error, OWN_ERRORS):
            return False
        return is_response(b"".join(self._pieces))

    def _parse_leniently(self) -> ProtocolError | None:
        """Parse the response from its start, with each head rewritten as a valid one.

        The connection is not used again: the server, or a proxy on the way, could have meant another head.
        """
        data = b"".join(self._pieces)
        self._pieces.clear()
        while not self.has_head:
            size = head_length(data)
            if not size:
                self._pieces.append(data)
                return None
            head, data = data[:size], data[size:]
            self._reset()
            self._renew_parser()
            self._parser.set_dangerous_leniencies(lenient_headers=True)  # control characters in values
            try:
                error = self._parse(rewrite_head(head))
            except ProtocolError as cause:
                return self._error(str(cause))
            if error is not None:
                return error
        return self._parse(data)

    def end(self) -> bool:
        """Handle the server's close of the connection. Return whether the close completes the response.

        A body with neither Content-Length nor chunked coding ends with the connection (RFC 9112, section
        6.3).
        """
        if not self.has_head or self.complete or self._has_length or self.is_chunked:
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
        if self.has_head:
            return  # a trailer field: ignored, as RFC 9112, section 7.1.2 allows
        value = value.rstrip(b" \t")  # not part of the value (RFC 9110, section 5.5); the parser keeps it
        self._headers.append((name, value))
        size = len(name)
        # The length is compared first: lowering each name costs more.
        if size == 14 and name.lower() == b"content-length":
            self._has_length = True
        elif size == 17 and name.lower() == b"transfer-encoding":
            self._on_transfer_encoding(value)
        elif size == 10 and name.lower() == b"keep-alive":
            self.hint = _timeout_parameter(value)

    def _on_transfer_encoding(self, value: bytes) -> None:
        codings = [coding for part in value.lower().split(b",") if (coding := part.strip(b" \t"))]
        if codings and codings != [b"identity"]:  # "identity" was a coding in RFC 2616
            if set(codings) != {b"chunked"} or not value.lower().endswith(b"chunked"):
                raise ProtocolError(f"its transfer coding {value!r} is not supported")
            self._is_ambiguous |= self.is_chunked or len(codings) > 1
            self.is_chunked = True

    def on_headers_complete(self) -> None:
        if self.complete:
            return
        status, version = self._parser.get_status_code(), self._parser.get_http_version()
        if status < 100 or version not in VERSIONS:
            raise ProtocolError(f"its status line says HTTP/{version} {status}")
        if self.overhead > MAX_HEAD and _size(self._headers) > MAX_HEAD:
            raise ProtocolError(TOO_LONG)
        if status == 101:
            raise ProtocolError("the server switched protocols, although the request did not accept that")
        if status >= 200:
            self._is_ambiguous |= version not in ("1.1", "1.0")
            self._begin(status, version)

    def on_body(self, data: bytes) -> None:
        if self.complete:
            self.surplus = True
            return
        self.overhead = 0
        assert self._exchange is not None
        self._exchange.on_data(data)

    def on_message_complete(self) -> None:
        if self.complete:
            return
        if not self.has_head:
            self._reset()  # an interim response (RFC 9110, section 15.2): the final one follows
        else:
            self._finish(keeps_alive=self._parser.should_keep_alive())

    def _begin(self, status: int, version: str) -> None:
        exchange = self._exchange
        assert exchange is not None
        self.has_head = True
        self._pieces.clear()
        self.overhead = 0
        exchange.on_head(status, self._reason, VERSIONS[version], self._headers)
        if exchange.request.head.method == b"HEAD" or status in (204, 304):
            # There is no body, whatever the headers say (RFC 9112, section 6.3). The parser can expect one.
            self._needs_new_parser = True
            self._finish(keeps_alive=self._parser.should_keep_alive())

    def _finish(self, *, keeps_alive: bool) -> None:
        assert self._exchange is not None
        self.complete = True
        self.keeps_alive = keeps_alive and not self._is_ambiguous
        self._exchange.on_end()
        self._exchange, self._headers = None, []  # an idle connection keeps neither

    def _error(self, cause: str) -> ProtocolError:
        assert self._exchange is not None
        return ProtocolError(f"{self._exchange.request.origin} sent no valid HTTP: {cause}")


def _timeout_parameter(value: bytes) -> float | None:
    """Return the timeout in seconds of a ``Keep-Alive`` header such as ``timeout=5, max=100``, or None."""
    for part in value.split(b","):
        name, _, number = part.strip().partition(b"=")
        if name.lower() == b"timeout" and number.isdigit():
            return float(number[:9])
    return None


def _is_internal(error: Exception) -> bool:
    """Return whether ``error`` comes from a bug in a callback of the parser, not from the server's bytes."""
    in_callback = isinstance(error, httptools.HttpParserCallbackError)
    return in_callback and not isinstance(error.__context__, ProtocolError)


def _message(error: Exception) -> str:
    cause = error.__context__ if isinstance(error.__context__, ProtocolError) else error
    return str(cause) or error.__class__.__name__


def _size(headers: Headers) -> int:
    return sum(len(name) + len(value) + len(b": \r\n") for name, value in headers)
