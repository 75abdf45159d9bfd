from __future__ import annotations

import copy
import inspect
import pickle

import httpx
import pytest

from llm_pool import exceptions

TRANSPORT_ERRORS = [
    kind
    for _, kind in inspect.getmembers(exceptions, inspect.isclass)
    if issubclass(kind, exceptions.LLMPoolError) and issubclass(kind, httpx.TransportError)
]
RAISED_BY_ENGINE = [kind for kind in TRANSPORT_ERRORS if "__init__" not in vars(kind)]


@pytest.mark.parametrize("kind", TRANSPORT_ERRORS)
def test_an_error_of_the_transport_is_an_httpx_error(kind: type[exceptions.LLMPoolError]) -> None:
    error = kind("what happened")
    assert isinstance(error, httpx.RequestError)
    assert str(error) == "what happened"
    with pytest.raises(RuntimeError):  # as with httpx's errors, until a client sets it
        _ = error.request


def test_a_copy_has_the_message_and_the_cause_but_no_traceback() -> None:
    cause = OSError("cable")
    try:
        raise exceptions.DNSFailed("what happened") from cause
    except exceptions.DNSFailed as error:
        copied = exceptions.copy_of(error)
    assert type(copied) is exceptions.DNSFailed
    assert (str(copied), copied.__cause__, copied.__traceback__) == ("what happened", cause, None)


@pytest.mark.parametrize(
    ("name", "of_httpx"),
    [
        ("PoolTimeout", httpx.PoolTimeout),
        ("PoolFull", httpx.PoolTimeout),
        ("ConnectFailed", httpx.ConnectError),
        ("ConnectTimeout", httpx.ConnectTimeout),
        ("DNSFailed", httpx.ConnectError),
        ("TLSFailed", httpx.ConnectError),
        ("ProxyFailed", httpx.ProxyError),
        ("ReadTimeout", httpx.ReadTimeout),
        ("TotalTimeout", httpx.ReadTimeout),
        ("WriteTimeout", httpx.WriteTimeout),
        ("ReadFailed", httpx.ReadError),
        ("WriteFailed", httpx.WriteError),
        ("ProtocolError", httpx.RemoteProtocolError),
        ("InvalidRequest", httpx.LocalProtocolError),
        ("StreamInterrupted", httpx.RemoteProtocolError),
        ("InvalidResponse", httpx.RemoteProtocolError),
        ("APIStatusError", httpx.HTTPStatusError),
    ],
)
def test_code_written_for_httpx_catches_it(name: str, of_httpx: type[Exception]) -> None:
    assert issubclass(getattr(exceptions, name), of_httpx)
    assert issubclass(getattr(exceptions, name), exceptions.LLMPoolError)


def test_every_error_is_exported_and_an_llm_pool_error() -> None:
    for name in exceptions.__all__:
        value = getattr(exceptions, name)
        if inspect.isclass(value):
            assert issubclass(value, exceptions.LLMPoolError)
            assert value.__doc__


EXAMPLES: list[exceptions.LLMPoolError] = [
    *(kind("message") for kind in RAISED_BY_ENGINE),
    exceptions.InvalidMessages("message"),
    exceptions.InvalidResponse(
        "message", status_code=200, request_id="r", content_type="text/html", body="<p>"
    ),
    exceptions.StreamInterrupted("message", partial="Once upon", request_id="r"),
    exceptions.APIError("message", status_code=200, code="c", kind="t", body={"a": 1}, partial="x"),
    exceptions.RateLimited(
        "message", status_code=429, headers={"retry-after": "2"}, content=b"slow", retry_after=2.0, code="c"
    ),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_errors_survive_copying_and_pickling(error: exceptions.LLMPoolError, duplicate) -> None:
    error.request = httpx.Request("POST", "http://x/")
    twin = duplicate(error)
    assert type(twin) is type(error)
    assert str(twin) == str(error) == "message"
    assert twin.request.url == error.request.url
    same = {key: value for key, value in vars(error).items() if key not in ("_request", "_response")}
    assert {key: vars(twin)[key] for key in same} == same


def test_a_status_error_has_a_response_as_httpx_gives_it() -> None:
    headers = {
        "Content-Encoding": "gzip",
        "content-length": "9999",
        "transfer-encoding": "chunked",
        "x-a": "b",
    }
    error = exceptions.NotFound("m", status_code=404, headers=headers, content=b'{"a": 1}')
    assert error.response is error.response
    assert error.response.status_code == 404
    assert error.response.json() == {"a": 1}
    assert error.response.headers["x-a"] == "b"
    with pytest.raises(RuntimeError):
        _ = error.request
    error.request = httpx.Request("GET", "http://x/")
    assert error.request.method == "GET"


@pytest.mark.parametrize("value", ["requête refusée".encode("latin-1"), "拒否".encode()])
@pytest.mark.parametrize("coding", ["latin-1", None])
def test_headers_that_are_not_ascii_are_read_as_httpx_reads_them(value: bytes, coding: str | None) -> None:
    received = httpx.Headers([(b"x-reason", value)])
    text = value.decode(coding) if coding else received["x-reason"]
    error = exceptions.BadRequest("m", status_code=400, headers={"x-reason": text})
    assert error.response.headers["x-reason"] == received["x-reason"]


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (400, "BadRequest"),
        (401, "AuthenticationFailed"),
        (403, "PermissionDenied"),
        (404, "NotFound"),
        (409, "Conflict"),
        (413, "RequestTooLarge"),
        (418, "APIStatusError"),
        (302, "APIStatusError"),
        (422, "UnprocessableRequest"),
        (429, "RateLimited"),
        (500, "ServerFailed"),
        (502, "ServerFailed"),
        (503, "Overloaded"),
        (529, "Overloaded"),
    ],
)
def test_each_status_has_its_class(status: int, name: str) -> None:
    assert exceptions.status_error(status) is getattr(exceptions, name)


def test_an_overloaded_server_has_failed() -> None:
    assert issubclass(exceptions.Overloaded, exceptions.ServerFailed)
