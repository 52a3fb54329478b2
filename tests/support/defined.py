"""What the tests of definitions share: agents that do what they are told and remember what they were sent."""

import asyncio
from collections.abc import Callable
from typing import Any

from perdure import Runtime, WorkflowFailedError
from perdure.actors.workflows.agents.agent import Agent
from perdure.actors.workflows.agents.messages import AgentMessage, AgentResponse
from perdure.actors.workflows.defined.model import Step, WorkflowDefinition
from perdure.testing import MemoryDisk, TestClock
from tests.support.runs import Box

SECOND = 1_000_000


class Troupe:
    """Agents on one clock."""

    def __init__(self) -> None:
        self.clock = TestClock()
        self.sent: list[tuple[str, AgentMessage]] = []
        self.agents: list[Agent] = []

    def agent(
        self,
        name: str,
        answer: Any = None,
        *,
        seconds: float | Callable[[AgentMessage], float] = 0,
        errors: tuple[BaseException | AgentResponse, ...] = (),
        **options: Any,
    ) -> None:
        """Add one that takes *seconds*, fails with *errors* on its first calls, and then gives *answer*."""
        failing = list(errors)

        async def handle(message: AgentMessage) -> Any:
            self.sent.append((name, message))
            if takes := seconds(message) if callable(seconds) else seconds:
                await self.sleep(takes)
            if failing:
                error = failing.pop(0)
                if isinstance(error, AgentResponse):
                    return error
                raise error
            return answer(message) if callable(answer) else answer

        self.agents.append(Agent(name, handle, **options))

    async def sleep(self, seconds: float) -> None:
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.clock.call_after(int(seconds * SECOND), lambda: finish(over))
        try:
            await over
        finally:
            timer.cancel()

    def box(self, *definitions: Any, on: MemoryDisk | None = None, **options: Any) -> Box:
        return Box(on, self.clock, agents=self.agents, workflows=list(definitions), **options)

    def called(self) -> list[str]:
        """Who was sent something, in order."""
        return [name for name, _ in self.sent]

    def actions(self) -> list[tuple[str, str]]:
        return [(name, message.type) for name, message in self.sent]

    def data(self, name: str) -> list[dict[str, Any]]:
        return [message.data for each, message in self.sent if each == name]


def defined(pattern: Any, *steps: Step, **fields: Any) -> WorkflowDefinition:
    return WorkflowDefinition(id="w", pattern=pattern, steps=steps, **fields)


async def execute(
    troupe: Troupe,
    rt: Runtime,
    data: dict[str, Any] | None = None,
    *,
    id: str = "r",
    seconds: float = 0,
    workflow: str = "w",
) -> Any:
    """Run the workflow while *seconds* pass; return what `execute` returns, or the error that it raises."""
    task = asyncio.create_task(rt.with_options(id=id).execute(workflow, data))
    await troupe.clock.advance(seconds)
    try:
        return await task
    except WorkflowFailedError as error:
        return error


def failing(text: str) -> AgentResponse:
    return AgentResponse(success=False, error=text)


def finish(over: asyncio.Future[None]) -> None:
    if not over.done():
        over.set_result(None)
