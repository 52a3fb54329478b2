"""The other side: a runtime that another process owns, with the same handles.

Invariants: what is returned was durable before the owner answered; a lost connection cancels nothing, and is never
taken for a refusal.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, Self, TypeVar

import msgspec

from perdure.actors.kernel.messages import Command
from perdure.actors.kernel.payloads import Redaction, encode_payload
from perdure.actors.tools.breaker import Command as Forcing
from perdure.actors.tools.definition import Tool
from perdure.actors.tools.outcome import Success
from perdure.actors.triggers.typed import Topic, check_data, name_of
from perdure.actors.workflows.definition import Workflow
from perdure.actors.workflows.failures import Failures
from perdure.actors.workflows.state import RunView
from perdure.runtime.control import messages, slot_words, tool_words, words
from perdure.runtime.control.entries import OwnersEntryPoints
from perdure.runtime.control.facets import (
    Asking,
    OwnersAgents,
    OwnersEvents,
    OwnersExecutor,
    OwnersGoals,
    OwnersSagas,
    OwnersTools,
    OwnersWebhooks,
    OwnersWorkflows,
)
from perdure.runtime.control.line import Line
from perdure.runtime.control.request import Request
from perdure.runtime.control.schedules import OwnersSchedules
from perdure.runtime.control.state import OwnersState
from perdure.runtime.door import Door
from perdure.runtime.figures import RuntimeStatistics
from perdure.runtime.goals import the_only
from perdure.runtime.handle import RunHandle
from perdure.runtime.options import OptionValues
from perdure.runtime.questions import OpenQuestion
from perdure.runtime.recovery import WaitingRun
from perdure.runtime.sandbox.trajectory import Trajectory
from perdure.runtime.steering import ForkRequest
from perdure.store.errors import UsageError
from perdure.store.expected import checked_but, checked_function
from perdure.store.location import check_file, checked_path
from perdure.store.records import Query, Recorded, StreamId

R = TypeVar("R")

WAIT_SECONDS: Final = 5.0
"""How long connecting waits for an owner that is still opening its log."""


@checked_function
def connect(path: str | os.PathLike[str], *, wait: timedelta = timedelta(seconds=WAIT_SECONDS)) -> "Connection":
    """Reach the runtime that has the log at *path* open, in another process, for an `async with` block.

    The owner has to run on this machine and as this user (or this program as root). Entering raises as
    `Connection.__aenter__`.

    Args:
        path: the log's file, as the owner was given it.
        wait: how long to wait for an owner that is still opening the log.
    """
    return Connection(path, wait=wait)


@checked_but("__init__", "start", "call")
class Connection(Door):
    """A runtime in another process. What a method does is said at the method of `Runtime` of the same name.

    Beside what is said there, every method raises:
        ConnectionLostError: the owner went away before it answered; the next request connects again.
        NotOwnedError, OwnerUnreachableError: there is nobody to ask; nothing was done.
    """

    def __init__(self, path: str | os.PathLike[str], *, wait: timedelta) -> None:
        self.path = checked_path(path)
        self._wait = wait.total_seconds()
        self._line: Line | None = None
        self._connecting = asyncio.Lock()
        self._is_open = False
        self._pid = os.getpid()

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            NotOwnedError: no runtime has the log open.
            OwnerUnreachableError: one has, and cannot be asked from here; says why.
            NotALogError, LogUnavailableError: the path is that of a folder, or of a link to nothing.
        """
        check_file(self.path)
        self._is_open, self._pid = True, os.getpid()
        await self._connected()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the owner; it carries out what it was asked for. Idempotent."""
        self._is_open = False
        line, self._line = self._line, None
        if line is not None and os.getpid() == self._pid:
            await line.close()

    async def _connected(self) -> Line:
        if not self._is_open:
            raise UsageError("the connection is not open: write `async with connect(…) as rt:` and use rt inside")
        if os.getpid() != self._pid:
            raise UsageError(f"process {self._pid} opened this connection: a forked child has to connect itself")
        line = self._line
        if line is None or line.is_lost:
            async with self._connecting:
                line = self._line
                if line is None or line.is_lost:
                    line = self._line = await Line.open(self.path, self._wait)
        return line

    async def _request(self, request: Request) -> Any:
        line = await self._connected()
        return await line.request(request)

    @property
    def _asking(self) -> Asking:
        return Asking(self._request, self.encode)

    # Runs

    async def start_run(self, workflow: Workflow[..., R], data: bytes, options: OptionValues) -> RunHandle[R]:
        """Start a run from its encoded input; durable on return."""
        run: str = await self._request(messages.Start(workflow.name, msgspec.Raw(data), options))
        return RunHandle(self, run, workflow.result_decoder)

    async def start_named(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: OptionValues
    ) -> RunHandle[Any]:
        """Start a run of the workflow that the owner knows by a name; durable on return."""
        given = msgspec.json.decode(self.encode([list(args), dict(kwargs)], f"the input of {name}"))
        run: str = await self._request(messages.StartNamed(name, given[0], given[1], options))
        return RunHandle(self, run, None)

    async def start_data(self, name: str, data: Mapping[str, Any], options: OptionValues) -> RunHandle[Any]:
        """Start a run of the workflow that the owner knows by a name, from one object; durable on return."""
        given = msgspec.json.decode(self.encode(dict(data), f"the input of {name}"))
        run: str = await self._request(messages.StartData(name, given, options))
        return RunHandle(self, run, None)

    async def ended(self, run: str) -> RunView:
        """Return how a run stands once it is closed or blocked."""
        view: RunView = await self._request(messages.Ended(run))
        return view

    async def retry_run(self, run: str, who: str | None) -> str | None:
        """Have a run tried again; return the step that it failed of. See `RunHandle.retry`."""
        step: str | None = await self._request(words.RetryRun(run, who))
        return step

    async def fork_run(self, run: str, asked: ForkRequest) -> str:
        """Start a run that begins where another one was before a step; return its id. See `RunHandle.fork`."""
        fork: str = await self._request(messages.ForkRun(run, asked))
        return fork

    async def publish(
        self,
        type: str | Topic[Any],
        data: object = None,
        *,
        id: str | None = None,
        who: str | None = None,
        source: str | None = None,
        correlation: str | None = None,
    ) -> bool:
        """Publish an event of a type; return False where that *id* was published before. Durable on return."""
        name = name_of(type)
        given = msgspec.Raw(self.encode(data, f"the event {name}"))
        check_data(type, given)
        is_new: bool = await self._request(messages.Publish(name, given, id, who, source, correlation))
        return is_new

    async def questions(self) -> list[OpenQuestion]:
        """Return the open questions of all runs, oldest first."""
        found: list[OpenQuestion] = await self._request(words.Questions())
        return found

    async def waiting(self) -> list[WaitingRun]:
        """Return the open runs that are not in the owner's memory and what each waits for."""
        found: list[WaitingRun] = await self._request(words.Waiting())
        return found

    async def resume(self, run: str | None = None) -> None:
        """Have the owner bring back every open run that does not sleep, or one."""
        await self._request(words.Resume(run))

    # Tools

    async def call_encoded(self, tool: Tool[..., Any], arguments: bytes, options: OptionValues) -> Success:
        """Call a tool with encoded arguments."""
        request = messages.CallTool(tool.name, msgspec.Raw(arguments), options)
        result = bytes(await self._request(request))
        return Success(result, tool.result_decoder.decode(result, f"the result of {tool.name}"))

    async def dispatch_encoded(
        self, name: str, arguments: str | bytes | Mapping[str, Any], options: OptionValues
    ) -> str:
        """Make a call as a model asks for it, with options."""
        if isinstance(arguments, bytes):
            arguments = arguments.decode(errors="replace")
        elif not isinstance(arguments, str):
            arguments = self.encode(arguments, f"the arguments of {name}").decode()
        told: str = await self._request(messages.Dispatch(name, arguments, options))
        return told

    async def force_circuit(
        self, tool: str, to: Forcing, *, because: str, who: str | None = None, conversation: str | None = None
    ) -> bool:
        """Take a tool's circuit over as an operator; return whether that changed anything. Durable on return."""
        changed: bool = await self._request(tool_words.ForceCircuit(tool, to, because, who, conversation))
        return changed

    async def select(self, required: Iterable[str], *, partial: bool = False) -> str | None:
        """Return the name of the owner's tool that has all these capabilities, for `dispatch`; or None.

        Code stays with the owner: `Runtime.select` returns the tool itself.
        """
        given = required if isinstance(required, str) else list(required)
        name: str | None = await self._request(tool_words.SelectTool(given, partial))
        return name

    @property
    def tools(self) -> OwnersTools:
        """The owner's tools, as they are offered to a model."""
        return OwnersTools(self._asking)

    @property
    def agents(self) -> OwnersAgents:
        """The owner's agents."""
        return OwnersAgents(self._asking)

    @property
    def workflows(self) -> OwnersWorkflows:
        """The owner's workflows."""
        return OwnersWorkflows(self._asking)

    # The ways in, and what runs share

    @property
    def entry_points(self) -> OwnersEntryPoints:
        """The owner's entry points."""
        return OwnersEntryPoints(self._asking)

    @property
    def schedules(self) -> OwnersSchedules:
        """The schedules of the owner's entry points."""
        return OwnersSchedules(self._request)

    @property
    def events(self) -> OwnersEvents:
        """The owner's events: wait for one, look back, see the dead letters."""
        return OwnersEvents(self._asking)

    @property
    def webhooks(self) -> OwnersWebhooks:
        """The owner's webhooks."""
        return OwnersWebhooks(self._asking)

    @property
    def state(self) -> OwnersState:
        """The values that the owner's runs share."""
        return OwnersState(self._asking, self.redaction)

    @property
    def goals(self) -> OwnersGoals:
        """The owner's goals."""
        return OwnersGoals(self, self._asking)

    async def only_goal(self) -> str:
        """Return the id of the owner's only goal. See `Goals.only`."""
        return the_only(one.id for one in await self.goals.list())

    @property
    def sagas(self) -> OwnersSagas:
        """Sagas that this process drives step by step."""
        return OwnersSagas(self, self._asking)

    # Slots

    @property
    def executor(self) -> OwnersExecutor:
        """What runs the calls of trajectories; raises when it is used where the owner has no slots."""
        return OwnersExecutor(self._asking)

    def trajectory(self, trajectory_id: str) -> Trajectory:
        """Return the handle of a sequence of calls that shares one slot of the owner's."""
        return Trajectory(self, trajectory_id)

    async def quarantine_slot(self, slot: str, because: str, *, who: str) -> None:
        """Give a slot to nobody until it was reset. Durable on return."""
        await self._request(slot_words.QuarantineSlot(slot, because, who))

    async def reset_slot(self, slot: str, *, who: str, take_away: bool = False) -> str | None:
        """Empty a slot; return the trajectory that has lost it. Durable on return."""
        lost: str | None = await self._request(slot_words.ResetSlot(slot, who, take_away))
        return lost

    async def until_idle(self) -> None:
        """Wait until no run of the owner's can go on by itself now."""
        await self._request(words.UntilIdle())

    # Looking

    async def statistics(self) -> RuntimeStatistics:
        """Return the figures of the owner's runtime."""
        figures: RuntimeStatistics = await self._request(words.Statistics())
        return figures

    async def get_stats(self) -> dict[str, Any]:
        """Return the figures of the owner's defined workflows and of their agents."""
        figures: dict[str, Any] = await self._request(words.WorkflowStatistics())
        return figures

    async def read(self, query: Query) -> list[Recorded]:
        """Return a page of the durable events that match: fewer where they are large, none at the end."""
        found: list[Recorded] = await self._request(messages.ReadPage(query))
        return found

    async def tail(self, after: int = 0, query: Query | None = None) -> AsyncIterator[Recorded]:
        """Yield every durable event after a position, in order and without gaps.

        The owner holds nothing for a reader that is slow. After a `ConnectionLostError` go on with the position of the
        last event that was yielded.
        """
        while True:
            for event in await self._request(messages.Follow(after, query)):
                yield event
                after = event.position

    async def blob(self, sha256: str) -> bytes | None:
        """Return a large value of the log by its hash; None if unknown."""
        found: bytes | None = await self._request(words.ReadBlob(sha256))
        return found

    # What handles need

    @property
    def failures(self) -> Failures:
        """No exceptions: those that runs end with stay in the owner."""
        return Failures()

    @property
    def redaction(self) -> Redaction:
        """The owner's rules for what the log must not see the values of."""
        return Redaction() if self._line is None else self._line.redaction

    async def ask(self, stream: StreamId, message: Command, *, principal: str | None = None) -> Any:
        """Ask an actor of the owner's; of the messages, those that `messages.Asked` lists.

        Raises:
            UsageError: it is none of those.
        """
        if not isinstance(message, messages.Asked):
            raise UsageError(f"{type(message).__name__} is not asked from another process")
        return await self._request(messages.Ask(stream, message, principal))

    def check_place(self, queue: str | None, priority: int, partition: str | None) -> None:
        """Leave the check to the owner, which has the queues and makes it when a run is started."""

    async def check_settlement(self, run: str, step: str, data: msgspec.Raw) -> None:
        """Leave the check to the owner, which has the tools and makes it before it settles."""

    def encode(self, value: object, where: str) -> bytes:
        """Return a value as it is sent.

        Raises:
            UnencodableError, PayloadTooLargeError: it cannot be.
        """
        return encode_payload(value, where=where, redaction=self.redaction)
