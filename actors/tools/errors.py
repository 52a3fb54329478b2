"""What can go wrong with a tool call."""

from perdure.store.errors import PerdureError, UsageError


class ToolError(PerdureError):
    """Base of the errors of tool calls."""


class UnknownToolError(ToolError, KeyError):
    """No tool of that name is registered."""

    message = "unknown tool: {tool}; registered are {known}"
    tool: str
    known: str


class InvalidArgumentsError(UsageError, ToolError):
    """The arguments do not fit the tool's parameters; the caller's mistake, never counted against the tool."""

    message = "invalid arguments for {tool}: {reason}"
    tool: str
    reason: str


class CircuitOpenError(ToolError):
    """The tool's circuit breaker refused the call; the tool was not called."""

    message = "Circuit breaker open for {tool}: {reason}"
    tool: str
    reason: str
    """Why, with the position of the event that opened the circuit."""
    position: int | None
    """Of that event in the log."""
    retry_after_seconds: float
    """Until a probe may be let through; 0: nobody knows, a probe is in flight or an operator holds the circuit open."""

    def __str__(self) -> str:
        again = f"; try again in {self.retry_after_seconds:.1f} s" if self.retry_after_seconds else ""
        return super().__str__() + again


class RateLimitedError(ToolError):
    """The tool's rate limit refused the call; the tool was not called."""

    message = "{tool}: {reason}; try again in {retry_after_seconds:.1f} s"
    tool: str
    reason: str
    retry_after_seconds: float


class BulkheadFullError(ToolError):
    """Too many calls of the tool run and wait; the tool was not called."""

    message = "{tool}: {reason}; try again later"
    tool: str
    reason: str


class ToolFailedError(ToolError):
    """The tool was called and failed."""

    message = "{tool} failed: {error_type}: {reason}"
    tool: str
    error_type: str
    reason: str
    result: str | None
    """What it returned all the same, as JSON, where it reported an error."""
