"""What a tool is to whoever writes or calls it: a function with a schema, an effect class and policies.

`@tool` leaves the function callable as it was; only the runtime records calls.
"""

import inspect
import re
import typing
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from hashlib import blake2b
from typing import Any, Concatenate, Generic, Literal, ParamSpec, TypeAlias, TypeVar, overload

import msgspec

from perdure.actors.kernel.payloads import PayloadDecoder, Redaction, encode_payload, payload_decoder
from perdure.actors.tools.breaker import BreakerPolicy
from perdure.actors.tools.errors import InvalidArgumentsError
from perdure.actors.tools.limits import RateLimit
from perdure.actors.tools.retry import NO_RETRY, Retry
from perdure.actors.tools.tool import Guard
from perdure.store.errors import StoreError, UsageError
from perdure.store.records import StreamId, stream_id

P = ParamSpec("P")
R = TypeVar("R")

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


class ToolContext(msgspec.Struct, frozen=True):
    """What a tool may know of the call: declare a parameter of this type to get it. Never part of the schema.

    As the first parameter it is no part of the call's type either, so that a checker knows what is left to give.
    """

    call_id: str
    tool: str
    idempotency_key: str
    """The same for every attempt of one call, before and after a crash."""
    attempt: int
    run_id: str | None = None


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """When a tool can be offered, and what it is good for."""

    toolset: str | None = None
    check: Callable[[], object] | None = None
    """Truthy when the tool can be used now."""
    requires_env: tuple[str, ...] = ()
    """Environment variables without which it cannot."""
    tags: frozenset[str] = frozenset()
    capabilities: frozenset[str] = frozenset()


EVERYWHERE = Offer()


class Tool(Generic[P, R]):
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
        self.name = name or function.__name__
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
        signature = Signature(function, self.name)
        self._signature = signature
        self.result_decoder = signature.result_decoder
        self.declares_none = signature.declares_none
        self.declares_bytes = signature.declares_bytes

    def __repr__(self) -> str:
        return f"<Tool {self.name}>"

    def _check(self) -> None:
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
            return stream_id(f"tool/{self.name}")
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


class Signature:
    """The parameters of a function as a msgspec type: binds, validates, describes."""

    def __init__(self, function: Callable[..., Any], name: str, *, skip: int = 0) -> None:
        """Read the type hints of *function*, passing over its first *skip* parameters.

        Raises:
            UsageError: a hint cannot be read, or a parameter has no name.
        """
        self._name = name
        hints = _hints(function, name)
        self.context_name: str | None = None
        self._names: list[str] = []
        self._optional: list[str] = []
        fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
        for parameter in list(inspect.signature(function).parameters.values())[skip:]:
            hint = hints.get(parameter.name, Any)
            if hint is ToolContext:
                self.context_name = parameter.name
            else:
                fields.append(_field(parameter, hint, name))
                self._names.append(parameter.name)
                if parameter.default is not inspect.Parameter.empty:
                    self._optional.append(parameter.name)
        self._struct = msgspec.defstruct(f"{name}_arguments", fields, kw_only=True, forbid_unknown_fields=True)
        self._decoder = payload_decoder(self._struct, f"a parameter of {name}")
        declared = hints.get("return", Any)
        self.result_decoder: PayloadDecoder[Any] = payload_decoder(declared, f"the result of {name}")
        self.declares_none = "return" in hints and _admits(declared, type(None))
        self.declares_bytes = _admits(declared, bytes) or _admits(declared, bytearray)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments by name.

        Raises:
            InvalidArgumentsError: too many, or one given twice.
        """
        if not args:
            return kwargs
        if len(args) > len(self._names):
            reason = f"it takes {len(self._names)} arguments, {len(args)} were given"
            raise InvalidArgumentsError(detail="", tool=self._name, reason=reason)
        given = dict(zip(self._names, args, strict=False))
        if not kwargs:
            return given
        if twice := given.keys() & kwargs.keys():
            raise InvalidArgumentsError(detail="", tool=self._name, reason=f"{min(twice)!r} is given twice")
        return {**given, **kwargs}

    def decode(self, data: bytes | msgspec.Raw) -> dict[str, Any]:
        """Return the arguments by name from JSON; those left out stay out, so that the function's defaults apply.

        Raises:
            InvalidArgumentsError: they do not fit.
        """
        given = msgspec.structs.asdict(self._decode(data))
        for name in self._optional:
            if given[name] is msgspec.UNSET:
                del given[name]
        return given

    def check(self, data: bytes) -> None:
        """Check that arguments in JSON fit.

        Raises:
            InvalidArgumentsError: they do not.
        """
        self._decode(data)

    def _decode(self, data: bytes | msgspec.Raw) -> msgspec.Struct:
        try:
            given: msgspec.Struct = self._decoder.decode(data, self._name)
        except StoreError as error:
            reason = str(error.__cause__ or error)
            raise InvalidArgumentsError(detail="", tool=self._name, reason=reason) from error
        return given

    def json_schema(self) -> dict[str, Any]:
        """Return the parameters as a JSON schema object."""
        (schema,), components = msgspec.json.schema_components([self._struct], ref_template="#/$defs/{name}")
        root = dict(components.pop(self._struct.__name__)) if "$ref" in schema else dict(schema)
        root.pop("title", None)
        root.setdefault("properties", {})
        root.setdefault("required", [])
        return {**root, "$defs": components} if components else root


def _hints(function: Callable[..., Any], name: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as error:
        detail = f"the type hints of {name} cannot be read ({error}): use names that the module defines"
        raise UsageError(detail) from error


def _field(parameter: inspect.Parameter, hint: Any, name: str) -> tuple[str, Any] | tuple[str, Any, Any]:
    if parameter.kind not in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY):
        raise UsageError(f"{name} has the parameter {parameter}: name every parameter, so that a call can be recorded")
    if parameter.default is inspect.Parameter.empty:
        return parameter.name, hint
    return parameter.name, hint | msgspec.UnsetType, msgspec.UNSET


def _admits(hint: Any, kind: type) -> bool:
    return hint is kind or (hint is None and kind is type(None)) or kind in typing.get_args(hint)


# A ToolContext in the first place is filled in by the runtime: callers and checkers do not see it.
@overload
def tool(function: Callable[Concatenate[ToolContext, P], Awaitable[R]], /) -> Tool[P, R]: ...
@overload
def tool(function: Callable[Concatenate[ToolContext, P], R], /) -> Tool[P, R]: ...
@overload
def tool(function: Callable[P, Awaitable[R]], /) -> Tool[P, R]: ...
@overload
def tool(function: Callable[P, R], /) -> Tool[P, R]: ...
@overload
def tool(
    *,
    name: str | None = None,
    effect: EffectClass = "idempotent",
    failure_threshold: int = 3,
    reset_timeout: float = 300,
    breaker: BreakerPolicy | None = None,
    retry: Retry | None = None,
    timeout: float | None = None,
    reconcile: Reconcile | None = None,
    rate: RateLimit | None = None,
    concurrency: int | None = None,
    queue: int = QUEUE,
    scope: Scope = "global",
    fallback: "Tool[..., Any] | None" = None,
    toolset: str | None = None,
    check: Callable[[], object] | None = None,
    requires_env: Iterable[str] = (),
    tags: Iterable[str] = (),
    capabilities: Iterable[str] = (),
) -> "ToolDecorator": ...
def tool(  # noqa: PLR0913 - the options of a decorator, all by keyword
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    effect: EffectClass = "idempotent",
    failure_threshold: int = 3,
    reset_timeout: float = 300,
    breaker: BreakerPolicy | None = None,
    retry: Retry | None = None,
    timeout: float | None = None,
    reconcile: Reconcile | None = None,
    rate: RateLimit | None = None,
    concurrency: int | None = None,
    queue: int = QUEUE,
    scope: Scope = "global",
    fallback: "Tool[..., Any] | None" = None,
    toolset: str | None = None,
    check: Callable[[], object] | None = None,
    requires_env: Iterable[str] = (),
    tags: Iterable[str] = (),
    capabilities: Iterable[str] = (),
) -> Any:
    """Make a function a tool; async functions run on the loop, others on worker threads.

    Parameters and result need type hints that msgspec can read: arguments are validated against them, and the result
    that a workflow sees is read back from JSON, live as replayed.

    Args:
        function: the function; given when the decorator is used without options.
        name: how it is called in the log; for ever. The function's name if left out.
        effect: what a crash means for a call without an outcome.
        failure_threshold: failures in a row that open the circuit.
        reset_timeout: seconds that the circuit stays open.
        retry: how failed attempts are tried again, unless a call says otherwise; None: not at all.
        timeout: seconds that one attempt may take.
        breaker: the whole policy of the circuit breaker, in place of the two above.
        reconcile: for `irreversible`: given the idempotency key of a call, finds out whether it happened.
        rate: how many calls may start in a while; a call over it waits for its token.
        concurrency: how many calls may run at the same time.
        queue: how many more may wait for a place; further ones are refused.
        scope: whether each conversation has a circuit and a rate limit of its own.
        fallback: a tool with the same parameters, called where this one failed for good or its circuit is open.
        toolset: the group that it belongs to.
        check: truthy when the tool can be offered now.
        requires_env: environment variables without which it is not offered.
        tags: words to find it by.
        capabilities: what it can do, for those who choose among tools.

    Raises:
        UsageError: an option makes no sense, or a type hint cannot be read.
    """
    decorator = ToolDecorator(
        name=name,
        effect=effect,
        breaker=breaker or BreakerPolicy(failure_threshold, timedelta(seconds=reset_timeout)),
        retry=retry or NO_RETRY,
        timeout=None if timeout is None else timedelta(seconds=timeout),
        reconcile=reconcile,
        rate=rate,
        concurrency=concurrency,
        queue=queue,
        scope=scope,
        fallback=fallback,
        offer=Offer(
            toolset=toolset,
            check=check,
            requires_env=tuple(requires_env),
            tags=frozenset(tags),
            capabilities=frozenset(capabilities),
        ),
    )
    return decorator if function is None else decorator(function)


class ToolDecorator:
    """`@tool(…)` with its options, waiting for the function."""

    def __init__(self, **options: Any) -> None:
        self._options = options

    @overload
    def __call__(self, function: Callable[Concatenate[ToolContext, P], Awaitable[R]], /) -> Tool[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[ToolContext, P], R], /) -> Tool[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, Awaitable[R]], /) -> Tool[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Tool[P, R]: ...
    def __call__(self, function: Callable[..., Any], /) -> Any:
        """Return the tool."""
        made: Tool[..., Any] = Tool(function, **self._options)
        return made
