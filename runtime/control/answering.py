"""What each request of the closed list asks of the runtime. No sockets here, and no bounds.

Invariant: values are checked, redacted and encoded anew by the owner's own rules, whatever the other program did.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, TypeVar, assert_never, cast

import msgspec

from perdure.actors.kernel.payloads import PAYLOAD_LIMIT_BYTES
from perdure.actors.workflows.commands import AnswerQuestion, DecideApproval, SendSignal, SettleStep
from perdure.actors.workflows.events import StepCompleted
from perdure.runtime.control.messages import (
    ASKABLE,
    AnyRequest,
    Ask,
    CallTool,
    Dispatch,
    Ended,
    Follow,
    ForceCircuit,
    ForkRun,
    Publish,
    QuarantineSlot,
    Questions,
    ReadBlob,
    ReadPage,
    ResetSlot,
    Resume,
    RetryRun,
    Start,
    StartData,
    StartNamed,
    Statistics,
    Waiting,
    Withdraw,
    WorkflowStatistics,
    encode,
)
from perdure.runtime.dispatch import parse_arguments
from perdure.runtime.naming import check_principal, check_signal
from perdure.runtime.options import OptionValues
from perdure.store.errors import PayloadTooLargeError, UsageError
from perdure.store.records import Query, Recorded, stream_id

if TYPE_CHECKING:
    from perdure.runtime.app import Runtime

T = TypeVar("T")

NOTHING: Final = b"null"
PAGE_EVENTS: Final = 1_000
PAGE_BYTES: Final = 2 * 1024 * 1024
"""A page ends after the event with which it is larger."""


async def answer(  # noqa: C901 - one case a request
    runtime: "Runtime", request: AnyRequest
) -> bytes:
    """Do what *request* asks for and return the answer as JSON; it is durable.

    Raises:
        PerdureError: as the method of `Runtime` that the request is named after.
    """
    match request:
        case Ask():
            return encode(await _asked(runtime, request))
        case Start():
            return encode(await _start(runtime, request))
        case StartNamed(workflow=name, args=args, kwargs=kwargs, options=values):
            return encode((await runtime.start_named(name, args, kwargs, _checked(runtime, values))).id)
        case StartData(workflow=name, data=data, options=values):
            return encode((await runtime.start_data(name, data, _checked(runtime, values))).id)
        case Ended(run=name):
            return encode(await runtime.ended(runtime.run(name).id))
        case RetryRun(run=name, who=who):
            check_principal(who)
            return encode(await runtime.retry_run(name, who))
        case ForkRun(run=name, asked=asked):
            check_principal(asked.who)
            changed = runtime.encode(msgspec.json.decode(asked.changed), "the changed input")
            return encode(await runtime.fork_run(name, msgspec.structs.replace(asked, changed=changed)))
        case Publish(type=kind, data=data, id=id, who=who):
            return encode(await runtime.publish(kind, msgspec.json.decode(data), id=id, who=who))
        case CallTool(tool=name, arguments=arguments, options=values):
            return await _call(runtime, name, arguments, _checked(runtime, values))
        case Dispatch(tool=name, arguments=arguments, options=values):
            return encode(await runtime.dispatch_encoded(name, arguments, _checked(runtime, values)))
        case ForceCircuit(tool=tool, to=to, because=because, who=who, conversation=conversation):
            check_principal(who)
            moved = await runtime.force_circuit(tool, to, because=because, who=who, conversation=conversation)
            return encode(moved)
        case QuarantineSlot(slot=slot, because=because, who=who):
            check_principal(who)
            await runtime.quarantine_slot(slot, because, who=who)
            return NOTHING
        case ResetSlot(slot=slot, who=who, take_away=take_away):
            check_principal(who)
            return encode(await runtime.reset_slot(slot, who=who, take_away=take_away))
        case Resume(run=one):
            await runtime.resume(one)
            return NOTHING
        case Questions():
            return encode(await runtime.questions())
        case Waiting():
            return encode(await runtime.waiting())
        case Statistics():
            return encode(await runtime.statistics())
        case WorkflowStatistics():
            return encode(await runtime.get_stats())
        case ReadPage(query=query):
            return _page(await runtime.read(_bounded(query)))
        case Follow(after=after, query=query):
            return _page(await _follow(runtime, after, query or Query()))
        case ReadBlob(sha256=sha256):
            return encode(await runtime.blob(sha256))
        case Withdraw():
            raise UsageError("there is no answer to a withdrawal")
        case _:
            assert_never(request)


async def _asked(runtime: "Runtime", request: Ask) -> Any:
    kind, _ = ASKABLE[type(request.command)]
    stream = stream_id(request.stream)
    if not stream.startswith(f"{kind}/"):
        raise UsageError(f"{stream} is not asked that: it is for {kind}/…")
    check_principal(request.principal)
    command = _recoded(runtime, request.command, stream)
    match command:  # what handles check in a program of their own
        case SendSignal(name=name, id=id):
            check_signal(name, id)
        case AnswerQuestion(who=who) | DecideApproval(who=who):
            check_principal(who)
        case SettleStep(step=step, fact=StepCompleted(result=msgspec.Raw() as result)):
            await runtime.check_settlement(stream.partition("/")[2], step, result)
        case _:
            pass
    return await runtime.ask(stream, command, principal=request.principal)


def _recoded(runtime: "Runtime", message: T, where: str) -> T:
    """Return *message* with each JSON value in it as the owner would have encoded it."""
    if not isinstance(message, msgspec.Struct):
        return message
    changed: dict[str, Any] = {}
    for name in message.__struct_fields__:
        value: Any = getattr(message, name)
        if isinstance(value, msgspec.Raw):
            changed[name] = msgspec.Raw(runtime.encode(msgspec.json.decode(value), f"{where}: {name}"))
        elif isinstance(value, msgspec.Struct):
            changed[name] = _recoded(runtime, value, where)
    return msgspec.structs.replace(message, **changed) if changed else message


def _checked(runtime: "Runtime", values: OptionValues) -> OptionValues:
    """Return options that were checked here as if they had been given here."""
    return runtime.with_options(**msgspec.structs.asdict(values)).values


async def _start(runtime: "Runtime", request: Start) -> str:
    # The bytes as they are: what the signature made of the same arguments here would differ in nothing, and a run's id
    # stands for them.
    workflow, data = runtime.workflow(request.workflow), runtime.redaction.apply(bytes(request.input))
    if len(data) > PAYLOAD_LIMIT_BYTES:
        where = f"the input of {workflow.name}"
        raise PayloadTooLargeError(where=where, size=len(data), limit=PAYLOAD_LIMIT_BYTES)
    workflow.decode_input(data)
    return (await runtime.start_run(workflow, data, _checked(runtime, request.options))).id


async def _call(runtime: "Runtime", name: str, arguments: msgspec.Raw, values: OptionValues) -> bytes:
    tool = runtime.tools[name]
    # Decoded and encoded anew: redacted by the owner's rules, and refused if they do not fit its signature.
    data = tool.encode_arguments((), parse_arguments(name, bytes(arguments)), runtime.redaction)
    return (await runtime.call_encoded(tool, data, values)).result


def _bounded(query: Query) -> Query:
    return msgspec.structs.replace(query, limit=max(0, min(query.limit, PAGE_EVENTS)))


def _page(events: list[Recorded]) -> bytes:
    """Return as many of *events* as a reply may hold, at least one."""
    found: list[bytes] = []
    size = 0
    for event in events:
        found.append(encode(event))
        size += len(found[-1])
        if size >= PAGE_BYTES:
            break
    return b"[" + b",".join(found) + b"]"


async def _follow(runtime: "Runtime", after: int, query: Query) -> list[Recorded]:
    async with aclosing(cast("AsyncGenerator[Recorded]", runtime.tail(after, query))) as events:
        first = await anext(events, None)  # waits without polling
    if first is None:
        return []
    wanted = msgspec.structs.replace(_bounded(query), after=first.position - 1, newest_first=False)
    return await runtime.read(wanted)
