"""`rt.conversation(id)`: runs that belong together, what they share, the values kept with them, how it all stands.

Not here: the rules of the conversation's actor (`actors/state/conversation.py`). Invariant: how a conversation stands
follows from its runs whenever somebody asks, so it cannot say anything else than they do.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeAlias, TypeVar, overload

import msgspec
from msgspec import UNSET

from perdure.actors.kernel.clock import moment_of
from perdure.actors.state.conversation import (
    Artifact,
    ArtifactKept,
    ConversationState,
    DropArtifact,
    GetConversation,
    KeepArtifact,
    Member,
    conversation_stream,
)
from perdure.actors.state.view import StateView
from perdure.actors.workflows.commands import GetRun
from perdure.actors.workflows.definition import Workflow
from perdure.actors.workflows.errors import ControlRefusedError
from perdure.actors.workflows.state import RunView
from perdure.runtime.checkpoints import Checkpoint, read_checkpoints
from perdure.runtime.handle import RunHandle
from perdure.runtime.naming import check_conversation, check_principal, is_name
from perdure.runtime.options import Options
from perdure.runtime.steering import ForkRequest
from perdure.store.errors import UsageError
from perdure.store.expected import checked_but
from perdure.store.records import Query, Recorded, StreamId

if TYPE_CHECKING:
    from perdure.runtime.reach import Reach

P = ParamSpec("P")
R = TypeVar("R")

ConversationStatus: TypeAlias = Literal["active", "paused", "interrupted", "completed", "failed", "cancelled"]
"""`active`: a run goes on, or there was none yet; `interrupted`: the process ended while one ran, and nobody has
decided what becomes of it, or it is blocked; otherwise as the newest run."""

MAX_NAME = 200
"""Of an artifact."""

_HELD = frozenset({"paused", "interrupted"})
_RESUMABLE = _HELD | {"failed", "cancelled"}


class ConversationRun(msgspec.Struct, frozen=True):
    """A run of a conversation, as it stands."""

    run: str
    workflow: str
    status: str
    """That of the run, or `interrupted`."""
    takes_up: str | None
    """The run that it goes on for, where somebody had an interrupted one taken up again."""
    error: str = ""


class ConversationView(msgspec.Struct, frozen=True):
    """How a conversation stands."""

    id: str
    status: ConversationStatus
    count: int
    """Runs so far."""
    newest: ConversationRun | None
    is_resumable: bool
    """Whether `resume` has something to do."""
    artifacts: tuple[Artifact, ...]
    started_at: datetime | None
    """UTC; None when there was nothing yet."""
    updated_at: datetime | None


class ConversationMetrics(msgspec.Struct, frozen=True):
    """Figures of the newest 1,000 runs of a conversation."""

    runs: int
    completed: int
    failed: int
    cancelled: int
    active: int
    """Those that have not ended, whatever they wait for."""
    steps: int
    """Steps that were finished."""
    duration: timedelta
    """From the first event of the conversation to the last one."""


@checked_but("__init__")
class Conversations:
    """The conversations of a runtime."""

    def __init__(self, runtime: "Reach") -> None:
        self._runtime = runtime

    def get(self, id: str) -> "Conversation":
        """Return a conversation by its id, whether anything has happened in it or not.

        Raises:
            UsageError: the id cannot be one.
        """
        return Conversation(self._runtime, id)

    async def list(self) -> list[str]:
        """Return the ids of all conversations in which something has happened, the one that began first first."""
        found: dict[str, None] = {}
        query = Query(stream_prefix="conversation/")
        while page := await self._runtime.read(query):
            found.update((event.stream.partition("/")[2], None) for event in page)
            query = msgspec.structs.replace(query, after=page[-1].position)
        return [*found]


@checked_but("__init__")
class Conversation:
    """One conversation; a handle, which keeps nothing alive."""

    def __init__(self, runtime: "Reach", id: str) -> None:
        check_conversation(id)
        self._runtime = runtime
        self._stream = conversation_stream(id)
        self.id = id
        """Its id."""

    def __repr__(self) -> str:
        return f"<Conversation {self.id}>"

    # Runs

    @overload
    async def start(self, workflow: Workflow[P, R], *args: P.args, **kwargs: P.kwargs) -> RunHandle[R]: ...
    @overload
    async def start(self, workflow: str, *args: Any, **kwargs: Any) -> RunHandle[Any]: ...
    async def start(self, workflow: Any, *args: Any, **kwargs: Any) -> RunHandle[Any]:
        """Start a run in the conversation, beside those that go on; durable on return, history included.

        Raises:
            As `Runtime.start`.
        """
        return await self.with_options().start(workflow, *args, **kwargs)

    def with_options(self, /, **options: Any) -> Options:
        """Return a way to start runs in the conversation with options: those of `Runtime.with_options`."""
        return self._runtime.with_options(**options, conversation=self.id)

    async def trigger(self, /, entry: str, data: Mapping[str, Any] | None = None, **options: Any) -> str:
        """Start a run by an entry point, in the conversation; return its id. The options are those of `trigger`."""
        return await self._runtime.entry_points.trigger(entry, data, conversation=self.id, **options)

    async def resume(self, answer: object = UNSET, *, who: str | None = None) -> RunHandle[Any]:
        """Resume the newest run that stands still, and return it; durable on return.

        That is the newest one that is paused or was interrupted; where there is none, the newest of all. Such a run
        goes on where it was, one that failed is tried again from the step that it failed of, and for one that was
        cancelled a new run begins at the last checkpoint before that. What they had finished is not made again. A run
        that goes on by itself is left to it.

        Raises:
            ControlRefusedError: there is no such run, or it cannot go on.
            WrongAnswerError: the answer does not fit.
        """
        check_principal(who)
        view, status = await self._standing_still()
        run: RunHandle[Any] = self._runtime.run(view.run)
        if answer is not UNSET and status != "paused":
            raise ControlRefusedError(run=view.run, what="resumed with an answer", reason=f"it is {status}")
        match status:
            case "paused" | "interrupted" if view.status == "paused":
                await run.resume(answer, who=who)
            case "interrupted" if view.status == "running":
                await self._runtime.resume(view.run)
            case "failed" | "interrupted":
                await run.retry(who=who)
            case "cancelled":
                return await self._taken_up(view.run, who)
            case "completed":
                reason = "the newest run of the conversation is completed: start another one"
                raise ControlRefusedError(run=view.run, what="resumed", reason=reason)
            case _:
                pass
        return run

    async def _standing_still(self) -> tuple[RunView, str]:
        """Return the newest run that somebody has to have go on, or else the newest one, and how it stands."""
        newest: tuple[RunView, str] | None = None
        for member in reversed((await self._state()).runs):
            view = await self._view(member.run)
            status = await self._status_of(view)
            if status in _HELD:
                return view, status
            newest = newest or (view, status)
        if newest is None:
            reason = "there was none yet"
            raise ControlRefusedError(run=f"of conversation {self.id}", what="resumed", reason=reason)
        return newest

    async def _taken_up(self, run: str, who: str | None) -> RunHandle[Any]:
        query = Query(stream=StreamId(f"run/{run}"), types=("run-cancel-requested",), limit=1)
        asked = await self._runtime.read(query)
        before = asked[0].version if asked else 0
        found = [one for one in await read_checkpoints(self._runtime, run) if one.run != run or one.version < before]
        place = found[-1].id if found else f"{run}#1"
        request = ForkRequest("", b"{}", who=who, checkpoint=place)
        return self._runtime.run(await self._runtime.fork_run(run, request))

    # How it stands

    async def status(self) -> ConversationView:
        """Return how the conversation stands."""
        state = await self._state()
        runs = await self._runs(state.runs)
        first, last = await self._ends()
        return ConversationView(
            id=self.id,
            status=_status(runs),
            count=state.count,
            newest=runs[-1] if runs else None,
            is_resumable=any(one.status in _HELD for one in runs) or bool(runs and runs[-1].status in _RESUMABLE),
            artifacts=tuple(state.artifacts.values()),
            started_at=first,
            updated_at=last,
        )

    async def history(self) -> list[ConversationRun]:
        """Return the newest 1,000 runs of the conversation as they stand, in the order of their starts."""
        return await self._runs((await self._state()).runs)

    async def latest_checkpoint(self) -> Checkpoint | None:
        """Return the last place at which the newest run had finished something; None if there is none."""
        state = await self._state()
        found = await read_checkpoints(self._runtime, state.runs[-1].run) if state.runs else []
        return found[-1] if found else None

    async def metrics(self) -> ConversationMetrics:
        """Return figures of the conversation's runs."""
        state = await self._state()
        views = [await self._view(one.run) for one in state.runs]
        first, last = await self._ends()
        return ConversationMetrics(
            runs=state.count,
            completed=sum(view.status == "completed" for view in views),
            failed=sum(view.status == "failed" for view in views),
            cancelled=sum(view.status == "cancelled" for view in views),
            active=sum(not view.is_closed for view in views),
            steps=sum(view.steps_done for view in views),
            duration=timedelta(0) if first is None or last is None else last - first,
        )

    @property
    def state(self) -> StateView:
        """The state that the runs of the conversation share; see `Runtime.state`."""
        return self._runtime.state.view(conversation=self.id)

    async def _state(self) -> ConversationState:
        state: ConversationState = await self._runtime.ask(self._stream, GetConversation())
        return state

    async def _runs(self, members: Sequence[Member]) -> list[ConversationRun]:
        found: list[ConversationRun] = []
        for one in members:
            view = await self._view(one.run)
            status = await self._status_of(view)
            found.append(ConversationRun(one.run, one.workflow, status, one.takes_up, view.error))
        return found

    async def _view(self, run: str) -> RunView:
        """Return how a run stands, or the last that it goes on as."""
        view: RunView = await self._runtime.ask(StreamId(f"run/{run}"), GetRun())
        return view

    async def _status_of(self, view: RunView) -> str:
        if view.is_interrupted or view.status == "blocked":
            return "interrupted"
        if view.status == "running" and any(one.id == view.run for one in await self._runtime.waiting()):
            return "interrupted"  # it is not in memory, though it could go on
        return view.status

    async def _ends(self) -> tuple[datetime | None, datetime | None]:
        """Return when the first thing happened in the conversation and its newest run, and when the last one."""
        state = await self._state()
        streams = [self._stream, *(StreamId(f"run/{one.run}") for one in state.runs[-1:])]
        first = [await self._runtime.read(Query(stream=self._stream, limit=1))]
        last = [await self._runtime.read(Query(stream=one, limit=1, newest_first=True)) for one in streams]
        begun, ended = ([page[0].at for page in pages if page] for pages in (first, last))
        return (moment_of(min(begun)), moment_of(max(ended))) if begun and ended else (None, None)

    # Artifacts

    async def keep(
        self,
        name: str,
        content: object,
        *,
        media_type: str | None = None,
        run: str | None = None,
        who: str | None = None,
    ) -> Artifact:
        """Keep a value, JSON (8 MiB) or bytes (6 MiB), under a name; return it with its hash. Durable on return.

        The one that was under the name before stays in the log (`artifact(name, sha256=…)`). The same again changes
        nothing.

        Raises:
            UsageError: the name is not 1 to 200 printable characters.
            ConversationFullError: the conversation keeps as many as it may.
            UnencodableError, PayloadTooLargeError: it cannot be recorded; nothing has changed.
        """
        check_artifact(name)
        check_principal(who)
        is_binary = isinstance(content, (bytes, bytearray))
        data = self._runtime.encode(content, f"artifact {name}")
        raw = bytes(content) if isinstance(content, (bytes, bytearray)) else data
        fact = ArtifactKept(
            name,
            msgspec.Raw(data),
            hashlib.sha256(raw).hexdigest(),
            len(raw),
            is_binary,
            media_type or ("application/octet-stream" if is_binary else "application/json"),
            run,
        )
        await self._runtime.ask(self._stream, KeepArtifact(fact), principal=who)
        return Artifact(name, fact.sha256, fact.size, is_binary, fact.media_type, run)

    async def artifacts(self) -> tuple[Artifact, ...]:
        """Return what is kept, less the contents."""
        return tuple((await self._state()).artifacts.values())

    async def artifact(self, name: str, *, sha256: str | None = None) -> Any:
        """Return the value under a name, JSON or bytes: the newest, or the one of that hash, also a former one.

        Raises:
            KeyError: nothing is, or was, kept like that.
        """
        if sha256 is None:
            sha256 = (await self._state()).artifacts[name].sha256
        query = Query(stream=self._stream, types=("artifact-kept",), newest_first=True, limit=100)
        while page := await self._runtime.read(query):
            for event in page:
                facts: dict[str, Any] = msgspec.json.decode(event.data or "{}")
                if (facts.get("name"), facts.get("sha256")) == (name, sha256):
                    return await self._content(event, facts)
            query = msgspec.structs.replace(query, until=page[-1].position - 1)
        raise KeyError(name)

    async def drop(self, name: str, *, who: str | None = None) -> bool:
        """Take a name away; return whether it was there. The log keeps what was under it. Durable on return."""
        check_principal(who)
        was_there: bool = await self._runtime.ask(self._stream, DropArtifact(name), principal=who)
        return was_there

    async def _content(self, event: Recorded, facts: Mapping[str, Any]) -> Any:
        content: Any = facts.get("content")
        hashes: dict[str, str] = msgspec.json.decode(event.blobs or "{}")
        if (sha256 := hashes.get("content")) is not None:
            data = await self._runtime.blob(sha256)
            if data is None:
                raise KeyError(facts["name"])
            content = msgspec.json.decode(data)
        return base64.b64decode(content) if facts.get("is_binary") else content


def check_artifact(name: str) -> None:
    """Check what a value is to be kept under.

    Raises:
        UsageError: it cannot be called that.
    """
    if not is_name(name, MAX_NAME):
        raise UsageError(f"an artifact's name is 1 to {MAX_NAME} printable characters, not {name!r}")


def _status(runs: Sequence[ConversationRun]) -> ConversationStatus:
    statuses = [one.status for one in runs]
    if not statuses or any(one in ("queued", "running", "waiting") for one in statuses):
        return "active"
    for status in ("interrupted", "paused"):
        if status in statuses:
            return "interrupted" if status == "interrupted" else "paused"
    match statuses[-1]:
        case "completed":
            return "completed"
        case "cancelled":
            return "cancelled"
        case _:
            return "failed"
