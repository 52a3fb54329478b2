"""Agents that tests load by import path, and that write down what becomes of them."""

from typing import Any

from perdure import AgentMessage, workflow
from perdure.actors.workflows.context import Context

HISTORY: list[str] = []
"""What the agents of this module did; a test empties it first."""


class Recorder:
    """An agent that writes down that it was made, asked and shut down."""

    async def initialize(self) -> None:
        HISTORY.append(f"{type(self).__name__} initialized")

    async def process(self, message: AgentMessage) -> dict[str, Any]:
        HISTORY.append(f"{type(self).__name__} {message.type}")
        return {"by": type(self).__name__, **message.data}

    async def shutdown(self) -> None:
        HISTORY.append(f"{type(self).__name__} shut down")


class A(Recorder):
    pass


class A_b(Recorder):  # noqa: N801 - the prefix is the point
    pass


class A_b_c(Recorder):  # noqa: N801 - the same
    pass


class D(Recorder):
    pass


class Deaf:
    """No agent: it has no `process`."""


class Needy:
    """No agent: it cannot be made without arguments."""

    def __init__(self, url: str) -> None:
        self.url = url

    def process(self, message: AgentMessage) -> str:
        return self.url


def blocking(message: AgentMessage) -> str:
    return f"blocked for {message.type}"


NUMBER = 7


@workflow
async def a_workflow(ctx: Context) -> int:
    return 1
