"""What each request of the closed list asks of the runtime. No sockets here, and no bounds.

Invariant: values are checked, redacted and encoded anew by the owner's own rules, whatever the other program did.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from inspect import isawaitable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, TypeVar, assert_never, cast

import msgspec

from perdure.actors.kernel.payloads import PAYLOAD_LIMIT_BYTES
from perdure.actors.state.conversation import DropArtifact, GetConversation, KeepArtifact
from perdure.actors.state.operations import Wish, check_key, encoded
from perdure.actors.state.shared_state import Put
from perdure.actors.workflows.commands import AnswerQuestion, DecideApproval, SendSignal, SettleStep
from perdure.actors.workflows.events import StepCompleted
from perdure.runtime.control.meanings import MEANINGS
from perdure.runtime.control.messages import (
    ASKABLE,
    AnyRequest,
    Ask,
    CallTool,
    ChangeState,
    CheckSagaStep,
    Dispatch,
    Ended,
    Follow,
    ForkRun,
    LookAtState,
    Publish,
    ReadPage,
    Start,
    StartData,
    StartNamed,
    SteerSchedule,
    Withdraw,
    encode,
)
from perdure.runtime.control.request import Word
from perdure.runtime.conversations import check_artifact
from perdure.runtime.dispatch import parse_arguments
from perdure.runtime.naming import check_conversation, check_principal, check_signal, check_speaker
from perdure.runtime.options import OptionValues
from perdure.runtime.state import Changed
from perdure.store.errors import PayloadTooLargeError, UsageError
from perdure.store.records import Query, Recorded, stream_id

if TYPE_CHECKING:
    from perdure.runtime.app import Runtime

T = TypeVar("T")

NOTHING: Final = b"null"
_PRINCIPALS: Final = frozenset({"who", "principal"})
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
        case ForkRun():
            return encode(await _fork(runtime, request))
        case Publish():
            return encode(await _publish(runtime, request))
        case SteerSchedule():
            return encode(await _steer_schedule(runtime, request))
        case CallTool(tool=name, arguments=arguments, options=values):
            return await _call(runtime, name, arguments, _checked(runtime, values))
        case Dispatch(tool=name, arguments=arguments, options=values):
            return encode(await runtime.dispatch_encoded(name, arguments, _checked(runtime, values)))
        case ReadPage(query=query):
            return _page(await runtime.read(_bounded(query)))
        case Follow(after=after, query=query):
            return _page(await _follow(runtime, after, query or Query()))
        case LookAtState():
            return encode(await _look_at_state(runtime, request))
        case ChangeState():
            return encode(await _change_state(runtime, request))
        case CheckSagaStep(name=name, step=step):
            await runtime.sagas.check(name, step)
            return NOTHING
        case Word():
            return encode(await _done(runtime, request))
        case Withdraw():
            raise UsageError("there is no answer to a withdrawal")
        case _:
            assert_never(request)


async def _done(runtime: "Runtime", word: Word) -> Any:
    """Call the method that *word* stands for and return what it returns."""
    meaning = MEANINGS[type(word)]
    given = {name: getattr(word, name) for name in word.__struct_fields__}
    for name in given.keys() & _PRINCIPALS:
        check_principal(given[name])
    found: Any = attrgetter(meaning.method)(runtime)(**given)
    if isawaitable(found):
        found = await found
    return found if meaning.told is None else meaning.told(found)


async def _fork(runtime: "Runtime", request: ForkRun) -> str:
    check_principal(request.asked.who)
    changed = runtime.encode(msgspec.json.decode(request.asked.changed), "the changed input")
    return await runtime.fork_run(request.run, msgspec.structs.replace(request.asked, changed=changed))


async def _publish(runtime: "Runtime", request: Publish) -> bool:
    return await runtime.publish(
        request.type,
        msgspec.json.decode(request.data),
        id=request.id,
        who=request.who,
        source=request.source,
        correlation=request.correlation,
    )


async def _look_at_state(runtime: "Runtime", request: LookAtState) -> Any:
    view = runtime.state.through(request.eyes)
    return await (view.held(request.look.key, request.scope) if request.is_held else view.looked(request.look))


async def _change_state(runtime: "Runtime", request: ChangeState) -> Changed:
    given = {key: msgspec.json.decode(value) for key, value in request.values.items()}
    puts = (*encoded(given, runtime.redaction), *(Put(check_key(key), None) for key in request.taken))
    expected = None
    if isinstance(request.expected, msgspec.Raw) and puts:  # as it would be, had it been written under the key
        wanted = {puts[0].key: msgspec.json.decode(request.expected)}
        expected = encoded(wanted, runtime.redaction)[0].value
    wish = Wish(request.action, tuple(one.key for one in puts), puts, expected)
    return await runtime.state.through(request.eyes).changed(wish, request.scope, request.seen)


async def _steer_schedule(runtime: "Runtime", request: SteerSchedule) -> bool | str:
    match request.to:
        case "pause":
            return await runtime.schedules.pause(request.entry, request.because, who=request.who)
        case "resume":
            return await runtime.schedules.resume(request.entry, who=request.who)
        case "fire":
            return await runtime.schedules.fire_now(request.entry, who=request.who)
        case _:
            assert_never(request.to)


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
        case AnswerQuestion(who=who, on_behalf=on_behalf) | DecideApproval(who=who, on_behalf=on_behalf):
            check_speaker(who, on_behalf or None)
        case GetConversation() | KeepArtifact() | DropArtifact():
            check_conversation(stream.partition("/")[2])
            if isinstance(command, KeepArtifact):
                check_artifact(command.fact.name)
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
    """Return options that were checked here as if they had been given here: an entry point is nobody's to say."""
    given = {name: value for name, value in msgspec.structs.asdict(values).items() if name != "entrance"}
    return runtime.with_options(**given).values


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
