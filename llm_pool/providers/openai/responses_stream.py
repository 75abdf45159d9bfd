"""The streams of the Responses API: https://platform.openai.com/docs/api-reference/responses-streaming"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llm_pool.exceptions import LLMPoolError
from llm_pool.providers.errors import SHAPE_ERRORS
from llm_pool.providers.event_stream import EventStreamReader
from llm_pool.providers.openai.message import citations_of
from llm_pool.providers.openai.responses_items import (
    ARGUMENTS_OF,
    FAILED,
    failure_of,
    finish_reason_of,
    reasoning_of,
    refusal_of,
    response_citations,
    text_of,
    tool_call_of,
    tool_calls_of,
)
from llm_pool.providers.openai.streamed_output import TEXTS, StreamedItem, StreamedOutput, StreamedPart, Text
from llm_pool.providers.openai.tool_calls import as_text
from llm_pool.providers.results import Chunk, ToolCallPart
from llm_pool.providers.sse import UNFRAMED

if TYPE_CHECKING:
    from llm_pool.exceptions import APIError
    from llm_pool.providers.head import Head
    from llm_pool.providers.json_provider import JSONProvider
    from llm_pool.providers.results import Completion, Timing

__all__ = ["ResponsesStreamReader"]

_OF_PARTS = {text.kind: text for text in TEXTS if text.field}
_OF_PARTS["text"] = _OUTPUT_TEXT = _OF_PARTS["output_text"]
_DELTAS: dict[Any, Text] = {f"response.{text.event}.delta": text for text in TEXTS}
_DELTAS["response.content_part.delta"] = _OUTPUT_TEXT  # OpenRouter documents it
_DONES = {f"response.{text.event}.done": text for text in TEXTS}
_FINAL = frozenset({"cancelled", "completed", "failed", "incomplete"})  # statuses
_ENDS = {f"response.{status}": status for status in _FINAL}
_ENDS["response.done"] = "completed"  # OpenRouter documents it
_CONTENT = frozenset({"response.image_generation_call.partial_image", "response.output_item.done"})


class ResponsesStreamReader(EventStreamReader):
    """Reads events up to ``response.completed`` or ``response.incomplete``, whose response is the answer.

    Some servers send it there without its output, or with less than the deltas have brought: then the output
    is merged from the events. Others leave out the deltas: then the event that ends a text, an item or the
    response makes a chunk with the whole. An event of an unknown type becomes a chunk without text.
    """

    def __init__(self, provider: JSONProvider, head: Head) -> None:
        super().__init__(provider, head)
        self._response: dict[str, Any] = {}
        self._output = StreamedOutput()
        self._brought: set[str] = set()  # the attributes, besides text and tool calls, that a chunk has had
        self._unexplained: APIError | None = None  # the response has failed, and its event does not say why

    def completion(self, timing: Timing | None = None) -> Completion:
        """See ``StreamReader.completion``."""
        if self._failure is None and self._unexplained is not None:
            raise self._unexplained
        return super().completion(timing)

    def _merged_answer(self) -> dict[str, Any]:
        return {**self._response, "output": self._output.merged(self._response.get("output"))}

    def _read_done(self) -> None:
        """Some servers add "[DONE]" after the last event. Before it, the answer is cut: nothing follows."""
        raise self.interruption('"[DONE]" arrived before the provider marked the answer as complete')

    def _chunk_from(self, raw: dict[str, Any], kind: str, data: str) -> Chunk | None:
        stated: Any = raw.get("type")
        if stated is None:
            stated = raw.get("object") if kind in ("message", UNFRAMED) else kind
        if (text := _DELTAS.get(stated)) is not None:
            return self._add_piece(text, raw, raw.get("delta") or "", data)
        read = _READERS.get(stated)
        if read is not None:
            return read(self, raw, stated, data)
        return None if self._is_ignored(raw, kind) else Chunk("", raw)

    def _raise_error_in(self, raw: Any, kind: str) -> None:
        try:
            super()._raise_error_in(raw, kind)
        except LLMPoolError:
            if self._unexplained is not None:
                self.is_complete = False  # otherwise an error after the end would not matter
            raise

    def is_content(self, chunk: Chunk) -> bool:
        """See ``StreamReader.is_content``. Counts each delta and the end of each item, but not its start.

        The start of a reasoning comes at once, and a long silence can follow it.
        """
        raw = chunk.raw
        return bool(super().is_content(chunk) or raw.get("delta") or raw.get("type") in _CONTENT)

    # The response.

    def _begin_response(self, raw: dict[str, Any], kind: str, _data: str) -> Chunk:
        if self._output.items and kind == "response.created":
            # Some gateways ask again when a provider fails.
            what = "a second answer in the middle of the first"
            raise self._provider.invalid_response(self._head, what, "", self.partial)
        self._response = {**self._response, **(raw.get("response") or {})}
        return Chunk("", raw)

    def _read_whole_response(self, raw: dict[str, Any], _kind: str, data: str) -> Chunk:
        """Read an answer without a stream, which a server sends although a stream was asked for."""
        if "output" not in raw:
            raise KeyError("output")
        self._response = raw
        return self._end(raw, data)

    def _end_response(self, raw: dict[str, Any], kind: str, data: str) -> Chunk:
        self._response = {**self._response, **(raw.get("response") or {})}
        status = _ENDS[kind]
        if status in FAILED or self._response.get("status") not in _FINAL:
            self._response["status"] = status
        return self._end(raw, data)

    def _end(self, raw: dict[str, Any], data: str) -> Chunk:
        """End the answer with the event ``raw``. Return a chunk with what was in no chunk before."""
        response = self._response
        if response.get("status") in FAILED:
            error = self._provider.error_from_object(self._head, failure_of(response), self.partial)
            if response.get("error"):
                raise error
            self._unexplained, self.is_complete = error, True  # Azure explains it in the next event
            return Chunk("", raw)
        chunk = Chunk("", raw, finish_reason_of(response))
        chunk.usage = self._provider.usage_from(response.get("usage"))
        try:
            self._add_rest_of_response(chunk, data)
        except SHAPE_ERRORS:
            what = "events that do not form an answer"
        else:
            self.is_complete = self.finished = True
            return chunk
        # Without the event: its response repeats the instructions of the request.
        raise self._provider.invalid_response(self._head, what, "", self.partial)

    def _add_rest_of_response(self, chunk: Chunk, data: str) -> None:
        """Add to ``chunk`` what the output in the last event has more than the events before."""
        items = self._response.get("output") or []
        pairs = zip(self._output.complete(items), items, strict=True)
        self._bring(
            chunk,
            [self._rest_of(item, whole) for item, whole in pairs if item is not None and not item.is_done],
            data,
        )
        if not self._texts:
            chunk.text = self._add_text(text_of(items), data)
        if "reasoning" not in self._brought:
            chunk.reasoning = reasoning_of(items)
        if "refusal" not in self._brought:
            chunk.refusal = refusal_of(items)
        if "citations" not in self._brought:
            chunk.citations = response_citations(self._response, items)
        chunk.tool_calls += [
            ToolCallPart(number, call.id, call.name, call.arguments)
            for number, call in enumerate(tool_calls_of(items))
            if number >= self._output.calls
        ]

    # Its items.

    def _begin_item(self, raw: dict[str, Any], _kind: str, _data: str) -> Chunk:
        start = raw.get("item")
        if not start:
            return Chunk("", raw)
        return Chunk("", raw, tool_calls=_call_parts(self._output.begin(start, raw), start, ""))

    def _end_item(self, raw: dict[str, Any], _kind: str, data: str) -> Chunk:
        whole, chunk = raw.get("item"), Chunk("", raw)
        if not whole:
            return chunk
        item = self._output.find(whole, raw.get("output_index"))
        if item is None or (item.is_done and not item.is_repeated_by(whole)):  # ids and indexes repeat
            item = self._output.begin(whole, raw)
        if not item.is_done:
            self._bring(chunk, [self._rest_of(item, whole)], data)
        item.end(whole)
        return chunk

    def _rest_of(self, item: StreamedItem, whole: dict[str, Any]) -> Chunk:
        """Return a chunk with what ``whole``, an item as its end has it, has more than the events before."""
        rest = Chunk("" if item.has("output_text") else text_of([whole]), whole)
        if item.reasoning is None and (reasoning := reasoning_of([whole])):
            rest.reasoning = f"\n\n{reasoning}" if "reasoning" in self._brought else reasoning
            self._brought.add("reasoning")
        if not item.has("refusal") and (refusal := refusal_of([whole])):
            rest.refusal = refusal
            self._brought.add("refusal")
        if not item.has_citations and (citations := response_citations({}, [whole])):
            rest.citations = citations
            self._brought.add("citations")
        kind: Any = whole.get("type")
        if (name := ARGUMENTS_OF.get(kind)) is not None:
            arguments = "" if item.has(name) else as_text(whole.get(name))
            rest.tool_calls = _call_parts(item, whole, arguments)
        return rest

    def _bring(self, chunk: Chunk, rests: list[Chunk], data: str) -> None:
        """Add to ``chunk``, that of an event with ``data``, what the rests of its items have."""
        chunk.text = self._add_text("".join([rest.text for rest in rests]), data)
        chunk.reasoning = "".join([rest.reasoning for rest in rests])
        chunk.refusal = "".join([rest.refusal for rest in rests])
        chunk.citations = tuple(citation for rest in rests for citation in rest.citations)
        chunk.tool_calls = [part for rest in rests for part in rest.tool_calls]

    # Their texts.

    def _add_piece(self, text: Text, raw: dict[str, Any], piece: Any, data: str) -> Chunk:
        item = self._output.item_of(raw, text.item)
        return self._add_to(item, item.part(text, raw.get(text.position)), raw, piece, data)

    def _add_to(
        self, item: StreamedItem, part: StreamedPart, raw: dict[str, Any], piece: Any, data: str
    ) -> Chunk:
        text = part.text
        if type(piece) is not str:
            piece = _text_in(piece, text)
        if text.kind == "output_text":
            chunk = Chunk(self._add_text(piece, data), raw)
            if logprobs := raw.get("logprobs"):
                part.logprobs += logprobs
        else:
            chunk = Chunk("", raw)
            if type(piece) is not str:
                raise TypeError("the piece of a text is not a str")
            if text.item == "reasoning":
                chunk.reasoning = self._add_reasoning(item, part, piece)
            elif text.kind == "refusal":
                chunk.refusal = piece
                self._brought.add("refusal")
            elif item.call is not None:
                chunk.tool_calls = [ToolCallPart(item.call, arguments=piece)]
        if piece:
            part.pieces.append(piece)
        return chunk

    def _add_reasoning(self, item: StreamedItem, part: StreamedPart, piece: str) -> str:
        """Return what a piece adds to the reasoning, in which each part is a paragraph.

        If a server sends both a summary and the reasoning itself, what comes first counts.
        """
        if not piece or item.reasoning not in (None, part.text.kind):
            return ""
        item.reasoning = part.text.kind
        begins = not part.pieces and "reasoning" in self._brought
        self._brought.add("reasoning")
        return f"\n\n{piece}" if begins else piece

    def _end_text(self, raw: dict[str, Any], kind: str, data: str) -> Chunk:
        text = _DONES[kind]
        return self._add_whole(text, raw, raw.get(text.name), data)

    def _begin_part(self, raw: dict[str, Any], _kind: str, _data: str) -> Chunk:
        part: Any = raw.get("part") or {}
        if (text := _OF_PARTS.get(part.get("type"))) is not None:
            self._output.item_of(raw, text.item).begin_part(text, raw.get(text.position), part)
        return Chunk("", raw)

    def _end_part(self, raw: dict[str, Any], _kind: str, data: str) -> Chunk:
        whole: Any = raw.get("part") or {}
        text = _OF_PARTS.get(whole.get("type"))
        if text is None:
            return Chunk("", raw)
        return self._add_whole(text, raw, whole.get(text.name), data, whole)

    def _add_whole(
        self, text: Text, raw: dict[str, Any], whole: Any, data: str, end: dict[str, Any] | None = None
    ) -> Chunk:
        """End a text, and add it unless pieces of it have come. ``end`` is its part as the event has it."""
        item = self._output.item_of(raw, text.item)
        part = item.part(text, raw.get(text.position), whole)
        part.raw = end or part.raw
        part.end = part.end if whole is None else whole
        if part.pieces or not whole:
            return Chunk("", raw)
        return self._add_to(item, part, raw, as_text(whole), data)

    def _add_annotation(self, raw: dict[str, Any], _kind: str, _data: str) -> Chunk:
        chunk = Chunk("", raw)
        if annotation := raw.get("annotation"):
            item = self._output.item_of(raw, "message")
            item.add_annotation(_OUTPUT_TEXT, raw.get("content_index"), annotation)
            self._brought.add("citations")
            chunk.citations = citations_of({}, {"annotations": [annotation]})
        return chunk


def _text_in(delta: Any, text: Text) -> Any:
    """Return the text in a delta that is not a str: some servers send an object with the text."""
    if not isinstance(delta, dict):
        return delta
    return delta.get("text") if text.field else as_text(delta)


def _call_parts(item: StreamedItem, raw: dict[str, Any], arguments: str) -> list[ToolCallPart]:
    """Return what ``raw``, an item as an event has it, adds to its tool call. ``arguments`` are new."""
    if item.call is None:
        return []
    call = tool_call_of(raw)
    identifier, name = ("", "") if item.is_named else (call.id, call.name)
    item.is_named = item.is_named or bool(name)
    return [ToolCallPart(item.call, identifier, name, arguments)] if identifier or name or arguments else []


_READERS: dict[Any, Callable[[ResponsesStreamReader, dict[str, Any], str, str], Chunk]] = {
    "response": ResponsesStreamReader._read_whole_response,
    "response.content_part.added": ResponsesStreamReader._begin_part,
    "response.content_part.done": ResponsesStreamReader._end_part,
    "response.created": ResponsesStreamReader._begin_response,
    "response.in_progress": ResponsesStreamReader._begin_response,
    "response.output_item.added": ResponsesStreamReader._begin_item,
    "response.output_item.done": ResponsesStreamReader._end_item,
    "response.output_text.annotation.added": ResponsesStreamReader._add_annotation,
    "response.queued": ResponsesStreamReader._begin_response,
    "response.reasoning_part.added": ResponsesStreamReader._begin_part,  # vLLM's
    "response.reasoning_part.done": ResponsesStreamReader._end_part,
    "response.reasoning_summary_part.added": ResponsesStreamReader._begin_part,
    "response.reasoning_summary_part.done": ResponsesStreamReader._end_part,
    **dict.fromkeys(_DONES, ResponsesStreamReader._end_text),
    **dict.fromkeys(_ENDS, ResponsesStreamReader._end_response),
}
