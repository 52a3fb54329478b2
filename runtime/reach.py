"""What handles and options need of a runtime: the program's own (`Runtime`) or another process's (`Connection`).

A port, no behaviour. The invariant: whatever an implementation returns is durable in the log, wherever the log's owner
lives.
"""

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from perdure.actors.kernel.messages import Command
from perdure.actors.kernel.payloads import Redaction
from perdure.actors.tools.breaker import Command as Forcing
from perdure.actors.tools.definition import Tool
from perdure.actors.tools.outcome import Success
from perdure.actors.workflows.definition import Workflow
from perdure.actors.workflows.failures import Failures
from perdure.actors.workflows.state import RunView
from perdure.runtime.handle import RunHandle
from perdure.runtime.options import OptionValues
from perdure.runtime.questions import OpenQuestion
from perdure.runtime.steering import ForkRequest
from perdure.store.records import Query, Recorded, StreamId

R = TypeVar("R")


class Reach(Protocol):
    """A runtime, here or in another process; `Runtime` says what each of these does and raises."""

    @property
    def redaction(self) -> Redaction:
        """Which names the log must not see the values of."""
        ...

    def run(self, run_id: str, workflow: Workflow[..., R] | None = None) -> RunHandle[R]:
        """Return a handle to a run by its id."""
        ...

    def ask(self, stream: StreamId, message: Command, *, principal: str | None = None) -> Awaitable[Any]:
        """Ask an actor; the answer is durable."""
        ...

    async def ended(self, run: str) -> RunView:
        """Return how a run stands once it is closed or blocked."""
        ...

    async def check_settlement(self, run: str, step: str, data: msgspec.Raw) -> None:
        """Check that JSON fits the declared result of the tool that a step calls."""
        ...

    def encode(self, value: object, where: str) -> bytes:
        """Return a value as it would be recorded."""
        ...

    async def start_run(self, workflow: Workflow[..., R], data: bytes, options: OptionValues) -> RunHandle[R]:
        """Start a run from its encoded input."""
        ...

    async def start_named(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: OptionValues
    ) -> RunHandle[Any]:
        """Start a run of the workflow of that name, which the owner of the log has."""
        ...

    async def start_data(self, name: str, data: Mapping[str, Any], options: OptionValues) -> RunHandle[Any]:
        """Start a run of the workflow of that name from one object."""
        ...

    @property
    def failures(self) -> Failures:
        """The exceptions that runs end with where this program can know them."""
        ...

    async def get_stats(self) -> dict[str, Any]:
        """Return the figures of defined workflows and of agents."""
        ...

    async def publish(self, type: str, data: object = None, *, id: str | None = None, who: str | None = None) -> bool:
        """Publish an event; return whether it is new."""
        ...

    async def retry_run(self, run: str, who: str | None) -> str | None:
        """Have a run tried again; return the step that it failed of."""
        ...

    async def fork_run(self, run: str, asked: ForkRequest) -> str:
        """Start a run that begins where another one was before a step; return its id."""
        ...

    async def call_encoded(self, tool: Tool[..., Any], arguments: bytes, options: OptionValues) -> Success:
        """Call a tool with encoded arguments."""
        ...

    async def dispatch_encoded(
        self, name: str, arguments: str | bytes | Mapping[str, Any], options: OptionValues
    ) -> str:
        """Make a call as a model asks for it."""
        ...

    async def force_circuit(
        self, tool: str, to: Forcing, *, because: str, who: str | None = None, conversation: str | None = None
    ) -> bool:
        """Take a tool's circuit over as an operator."""
        ...

    async def questions(self) -> list[OpenQuestion]:
        """Return the open questions of all runs."""
        ...

    async def read(self, query: Query) -> list[Recorded]:
        """Return one page of durable events."""
        ...

    async def quarantine_slot(self, slot: str, because: str, *, who: str) -> None:
        """Give a slot to nobody until it was reset."""
        ...

    async def reset_slot(self, slot: str, *, who: str, take_away: bool = False) -> str | None:
        """Empty a slot; return the trajectory that lost it."""
        ...
