"""The streams of chat completions: https://platform.openai.com/docs/api-reference/chat/streaming"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llm_pool.providers.event_stream import EventStreamReader, parse_index
from llm_pool.providers.merging import MergedObject
from llm_pool.providers.openai.message import citations_of, reasoning_of, refusal_of, text_of, usage_in
from llm_pool.providers.openai.tool_calls import ToolCallMerger, as_list
from llm_pool.providers.results import Chunk
from llm_pool.providers.sse import UNFRAMED
from llm_pool.providers.texts import text_or_empty

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llm_pool.providers.head import Head
    from llm_pool.providers.json_provider import JSONProvider
    from llm_pool.providers.results import Citation, ToolCallPart

__all__ = ["OpenAIStreamReader"]

_CITATIONS = frozenset({"citations", "search_results"})  # beside the choices
_BESIDE = _CITATIONS | {"x_groq"}


class OpenAIStreamReader(EventStreamReader):
    """Reads ``data: {...}`` events up to ``data: [DONE]``.

    Some servers leave out ``[DONE]``. The answer is complete without it if each choice has a finish reason.

    If the request asked for one choice, the "index" of the choices means nothing: some servers count the
    events with it, or put the tool calls of a turn into a choice of their own. But if an event has several
    choices with text, they are alternatives, and the index says to which one each part belongs.
    """

    def __init__(self, provider: JSONProvider, head: Head) -> None:
        super().__init__(provider, head)
        self._choices: dict[int, _Choice] = {}
        self._has_alternatives = head.choices > 1
        self._top_level: dict[str, Any] = {}  # the fields of the events; "choices" is replaced at the end
        self._id_events = 0  # how many events have had the present id
        self._citations: dict[Citation, None] = {}  # those beside the choices
        self._is_ending = False  # a finish reason has arrived

    def _merged_answer(self) -> dict[str, Any]:
        choices = [choice.to_dict() for _, choice in sorted(self._choices.items())]
        raw = {**self._top_level, "object": "chat.completion", "choices": choices}
        raw.setdefault("usage", None)
        raw.pop("obfuscation", None)  # random characters that hide the size of each event
        return raw

    def _read_done(self) -> None:
        if 0 not in self._choices:
            what = "a stream without its first choice" if self._choices else "a stream without choices"
            raise self._provider.invalid_response(self._head, what, json.dumps(self._merged_answer()))
        self.finished = True

    def _chunk_from(self, raw: dict[str, Any], kind: str, data: str) -> Chunk | None:
        parts = raw.get("choices")
        if type(parts) is not list or not parts:  # the usage, a filter's results, a keep-alive or an error
            parts = as_list(parts)
            if not parts and self._is_ignored(raw, kind):
                return None
        top_level = self._top_level
        if raw.get("id") != top_level.get("id") and self._begins_another_answer(raw):
            return None
        for name, value in raw.items():
            if value or name not in top_level:  # some events repeat a field with an empty value
                top_level[name] = value
        top_level["choices"] = None  # otherwise the last event would stay in memory
        self._id_events += 1
        if len(parts) == 1 and not self._has_alternatives:
            part = parts[0]
            choice = self._choices.get(0) or self._begin_choice(0, part)
            chunk = self._chunk_of(choice, part, raw, data)
            has_more = "usage" in part
        else:
            chunk = self._chunk_of_several(parts, raw, data)
            has_more = True
        if has_more or raw.get("usage") or not _BESIDE.isdisjoint(raw):
            self._add_what_is_beside(chunk, raw)
        if self._is_ending or kind == UNFRAMED:
            self.is_complete = self._is_end(parts, kind)
        return chunk

    def _is_end(self, parts: list[dict[str, Any]], kind: str) -> bool:
        """Return whether the answer is complete after an event of the type ``kind`` with these choices."""
        if kind == UNFRAMED and parts and "message" in parts[0]:
            return True  # an answer without a stream, though a stream was asked for
        choices = self._choices.values()
        return len(choices) >= self._head.choices and all(choice.is_finished for choice in choices)

    def _add_what_is_beside(self, chunk: Chunk, raw: dict[str, Any]) -> None:
        """Add to ``chunk`` what its event has beside the choices: the usage and citations."""
        if raw.keys() & _CITATIONS:
            chunk.citations = self._new_citations(raw)
        if usage := usage_in(raw):
            chunk.usage = self._provider.usage_from(usage)

    def _new_citations(self, raw: dict[str, Any]) -> tuple[Citation, ...]:
        """Return the citations beside the choices that no event before has had: each event repeats them."""
        new = tuple(citation for citation in citations_of(raw, {}) if citation not in self._citations)
        self._citations.update(dict.fromkeys(new))
        return new

    def _begins_another_answer(self, raw: dict[str, Any]) -> bool:
        """Return whether ``raw``, whose id is not that of the event before, begins another answer.

        Some gateways ask again when a provider fails, and send the second answer after a part of the first.
        Raises InvalidResponse if the first is not complete, otherwise ends the stream. A server that makes an
        id for each event is not mistaken for one: its second id arrives with the second event.
        """
        had, self._id_events = self._id_events, 0
        deltas = [part.get("delta") or {} for part in as_list(raw.get("choices"))]
        if had < 2 or not raw.get("id") or not self._texts or not any(delta.get("role") for delta in deltas):
            return False
        self.finished = self.is_complete
        if not self.finished:
            what = "a second answer in the middle of the first"
            raise self._provider.invalid_response(self._head, what, json.dumps(raw), self.partial)
        return True

    def _chunk_of(self, choice: _Choice, part: dict[str, Any], raw: dict[str, Any], data: str) -> Chunk:
        """Add ``part``, the part of ``choice`` in an event, and return the chunk for it."""
        delta = choice.add(part)
        content = delta.get("content") or ""
        is_text = type(content) is str
        text = content if is_text else text_of(content)
        if choice.position == 0:
            text = self._add_text(text, data)
        reason = part.get("finish_reason") or None
        chunk = Chunk(text, raw, reason)
        if len(delta) > 1 or not content or not is_text:
            chunk.tool_calls = choice.add_tool_calls(delta)
            chunk.reasoning = reasoning_of(delta)
            chunk.refusal = refusal_of(delta)
            if delta.get("annotations") or "context" in delta or "citations" in delta:
                chunk.citations = citations_of({}, delta)
        if reason is not None:
            self._is_ending = True
            if not isinstance(reason, str):
                chunk.finish_reason = None
        return chunk

    def _chunk_of_several(self, parts: list[dict[str, Any]], raw: dict[str, Any], data: str) -> Chunk:
        """Add the parts of an event with no choice or several, and return the chunk for it."""
        if not self._has_alternatives:
            texts = [
                part for part in parts if (part.get("delta") or part.get("message") or {}).get("content")
            ]
            self._has_alternatives = len(texts) > 1
        chunks: dict[int, Chunk] = {}
        for part in parts:
            index = parse_index(part.get("index") or 0) if self._has_alternatives else 0
            choice = self._choices.get(index) or self._begin_choice(index, part)
            chunk = self._chunk_of(choice, part, raw, data)
            chunk.index = index
            if (earlier := chunks.setdefault(index, chunk)) is not chunk:
                earlier.text += chunk.text
                earlier.tool_calls += chunk.tool_calls
                earlier.finish_reason = chunk.finish_reason or earlier.finish_reason
        first = chunks.get(0) or Chunk("", raw)
        if chunks.keys() - {0}:
            return _with_choices(first, tuple(chunk for _, chunk in sorted(chunks.items())))
        return first

    def is_content(self, chunk: Chunk) -> bool:
        """See ``StreamReader.is_content``. Counts every field of every choice but the role."""
        if super().is_content(chunk):
            return True
        parts = as_list(chunk.raw.get("choices"))
        return any(part.get("finish_reason") for part in parts) or any(
            value for part in parts for name, value in (part.get("delta") or {}).items() if name != "role"
        )

    def _begin_choice(self, position: int, part: dict[str, Any]) -> _Choice:
        nulls = [name for name, value in part.items() if value is None and name not in _NOT_MERGED]
        index = parse_index(part.get("index") or 0)
        choice = self._choices[position] = _Choice(position, index, nulls)
        return choice


def _with_choices(first: Chunk, choices: tuple[Chunk, ...]) -> Chunk:
    """Return a chunk with all that ``first``, the chunk of the first choice, has, and with ``choices``."""
    return Chunk(
        first.text,
        first.raw,
        first.finish_reason,
        first.tool_calls,
        reasoning=first.reasoning,
        refusal=first.refusal,
        citations=first.citations,
        choices=choices,
    )


_NOT_MERGED = frozenset({"delta", "index", "message"})  # fields of a part that ``_Choice`` does not merge


class _Choice:
    """One choice of a streamed answer, built from its parts.

    ``position``  its position among the choices
    ``nulls``     the names of the fields that are null in its first part, such as "logprobs"

    ``to_dict`` returns the choice as it is in an answer without a stream.
    """

    __slots__ = ("_calls", "_fields", "_has_old_call", "_index", "_is_cumulative", "_message", "_nulls",
                 "position")  # fmt: skip

    def __init__(self, position: int, index: int, nulls: Iterable[str]) -> None:
        self.position = position
        self._index = index
        self._nulls = ("finish_reason", *nulls)
        self._fields: MergedObject | None = None  # of most choices only the last part has fields
        self._message = MergedObject(role="assistant", content=None)
        self._calls: ToolCallMerger | None = None
        self._has_old_call = False  # the tool call is in the older field "function_call"
        self._is_cumulative = False  # each "message" repeats the text before it

    @property
    def is_finished(self) -> bool:
        return self._fields is not None and bool(text_or_empty(self._fields.get("finish_reason")))

    def add(self, part: dict[str, Any]) -> dict[str, Any]:
        """Add ``part``, the choice's part of one event. Return the part's delta; {} if there is none.

        Tool calls are left to ``add_tool_calls``.
        """
        delta: dict[str, Any] = part.get("delta") or {}
        if not delta and "delta" not in part:
            delta = self._message_in_place_of_delta(part)
            if not delta and isinstance(part.get("text"), str):  # as older APIs have it
                part = {**part}
                delta = {"content": part.pop("text")}
        for name, value in part.items():
            if value is not None and name not in _NOT_MERGED:
                if self._fields is None:
                    self._fields = MergedObject()
                self._fields.add({name: value}, concatenate=False)
        if "tool_calls" in delta:
            self._message.add({name: value for name, value in delta.items() if name != "tool_calls"})
        else:
            self._message.add(delta)
        return delta

    def add_tool_calls(self, delta: dict[str, Any]) -> list[ToolCallPart]:
        """Add the parts of tool calls in ``delta``. Return what they add."""
        calls = as_list(delta.get("tool_calls"))
        if not calls and (function := delta.get("function_call")):
            calls, self._has_old_call = [{"function": function}], True
        if not calls:
            return []
        if self._calls is None:
            self._calls = ToolCallMerger()
        return [self._calls.add(call) for call in calls]

    def to_dict(self) -> dict[str, Any]:
        message = self._message.to_dict()
        if self._calls is not None and not self._has_old_call:
            message["tool_calls"] = self._calls.to_list()
        fields = self._fields.to_dict() if self._fields is not None else {}
        return {**dict.fromkeys(self._nulls), **fields, "index": self._index, "message": message}

    def _message_in_place_of_delta(self, part: dict[str, Any]) -> dict[str, Any]:
        """Return what the message of a part without a delta adds: it is a piece, or the whole message so far.

        Beside a delta, as Perplexity sends the message so far, it adds nothing.
        """
        message: dict[str, Any] = part.get("message") or {}
        if not message:
            return {}
        content: Any = message.get("content")
        repeated = self._message.repeated("content", content) if isinstance(content, str) else 0
        if repeated and (len(content) > repeated or part.get("finish_reason")):
            self._is_cumulative = True
        return {**message, "content": content[repeated:]} if repeated and self._is_cumulative else message
