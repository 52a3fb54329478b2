"""The facts about the calls of a tool; those about its circuit are in `breaker.py`, its tokens in `limits.py`."""

import msgspec

from perdure.actors.kernel.messages import Event
from perdure.actors.tools.breaker import RefusedBy
from perdure.store.codec import OptionalPayload


class CallStarted(Event, frozen=True, tag="call-started"):
    """A call outside of a run is about to be made."""

    call: str
    effect: str
    life: int


class CallSucceeded(Event, frozen=True, tag="call-succeeded"):
    """A call returned; `micros` is how long it took."""

    tool: str
    call: str
    generation: int
    micros: int
    at: int = 0
    """On the steady clock, in microseconds."""
    result: OptionalPayload = msgspec.UNSET
    """Of a call outside of runs, when it is too large to be handed to a model: the preview names its hash."""


class CallFailed(Event, frozen=True, tag="call-failed"):
    """A call raised, timed out or reported an error."""

    tool: str
    call: str
    generation: int
    micros: int
    error_type: str
    error: str
    at: int = 0
    """On the steady clock, in microseconds."""
    counts: bool = True
    """Whether it counts against the tool; errors that the policy excludes do not."""
    result: OptionalPayload = msgspec.UNSET
    """The large result in which the tool reported the error; see `CallSucceeded`."""


class CallCancelled(Event, frozen=True, tag="call-cancelled"):
    """The caller gave the call up: neither a success nor a failure of the tool."""

    tool: str
    call: str
    generation: int
    micros: int


class CallRefused(Event, frozen=True, tag="call-refused"):
    """The circuit breaker, the rate limit or the bulkhead did not let the call through."""

    tool: str
    call: str
    reason: str
    retry_after: int
    """Microseconds; 0: not known."""
    by: RefusedBy = "circuit"


class CallLost(Event, frozen=True, tag="call-lost"):
    """The process died during the call: whether it happened is not known."""

    call: str
    effect: str
