"""The public types, for annotations and ``isinstance``. Import them from this module.

Calls (``pools["default"]``, ``complete``, ``stream``):

``LLMPool``                one alias of ``settings.LLM_POOL``
``PoolSettings``           the settings of a pool, with all defaults filled in
``Messages``               what ``complete`` and ``stream`` take: a ``str``, or a list of dicts
``Completion``             a whole answer
``CompletionStream``       an answer that arrives chunk by chunk, for sync code
``AsyncCompletionStream``  an answer that arrives chunk by chunk, for async code
``Chunk``                  a piece of a stream
``EmbeddingInput``         a text that ``embed`` takes: a ``str``, or a list of tokens
``Embeddings``             the vectors of texts
``Choice``                 one of several answers to a call
``ToolCall``               a call of a tool that the model asks for
``ToolCallPart``           a piece of such a call, in a stream
``Citation``               a source that an answer cites
``Usage``                  the tokens of an answer
``RateLimit``              the provider's limits
``RateLimitWindow``        one of these limits
``Timing``                 the durations of the parts of a call

Records (``llm_pool.observe``, ``request.llm_pool``):

``CallRecord``             a call that has ended
``RequestCalls``           the calls of one Django request

State of a pool (``stats``):

``PoolStats``              gauges and counters
``Spread``                 a histogram of durations
``ConnectionInfo``         one connection
``Origin``                 scheme, host and port

Checks of a pool (``check``, ``acheck``):

``CheckReport``            all steps of a check
``Step``                   one step
``Finding``                one result of a step
``Level``                  the severity of a finding
``Verdict``                the result for a whole pool

Providers of your own (``PROVIDER``):

``Provider``               the base class
``StreamReader``           the base class of a reader of streamed answers
``CompletionRequest``      the path and the body of a call to a model
``Head``                   status and headers of an answer
"""

from __future__ import annotations

from llm_pool.calling.pool import LLMPool
from llm_pool.calling.record import CallRecord, RequestCalls
from llm_pool.calling.stream import AsyncCompletionStream, CompletionStream
from llm_pool.conf.settings import PoolSettings
from llm_pool.diagnostics import CheckReport, Finding, Level, Step, Verdict
from llm_pool.engine.config import Origin
from llm_pool.engine.stats.histogram import Spread
from llm_pool.engine.stats.inventory import ConnectionInfo
from llm_pool.engine.stats.stats import PoolStats
from llm_pool.providers.base import CompletionRequest, EmbeddingInput, Head, Messages, Provider, StreamReader
from llm_pool.providers.rate_limits import RateLimit, RateLimitWindow
from llm_pool.providers.results import (
    Choice,
    Chunk,
    Citation,
    Completion,
    Embeddings,
    Timing,
    ToolCall,
    ToolCallPart,
)
from llm_pool.providers.usage import Usage

__all__ = [
    "AsyncCompletionStream",
    "CallRecord",
    "CheckReport",
    "Choice",
    "Chunk",
    "Citation",
    "Completion",
    "CompletionRequest",
    "CompletionStream",
    "ConnectionInfo",
    "EmbeddingInput",
    "Embeddings",
    "Finding",
    "Head",
    "LLMPool",
    "Level",
    "Messages",
    "Origin",
    "PoolSettings",
    "PoolStats",
    "Provider",
    "RateLimit",
    "RateLimitWindow",
    "RequestCalls",
    "Spread",
    "Step",
    "StreamReader",
    "Timing",
    "ToolCall",
    "ToolCallPart",
    "Usage",
    "Verdict",
]
