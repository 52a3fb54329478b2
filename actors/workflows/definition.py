"""What a workflow is to whoever writes or starts it: an async function with a name and a typed input."""

import hashlib
import inspect
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from perdure.actors.kernel.payloads import Redaction, encode_payload
from perdure.actors.tools.signature import Signature
from perdure.store.errors import UsageError
from perdure.store.expected import checked_function

if TYPE_CHECKING:
    from perdure.actors.workflows.context import Context

P = ParamSpec("P")
R = TypeVar("R")


class Workflow(Generic[P, R]):
    """A function whose steps are recorded when the runtime runs it."""

    def __init__(self, function: "Callable[Concatenate[Context, P], Awaitable[R]]", name: str | None = None) -> None:
        self.function = function
        self.name = name or str(getattr(function, "__name__", "workflow"))
        if not inspect.iscoroutinefunction(function):
            raise UsageError(f"workflow {self.name} is not async: write `async def {self.name}(ctx: Context, …)`")
        if not inspect.signature(function).parameters:
            raise UsageError(f"workflow {self.name} takes no context: write `async def {self.name}(ctx: Context, …)`")
        self._signature = Signature(function, self.name, skip=1)
        self.result_decoder = self._signature.result_decoder
        self.description = inspect.getdoc(function) or ""
        self.takes_data = False
        """Whether its input is the data as one object, as that of a definition is."""
        self.timeout: timedelta | None = None
        """How long a run may take, unless whoever starts it allows less; definitions say so."""

    def __repr__(self) -> str:
        return f"<Workflow {self.name}>"

    def __call__(self, ctx: "Context", *args: P.args, **kwargs: P.kwargs) -> Awaitable[R]:
        """Call the function as a part of the run of *ctx*."""
        return self.function(ctx, *args, **kwargs)

    def encode_input(self, args: tuple[Any, ...], kwargs: dict[str, Any], redaction: Redaction) -> bytes:
        """Return the input as a JSON object, redacted and validated: equal input gives equal bytes.

        Raises:
            InvalidArgumentsError: it does not fit the parameters.
            UnencodableError, PayloadTooLargeError: it cannot be recorded.
        """
        given = self._signature.bind(args, kwargs)
        data = encode_payload(given, where=f"the input of {self.name}", redaction=redaction, stable=True)
        self._signature.check(data)
        return data

    def takes(self, *names: str) -> bool:
        """Return whether it can be started with arguments of these names, and of no others."""
        return self.takes_data or self._signature.takes(*names)

    def input_digest(self, data: bytes) -> str:
        """Return what tells one encoded input from another: where they are equal, a start is the same start."""
        return digest(self.name, data)

    def decode_input(self, data: Any) -> dict[str, Any]:
        """Return keyword arguments from their JSON.

        Raises:
            InvalidArgumentsError: they no longer fit the parameters.
        """
        return self._signature.decode(data)


def shorter(one: timedelta | None, other: timedelta | None) -> timedelta | None:
    """Return the shorter of two limits; None: there is none."""
    return min((limit for limit in (one, other) if limit is not None), default=None)


def digest(name: str, data: bytes) -> str:
    """Return what tells one call's arguments from another's: 128 bits over the name and the JSON."""
    return hashlib.blake2b(data, digest_size=16, key=name.encode()[:64]).hexdigest()


class _Named:
    """`@workflow(name=…)`, waiting for the function."""

    def __init__(self, name: str | None) -> None:
        self._name = name

    def __call__(self, function: "Callable[Concatenate[Context, P], Awaitable[R]]", /) -> Workflow[P, R]:
        return Workflow(function, self._name)


@overload
def workflow(function: "Callable[Concatenate[Context, P], Awaitable[R]]", /) -> Workflow[P, R]: ...
@overload
def workflow(
    *, name: str | None = None
) -> "Callable[[Callable[Concatenate[Context, P], Awaitable[R]]], Workflow[P, R]]": ...
@checked_function
def workflow(function: Any = None, /, *, name: str | None = None) -> Any:
    """Make an async function a workflow; its first parameter is the `Context`.

    Everything that the function learns from outside must come through the context, which records it; the function
    itself may run again at any time from its beginning, with the recorded results.

    Args:
        function: the function; given when the decorator is used without options.
        name: how it is called in the log, for ever. The function's name if left out.

    Raises:
        UsageError: it is not async, takes no context, or has a type hint that cannot be read.
    """
    if function is None:
        return _Named(name)
    return Workflow(function, name)


def check_workflow(workflow: object) -> None:
    """Check that what is to be run is a workflow.

    Raises:
        UsageError: it is not.
    """
    if not isinstance(workflow, Workflow):
        raise UsageError(f"{workflow!r} is not a workflow: decorate an async function with @workflow")
