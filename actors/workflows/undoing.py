"""The compensations of a failed saga, from the recording or live to their end.

When a saga fails, and what it undoes, is said in `saga.py`. Invariant: each compensation is one recorded step with the
key of the step that it undoes, so a crash neither skips one nor repeats one that has ended; one that fails for good
keeps no other from running.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import msgspec

from perdure.actors.kernel.payloads import encode_payload
from perdure.actors.kernel.shell import Shell
from perdure.actors.tools.definition import Tool
from perdure.actors.tools.retry import NO_RETRY, Retry
from perdure.actors.workflows.branch import Branch, enter
from perdure.actors.workflows.calls import StepCall
from perdure.actors.workflows.definition import digest
from perdure.actors.workflows.doubt import Standstill
from perdure.actors.workflows.errors import Parked, StepFailedError
from perdure.actors.workflows.events import StepKind
from perdure.actors.workflows.steps import Step, begin_step
from perdure.store.errors import UsageError

if TYPE_CHECKING:
    from perdure.actors.workflows.driver import Driver
    from perdure.actors.workflows.endings import Verdict

COMPENSATION_RETRY = Retry(attempts=5, backoff=timedelta(seconds=1))
"""For compensations without a policy of their own: what is not undone needs a person."""


class Compensation(msgspec.Struct, frozen=True, eq=False):
    """What undoes a call."""

    driver: "Driver"
    tool: Tool[..., Any]
    kind: StepKind
    arguments: bytes | None
    """As JSON; None: they are made from what the call returned."""
    retry: Retry
    unsure: bool
    """Whether it undoes also what may have happened."""
    made_by: Callable[[Any], dict[str, Any]] | None = None
    """Makes its arguments of what the call returned; pure."""
    timeout: timedelta | None = None
    """How long an attempt may take, in place of what the tool says."""
    instead: "Compensation | None" = None
    """Called once where this one has failed for good."""

    @classmethod
    def of(
        cls,
        driver: "Driver",
        made_of: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        retry: Retry | None,
        *,
        unsure: bool,
    ) -> "Compensation":
        """Return what undoes a call with *made_of*, a tool or an async function. See `Saga.undo_with`."""
        tool = _as_tool(driver, made_of)
        if taken := {"retry", "unsure"} & set(tool.parameters):
            raise UsageError(f"{tool.name} has a parameter {min(taken)!r}, which undo_with takes itself: wrap the tool")
        arguments = None
        if args or kwargs or not tool.parameters:
            arguments = tool.encode_arguments(args, kwargs, driver.engine.redaction)
        return cls.by(driver, made_of, None, retry, unsure=unsure, arguments=arguments)

    @classmethod
    def by(
        cls,
        driver: "Driver",
        made_of: Callable[..., Any],
        made_by: Callable[[Any], dict[str, Any]] | None,
        retry: Retry | None,
        *,
        unsure: bool,
        timeout: timedelta | None = None,
        arguments: bytes | None = None,
    ) -> "Compensation":
        """Return what undoes a call with arguments that *made_by* makes of its result. See `Saga.undo_by`."""
        tool = _as_tool(driver, made_of)
        kind: StepKind = "tool" if isinstance(made_of, Tool) else "function"
        own = COMPENSATION_RETRY if tool.retry == NO_RETRY else tool.retry
        return cls(driver, tool, kind, arguments, retry or own, unsure, made_by, timeout)

    async def prepare(self) -> None:
        """See to it that the tool is known before anything is done that it is to undo.

        Raises:
            UsageError: another tool has its name.
        """
        branch = enter()
        try:
            await self.shell(self.tool)
        finally:
            branch.is_inside = False
        if self.instead is not None:
            await self.instead.prepare()

    async def shell(self, tool: Tool[..., Any]) -> Shell | None:
        """Return the actor of its tool, or of the one that stands by; None for a function, which has none."""
        if self.kind == "function":
            return None
        toolbox, conversation = self.driver.engine.toolbox, self.driver.conversation
        return toolbox.shell_in_memory(tool, conversation) or await toolbox.shell(tool, conversation)

    def encoded(self, result: object) -> bytes:
        """Return its arguments as JSON, for a call that returned *result*.

        What does not fit the tool's parameter is found when it is called, and needs a person then: the call was made.
        """
        if self.arguments is not None:
            return self.arguments
        given = {self.tool.parameters[0]: result} if self.made_by is None else self.made_by(result)
        return encode_payload(given, where=f"{self.tool.name}()", redaction=self.driver.engine.redaction, stable=True)


def _as_tool(driver: "Driver", made_of: Callable[..., Any]) -> Tool[..., Any]:
    return cast("Tool[..., Any]", made_of) if isinstance(made_of, Tool) else driver.engine.toolbox.as_tool(made_of)


class Due(msgspec.Struct, frozen=True, eq=False):
    """A step of a saga that was made, and what is to be done should the saga fail."""

    place: tuple[int, ...]
    """Where in the code of the run it was made."""
    undoes: str
    """Its key."""
    compensation: Compensation | None
    arguments: bytes = b""
    instead: bytes = b""
    """The arguments of the compensation that stands by for it."""

    @classmethod
    def of(cls, place: tuple[int, ...], undoes: str, compensation: Compensation | None, result: object) -> "Due":
        """Return what is due for a step that returned *result*."""
        if compensation is None:
            return cls(place, undoes, None)
        instead = b"" if compensation.instead is None else compensation.instead.encoded(result)
        return cls(place, undoes, compensation, compensation.encoded(result), instead)

    @property
    def calls(self) -> "list[tuple[Compensation, Tool[..., Any], bytes, Retry]]":
        """What undoes it, one after the other until one has: the tool, the one that stands by for it, and the last."""
        made = self.compensation
        if made is None:
            return []
        fallback = None if made.kind == "function" else made.tool.fallback
        tools = [made.tool] if fallback is None else [made.tool, fallback]
        last = [] if made.instead is None else [(made.instead, made.instead.tool, self.instead, NO_RETRY)]
        return [*((made, tool, self.arguments, made.retry) for tool in tools), *last]


class _Undoing:
    """One compensation on its way: its call, and those that stand by for it."""

    def __init__(self, driver: "Driver", branch: Branch, due: Due, compensation: Compensation) -> None:
        self._driver = driver
        self._branch = branch
        self._compensation = compensation
        self._step: Step | None = None
        self.undoes = due.undoes
        last = len(due.calls) - 1
        self._calls = [
            StepCall(
                key=f"{due.undoes}#undo" + "~" * number,
                kind=made.kind,
                tool=tool,
                arguments=arguments,
                digest=digest(tool.name, arguments),
                retry=retry,
                timeout=made.timeout or tool.timeout,
                may_fall_back=number < last,
                stuck="compensation" if number == last else "",
                undoes=due.undoes,
            )
            for number, (made, tool, arguments, retry) in enumerate(due.calls)
        ]

    @property
    def key(self) -> str:
        """The key of the step that is under way."""
        return self._calls[0].key

    async def undo(self, verdict: "Verdict | None" = None) -> bool:
        """Undo, with a *verdict* where it stood still; return False when a person gave it up.

        Raises:
            Standstill: it waits for a person.
        """
        while not await self._is_done(verdict):
            if len(self._calls) == 1:
                return False
            del self._calls[0]
            verdict = None
        return True

    async def _is_done(self, verdict: "Verdict | None") -> bool:
        call = self._calls[0]
        shell = await self._compensation.shell(call.tool)
        if shell is not None:
            shell.pins += 1
        try:
            if verdict is not None and self._step is not None:
                await self._step.perform_after(verdict, shell)
                return True
            begun = await begin_step(self._driver, self._branch, call, shell)
            if isinstance(begun, Step):
                self._step = begun
                await begun.perform()
        except StepFailedError:
            return False
        finally:
            if shell is not None:
                shell.pins -= 1
        return True


async def undo_all(driver: "Driver", branch: Branch, due: Sequence[Due]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Undo what is due, one after the other; return the keys of what was undone, and of what a person gave up.

    Raises:
        Parked: the run leaves memory; it goes on here in its next life.
    """
    undoings = [_Undoing(driver, branch, one, one.compensation) for one in due if one.compensation is not None]
    undone: dict[str, bool] = {}
    left: list[tuple[_Undoing, Verdict | None]] = [(one, None) for one in undoings]
    waiting: list[_Undoing] = []
    while left or waiting:
        one, verdict = left.pop(0) if left else await _verdict_on(driver, branch, waiting)
        try:
            undone[one.undoes] = await one.undo(verdict)
        except Standstill:
            waiting.append(one)
    keys = [one.undoes for one in undoings]
    return tuple(key for key in keys if undone[key]), tuple(key for key in keys if not undone[key])


async def _verdict_on(driver: "Driver", branch: Branch, waiting: "list[_Undoing]") -> "tuple[_Undoing, Verdict]":
    """Wait until a person says what became of one of those that wait, which is taken off the list."""
    while True:
        for one in waiting:
            if (verdict := driver.verdict(one.key)) is not None:
                waiting.remove(one)
                return one, verdict
        try:
            await driver.wait(branch, None, waiting[0].key, others=tuple(one.key for one in waiting[1:]))
        except asyncio.CancelledError:
            if driver.ending is None or driver.engine.is_loop_ending:
                raise  # a task that ends with anything but its cancellation would be reported by the loop
            raise Parked from None
