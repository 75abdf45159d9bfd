"""What the providers of JSON APIs have in common: they read an answer without a stream, and errors in it."""

from __future__ import annotations

import json
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from llm_pool.exceptions import LLMPoolError
from llm_pool.providers.base import Provider
from llm_pool.providers.error_objects import error_in
from llm_pool.providers.errors import SHAPE_ERRORS
from llm_pool.providers.results import Completion
from llm_pool.providers.sse import looks_like_events
from llm_pool.providers.usage import Usage, token_count

if TYPE_CHECKING:
    from llm_pool.providers.head import Head
    from llm_pool.providers.results import Timing

__all__ = ["JSONProvider", "parse_json"]

_decode_first = json.JSONDecoder().raw_decode
_WHITE_SPACE = " \t\n\r"  # that of JSON (RFC 8259, section 2)


def parse_json(body: bytes) -> Any:
    """Return the value of ``body``, JSON in UTF-8, UTF-16 or UTF-32. Raises ValueError or RecursionError.

    The result is that of ``json.loads``, which first looks for the encoding and for white space.
    """
    if body[:1] == b"{" and body[1:2] != b"\0":  # in UTF-8
        text = body.decode("utf-8", "surrogatepass")
        value, end = _decode_first(text)
        if end == len(text) or not text[end:].strip(_WHITE_SPACE):
            return value
    return json.loads(body)


class JSONProvider(Provider):
    """A provider whose answer to a call without a stream is one JSON object.

    ``usage_names``  the keys, in the answer's usage object, of the numbers of input and output tokens
    ``answer_name``  a key that each answer has and no error; "" if there is none
    """

    usage_names: ClassVar[tuple[str, str]]
    answer_name: ClassVar[str] = ""

    @abstractmethod
    def completion_from(
        self, raw: Any, head: Head, timing: Timing | None, text: str | None = None
    ) -> Completion:
        """Return the completion in ``raw``, a parsed answer or the same object merged from a stream's events.

        The headers of ``head`` and ``timing`` go into the completion unchanged. ``text`` is the text of a
        streamed answer; with None, read the text from ``raw``.

        Raises one of ``SHAPE_ERRORS`` if ``raw`` does not have the API's format.
        """

    @abstractmethod
    def _describe_mismatch(self, raw: Any) -> str:
        """Return a phrase for what is wrong with ``raw``, such as "no choices in its JSON".

        ``raw`` is a parsed body that does not have the API's format.
        """

    def usage_from(self, raw: Any) -> Usage | None:
        """Return the usage in ``raw``, the usage object of an answer; None if ``raw`` is not an object."""
        if type(raw) is not dict:
            return None
        input_name, output_name = self.usage_names
        return Usage(token_count(raw.get(input_name)), token_count(raw.get(output_name)), raw)

    def parse_completion(self, head: Head, body: bytes, timing: Timing | None = None) -> Completion:
        """See ``Provider.parse_completion``."""
        result = self._completion_or_error(head, body, timing)
        del body  # error reports show the local variables of each frame, and the body may contain the key
        if isinstance(result, Completion):
            return result
        raise result

    def _completion_or_error(
        self, head: Head, body: bytes, timing: Timing | None
    ) -> Completion | LLMPoolError:
        """Return the completion or the error. A raised error would have a traceback that holds ``body``."""
        try:
            raw = parse_json(body)
        except (ValueError, RecursionError):
            if looks_like_events(body):
                return self._streamed_completion_or_error(head, body, timing)
            what = "what is not JSON" if body.strip() else "an empty body"
            return self.invalid_response(head, what, body)
        is_answer = type(raw) is dict and raw.get(self.answer_name) and b"error" not in body
        try:
            if not is_answer and (error := error_in(raw)) is not None:
                return self.error_from_object(head, error)
            return self.completion_from(raw, head, timing)
        except SHAPE_ERRORS:
            return self.invalid_response(head, self._describe_mismatch(raw), body)

    def _streamed_completion_or_error(
        self, head: Head, body: bytes, timing: Timing | None
    ) -> Completion | LLMPoolError:
        """Read an event stream that a server sends although none was asked for."""
        reader = self.stream_reader(head)
        try:
            reader.feed(body)
            if not reader.finished:
                reader.end()
            return reader.completion(timing)
        except LLMPoolError as error:
            return error.with_traceback(None)
