from __future__ import annotations

import copy
import inspect
import json
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import celery
import httpx
import pytest
from celery.utils.serialization import get_pickleable_exception

from llm_pool import exceptions
from llm_pool.providers.head import HeaderView
from llm_pool.providers.results import Completion

TRANSPORT_ERRORS = [
    kind
    for _, kind in inspect.getmembers(exceptions, inspect.isclass)
    if issubclass(kind, exceptions.LLMPoolError) and issubclass(kind, httpx.TransportError)
]


def tree(kind: type[exceptions.LLMPoolError]) -> Iterator[type[exceptions.LLMPoolError]]:
    """The class and all that derive from it in this package."""
    yield kind
    for derived in kind.__subclasses__():
        if derived.__module__.startswith("llm_pool."):
            yield from tree(derived)


KINDS = sorted(set(tree(exceptions.LLMPoolError)), key=lambda kind: kind.__name__)


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
        ("TokenTimeout", httpx.ReadTimeout),
        ("TotalTimeout", httpx.ReadTimeout),
        ("WriteTimeout", httpx.WriteTimeout),
        ("ReadFailed", httpx.ReadError),
        ("WriteFailed", httpx.WriteError),
        ("ProtocolError", httpx.RemoteProtocolError),
        ("InvalidRequest", httpx.LocalProtocolError),
        ("AnswerTooLarge", httpx.RemoteProtocolError),
        ("StreamInterrupted", httpx.RemoteProtocolError),
        ("InvalidResponse", httpx.RemoteProtocolError),
        ("InvalidOutput", httpx.DecodingError),
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


def test_control_characters_in_a_message_are_escaped_once() -> None:
    for kind in KINDS:
        error = kind("red \x1b[31m")
        assert str(error) == error.args[0] == r"red \u001b[31m"
        assert str(copy.copy(error)) == str(error)


def test_a_message_alone_is_enough() -> None:
    """As for the ``side_effect`` of a mock, which also takes the class itself."""
    for kind in KINDS:
        error = kind("what happened")
        assert (str(error), repr(error)) == ("what happened", f"{kind.__name__}('what happened')")
        assert str(kind()) == ""
    assert exceptions.RateLimited("slow").response.status_code == 429
    assert exceptions.status_error(exceptions.Conflict.status_code) is exceptions.Conflict


SENT = httpx.Request(
    "POST",
    "https://user:sk-secret@api.test/v1/chat?key=sk-secret",
    headers={"Authorization": "Bearer sk-secret"},
    content=b"a prompt",
)
DETAILS: dict[type[exceptions.LLMPoolError], dict[str, Any]] = {
    exceptions.APIStatusError: {"retry_after": 2.5, "headers": {"retry-after": "2.5"}, "content": b"slow"},
    exceptions.APIError: {
        "status_code": 418,
        "code": "c",
        "kind": "t",
        "body": {"a": [1]},
        "partial": "Once",
    },
    exceptions.InvalidResponse: {"status_code": 200, "content_type": "text/html", "body": "<p>"},
    exceptions.InvalidOutput: {
        "request_id": "r",
        "completion": Completion("Once", headers=HeaderView([(b"X-A", b"b")])),
        "text": "Once",
        "problems": ("a: Field required",),
    },
    exceptions.StreamInterrupted: {"request_id": "r", "partial": "Once"},
}


def example(kind: type[exceptions.LLMPoolError]) -> exceptions.LLMPoolError:
    """An error of this class with all that the class can hold, raised by a request with a key."""
    details = [values for base, values in DETAILS.items() if issubclass(kind, base)]
    given = {name: value for values in details for name, value in values.items()}
    error = kind("what happened", request=SENT, **given)
    if isinstance(error, exceptions.APIStatusError):
        assert error.response.request is SENT
    return error


def rebuilt_by_celery(error: exceptions.LLMPoolError) -> Any:
    """Store the error as the result of a task, as JSON, and read it as the caller of the task does."""
    app = celery.Celery(broker="memory://", backend="cache+memory://", set_as_current=False)
    app.backend.store_result("task", error, "FAILURE")
    assert "sk-secret" not in str(app.backend.get(app.backend.get_key_for_task("task")))
    return app.AsyncResult("task").result


COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda error: pickle.loads(pickle.dumps(error)),
    "JSON": lambda error: type(error)(*json.loads(json.dumps(error.args))),
    "Celery's JSON": rebuilt_by_celery,
    "Celery's pickle": get_pickleable_exception,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", COPIES)
def test_an_error_survives_copies_and_stores(kind: type[exceptions.LLMPoolError], how: str) -> None:
    error = example(kind)
    twin = COPIES[how](COPIES[how](error))
    assert type(twin) is kind
    assert str(twin) == "what happened"
    kept = ("status_code", "retry_after", "code", "request_id")
    assert [getattr(twin, name, None) for name in kept] == [getattr(error, name, None) for name in kept]
    assert twin.args == error.args


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["copy", "deepcopy", "pickle"])
def test_a_copy_holds_all_but_the_secrets_of_the_request(
    kind: type[exceptions.LLMPoolError], how: str
) -> None:
    error = example(kind)
    twin = COPIES[how](error)
    private = {"_request", "_response"}
    assert {name: value for name, value in vars(twin).items() if name not in private} == {
        name: value for name, value in vars(error).items() if name not in private
    }
    if isinstance(twin, httpx.HTTPError):
        assert (twin.request.method, str(twin.request.url)) == ("POST", "https://api.test/v1/chat")
        assert error.request is SENT
    pickled = pickle.dumps(error)
    assert b"sk-secret" not in pickled
    assert b"a prompt" not in pickled
    if isinstance(twin, exceptions.APIStatusError):
        assert (twin.response.status_code, twin.response.text) == (418, "slow")


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
