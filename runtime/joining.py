"""How a run that belongs to a conversation begins: in one unit with the conversation's note of it.

Invariant: a run that is in the history of a conversation is in the log, and one in the log is in that history.
"""

from perdure.actors.kernel.shell import Shell
from perdure.actors.kernel.system import ActorSystem
from perdure.actors.state.conversation import JoinConversation, conversation_stream
from perdure.actors.workflows.commands import StartRun
from perdure.store.errors import PerdureError
from perdure.store.records import StreamId


async def start_in_conversation(
    system: ActorSystem, run: StreamId, start: StartRun, takes_up: str | None, principal: str | None
) -> None:
    """Start a run, or find that it is the same one, and note it in its conversation; durable on return.

    Raises:
        RunConflictError: the id belongs to another run.
        LogWriteError, BacklogFullError: the log refused.
    """
    id = run.partition("/")[2]
    streams = [run] if start.conversation is None else [run, conversation_stream(start.conversation)]
    shells = await system.directory.bring_all(streams)
    moves: list[tuple[Shell, StartRun | JoinConversation]] = [(shells[0], start)]
    if shells[0].state.status == "unborn":  # one that is there has joined when it began
        moves += [(shell, JoinConversation(id, start.workflow, takes_up)) for shell in shells[1:]]
    try:
        done = system.transact(moves, correlation=id, principal=principal)
    except PerdureError:
        # What a refusal rests on is durable before anybody is told; if the log failed, that is what is told.
        if (barrier := system.log.barrier()) is not None:
            await barrier
        raise
    if done.ticket is not None:
        await done.ticket
