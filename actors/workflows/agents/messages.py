"""What is said to an agent and what it answers: one type each, for steps, sagas and direct calls alike. Data only."""

from typing import Any, Final

import msgspec


class AgentMessage(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent is asked to do."""

    type: str = "process"
    """The action."""
    data: dict[str, Any] = {}
    sender: str = ""
    """`orchestrator` for a step of a workflow, `saga_compensator` for what undoes one."""
    recipient: str = ""
    metadata: dict[str, Any] = {}
    """`{"workflow_step": id}` for a step of a workflow, `saga_id` in a saga."""


class AgentResponse(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent answers. One with an `error`, or with `success=False`, is a failed call, which may be tried again.

    A handler need not build one: any other value that it returns is the `data` of a success.
    """

    success: bool = True
    data: Any = None
    error: str | None = None
    metadata: dict[str, Any] = {}


SAGA: Final = "saga"
"""Of the metadata: the key of the saga in its run, in place of `saga_id`, which only whoever handles it is told."""


def as_told(message: AgentMessage, run_id: str | None) -> AgentMessage:
    """Return *message* with the id of its saga.

    What is recorded of a call is the same in a fork of its run, so the run's id is not in it.
    """
    if run_id is None or SAGA not in message.metadata:
        return message
    others = {name: value for name, value in message.metadata.items() if name != SAGA}
    metadata = {**others, "saga_id": f"{run_id}:{message.metadata[SAGA]}"}
    return msgspec.structs.replace(message, metadata=metadata)


def as_response(answer: Any, agent: str) -> AgentResponse:
    """Return what a handler of *agent* returned as a response; one that failed always says why."""
    if not isinstance(answer, AgentResponse):
        return AgentResponse(data=answer)
    if answer.success and not answer.error:
        return answer
    reason = answer.error or f"{agent} answered success=False"
    return msgspec.structs.replace(answer, success=False, error=reason)
