"""Calls that people approve before they are made: the code's side.

Not here: what counts as an approval (`asking.py`). Invariant: what is called is the tool that was approved, with
exactly the arguments that were approved, and no other tool in its place.
"""

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, TypeVar

import msgspec

from perdure.actors.tools.definition import Tool
from perdure.actors.workflows.asking import Verdict, argument_digest
from perdure.actors.workflows.branch import Branch, enter
from perdure.actors.workflows.errors import StepFailedError
from perdure.actors.workflows.waiting import Question, ask_people
from perdure.store.errors import UsageError

if TYPE_CHECKING:
    from perdure.actors.workflows.context import Context
    from perdure.actors.workflows.driver import Driver

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Approval(Generic[R_co]):
    """What became of the approval of a call; `ctx.call_approved(approval)` makes the call."""

    __slots__ = ("_verdict", "tool")

    def __init__(self, tool: "Tool[..., R_co]", verdict: Verdict) -> None:
        self.tool = tool
        """The tool of the call."""
        self._verdict = verdict

    def __repr__(self) -> str:
        return f"<Approval {self.tool.name} {self.outcome}>"

    @property
    def outcome(self) -> Literal["approved", "rejected", "expired"]:
        """What people said, or that they did not say it in time."""
        return self._verdict.outcome

    @property
    def is_approved(self) -> bool:
        """Whether the call may be made."""
        return self._verdict.outcome == "approved"

    @property
    def by(self) -> tuple[str, ...]:
        """Who approved it, or who rejected it."""
        return self._verdict.by

    @property
    def reason(self) -> str:
        """Why it was rejected."""
        return self._verdict.reason

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments that were approved, from JSON."""
        arguments: dict[str, Any] = msgspec.json.decode(self._verdict.arguments)
        return arguments

    @property
    def is_edited(self) -> bool:
        """Whether somebody changed the arguments before they were approved."""
        return self._verdict.is_edited


class Approvers:
    """Who is to approve; `of(tool, …)` asks them. Made by `Context.approval`."""

    __slots__ = ("_ctx", "_driver", "_key", "_several", "_text", "_timeout", "_to")

    def __init__(
        self,
        ctx: "Context",
        driver: "Driver",
        *,
        key: str | None,
        text: str | None,
        to: tuple[str, ...],
        timeout: timedelta | None,
        several: int,
    ) -> None:
        self._ctx = ctx
        self._driver = driver
        self._key = key
        self._text = text
        self._to = to
        self._timeout = timeout
        self._several = several

    async def of(self, tool: Tool[P, R], *args: P.args, **kwargs: P.kwargs) -> Approval[R]:
        """Ask whether *tool* may be called with these arguments, and wait for what people say.

        A person may change the arguments before approving them; they are then checked as those of a call are. The call
        is not made here. A run that only waits for people leaves memory.

        Raises:
            InvalidArgumentsError: the arguments do not fit; nothing was asked.
            UsageError: the text and the arguments are too long, or `timeout` or `several` is out of range.
        """
        branch = enter()
        try:
            return await self._ask(branch, tool, args, kwargs)
        finally:
            branch.is_inside = False

    async def _ask(
        self, branch: Branch, tool: Tool[..., R], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Approval[R]:
        arguments = tool.encode_arguments(args, kwargs, self._driver.engine.redaction)
        key = branch.key("approve") if self._key is None else branch.named_key(self._key)
        text = self._text or f"call {tool.name}?"
        question = Question(text, Verdict, None, self._timeout, self._to, self._several, tool=tool, arguments=arguments)
        try:
            verdict: Verdict = await ask_people(self._driver, branch, key, question)
        except StepFailedError as error:
            if error.error_type != "TimeoutError":
                raise
            verdict = Verdict("expired", (), "", msgspec.Raw(arguments), is_edited=False)
        return Approval(tool, verdict)


def approved_arguments(approval: Approval[Any], tool: Tool[..., Any], encoded: bytes) -> None:
    """Check that a call is the one that was approved.

    Raises:
        UsageError: nobody approved it.
    """
    approved = argument_digest(approval.tool.name, msgspec.json.encode(approval.arguments))
    if argument_digest(tool.name, encoded) != approved:
        raise UsageError(
            f"the arguments of {tool.name} are read otherwise than they were approved: the call is not made"
        )
