"""What a tool is to whoever writes or calls it: a function with a schema, an effect class and policies.

`@tool` (`decorator.py`) leaves the function callable as it was; only the runtime records calls.
"""

import inspect
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from hashlib import blake2b
from typing import Any, Generic, Literal, ParamSpec, TypeAlias, TypeVar

import msgspec

from perdure.actors.kernel.payloads import Redaction, encode_payload
from perdure.actors.tools.breaker import BreakerPolicy
from perdure.actors.tools.context import ToolContext
from perdure.actors.tools.limits import RateLimit
from perdure.actors.tools.retry import Retry
from perdure.actors.tools.signature import Signature
from perdure.actors.tools.tool import Guard
from perdure.store.errors import UsageError
from perdure.store.records import StreamId, stream_id

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)

EffectClass: TypeAlias = Literal["read", "idempotent", "irreversible"]
"""What a crash means for a call whose outcome is not known: run again, run again with the same key, ask."""

NAME = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
"""What a tool may be called: it becomes a part of a stream's name, before an `@`."""

Scope: TypeAlias = Literal["global", "conversation"]
"""Whether all callers share a tool's circuit and rate limit, or each conversation has its own."""

QUEUE = 1_000
"""Calls that may wait for a place where the concurrency is bounded; more are refused."""

CONVERSATION_LENGTH = 60
"""Characters of a conversation's id that stand in a stream's name as they are."""

EFFECTS: tuple[EffectClass, ...] = ("read", "idempotent", "irreversible")


class Done(msgspec.Struct, frozen=True):
    """A reconciliation's answer: the call happened, and this was its result."""

    result: Any = None


class NotDone(msgspec.Struct, frozen=True):
    """A reconciliation's answer: the call did not happen; it is safe to make it."""


Reconcile: TypeAlias = Callable[[str], Awaitable[Done | NotDone]]
"""Given the idempotency key of a call, finds out whether it happened."""


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """When a tool can be offered, and what it is good for."""

    toolset: str | None = None
    check: Callable[[], object] | None = None
    """Truthy when the tool can be used now."""
    requires_env: tuple[str, ...] = ()
    """Environment variables without which it cannot."""
    tags: frozenset[str] = frozenset()
    capabilities: frozenset[str] = frozenset()
    external: bool = False
    """Whether calls of trajectories go to the tool server; the function then only gives the schema."""


EVERYWHERE = Offer()


class Tool(Generic[P, R_co]):
    """A function that the runtime may call, record and protect."""

    def __init__(  # noqa: PLR0913 - the options of a decorator, all by keyword
        self,
        function: Callable[P, Any],
        *,
        name: str | None,
        effect: EffectClass,
        breaker: BreakerPolicy,
        retry: Retry,
        timeout: timedelta | None,
        reconcile: Reconcile | None,
        rate: RateLimit | None = None,
        concurrency: int | None = None,
        queue: int = QUEUE,
        scope: Scope = "global",
        fallback: "Tool[..., Any] | None" = None,
        offer: Offer = EVERYWHERE,
    ) -> None:
        self.function = function
        self.name = name or str(getattr(function, "__name__", ""))
        self.effect: EffectClass = effect
        self.breaker = breaker
        self.retry = retry
        self.timeout = timeout
        self.reconcile = reconcile
        self.guard = Guard(breaker, rate)
        self.concurrency = concurrency
        self.queue = queue
        self.scope: Scope = scope
        self.fallback = fallback
        self.offer = offer
        self.description = inspect.getdoc(function) or ""
        self.is_async = inspect.iscoroutinefunction(function)
        self._check()
        self._stream = stream_id(f"tool/{self.name}")
        signature = Signature(function, self.name)
        self._signature = signature
        self.result_decoder = signature.result_decoder
        self.declares_none = signature.declares_none
        self.declares_bytes = signature.declares_bytes

    def __repr__(self) -> str:
        return f"<Tool {self.name}>"

    def _check(self) -> None:
        if not self.name:
            raise UsageError(f"a tool is made of a function or a method: wrap {self.function!r} in one")
        if not NAME.fullmatch(self.name):
            raise UsageError(f"a tool's name is 1 to 128 letters, digits and the characters _ . : -, not {self.name!r}")
        if self.effect not in EFFECTS:
            raise UsageError(f'effect of {self.name} is "read", "idempotent" or "irreversible", not {self.effect!r}')
        if self.timeout is not None and self.timeout <= timedelta(0):
            raise UsageError(f"the timeout of {self.name} is more than 0 seconds, or left out")
        if self.reconcile is not None and self.effect != "irreversible":
            raise UsageError(f'{self.name} has a reconcile, which only effect="irreversible" makes use of')
        if self.scope not in ("global", "conversation"):
            raise UsageError(f'scope of {self.name} is "global" or "conversation", not {self.scope!r}')
        if (self.concurrency is not None and self.concurrency < 1) or self.queue < 0:
            raise UsageError(f"concurrency of {self.name} is at least 1, and queue not negative")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Call the function itself: nothing is recorded or protected."""
        return self.function(*args, **kwargs)

    @property
    def toolset(self) -> str | None:
        """The group that it belongs to."""
        return self.offer.toolset

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the parameters that a caller gives."""
        return self._signature.names

    @property
    def mcp_schema(self) -> dict[str, Any]:
        """The tool as the Model Context Protocol lists it; its hints follow from the effect class."""
        hints = {
            "readOnlyHint": self.effect == "read",
            "idempotentHint": self.effect != "irreversible",
            "destructiveHint": self.effect == "irreversible",
        }
        schema = self._signature.json_schema()
        return {"name": self.name, "description": self.description, "inputSchema": schema, "annotations": hints}

    def stream(self, conversation: str | None) -> StreamId:
        """Return the stream of the actor that guards a call made in *conversation*."""
        if self.scope == "global" or conversation is None:
            return self._stream
        if len(conversation) > CONVERSATION_LENGTH:  # a run's id, which may be longer than a stream's name has room for
            conversation = blake2b(conversation.encode(), digest_size=16).hexdigest()
        return stream_id(f"tool/{self.name}@{conversation}")

    @property
    def schema(self) -> dict[str, Any]:
        """The tool in the OpenAI function form."""
        parameters = self._signature.json_schema()
        function = {"name": self.name, "description": self.description, "parameters": parameters}
        return {"type": "function", "function": function}

    def encode_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any], redaction: Redaction) -> bytes:
        """Return the arguments as a JSON object, redacted and validated: equal arguments give equal bytes.

        Raises:
            InvalidArgumentsError: they do not fit the parameters.
            UnencodableError, PayloadTooLargeError: they cannot be recorded.
        """
        data = encode_payload(
            self._signature.bind(args, kwargs), where=f"{self.name}()", redaction=redaction, stable=True
        )
        self._signature.check(data)
        return data

    def check_arguments(self, data: bytes) -> None:
        """Check that arguments that were encoded for another tool fit this one.

        Raises:
            InvalidArgumentsError: they do not.
        """
        self._signature.check(data)

    def decode_arguments(self, data: bytes | msgspec.Raw, context: ToolContext) -> dict[str, Any]:
        """Return keyword arguments from their JSON.

        Raises:
            InvalidArgumentsError: they no longer fit the parameters.
        """
        given = self._signature.decode(data)
        if self._signature.context_name is not None:
            given[self._signature.context_name] = context
        return given
