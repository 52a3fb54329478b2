"""What an operator does with slots, through a running executor: empty one, run a command in one.

Whoever holds a slot is asked for by name: nothing is taken from a trajectory, and nothing is done in its name, unless
that was said. What is done is in the log, with who did it.
"""

import asyncio
import contextlib
from typing import Final

from perdure.actors.slots.calls import ToolCall, ToolResult
from perdure.actors.slots.commands import SlotView
from perdure.actors.slots.errors import SlotTransitionError
from perdure.actors.slots.slot import NOBODY
from perdure.runtime.sandbox.executor import ToolExecutor
from perdure.store.errors import PerdureError

BECAUSE: Final = "operator"
"""Why a slot is released that an operator takes away, as the log has it."""

END_SECONDS: Final = 20.0
"""Longer than a command that is ended has between TERM and KILL."""


async def reset_slot(executor: ToolExecutor, slot: str, *, who: str, take_away: bool = False) -> str | None:
    """Empty a slot; the way out of quarantine. With *take_away* also one that a trajectory holds: it loses its files.

    Return the trajectory that it was taken from. Durable on return.

    Raises:
        SlotTransitionError: somebody holds it.
        ResetFailedError: it could not be emptied, and is quarantined.
        SlotError: there is no such slot.
    """
    view = _view(executor, slot)
    if not take_away or view.trajectory is None:
        await executor.pool.reset(slot, principal=who)
        return None
    await executor.release_trajectory(
        view.trajectory, reset_workspace=True, cancel=True, because=BECAUSE, principal=who
    )
    return view.trajectory


async def run_in_slot(
    executor: ToolExecutor,
    slot: str,
    call: ToolCall,
    *,
    who: str,
    as_holder: bool = False,
    timeout_seconds: float | None = None,
) -> tuple[str, ToolResult]:
    """Run a call in a slot; return the trajectory that it was recorded in, and the result.

    A slot that is free and empty is taken for a trajectory of the operators' own, and emptied afterwards. With
    *as_holder* the call is one of the trajectory that holds the slot, or whose files the slot keeps, and runs after
    those that this trajectory waits for.

    Raises:
        SlotTransitionError: it is quarantined, or it is a trajectory's and *as_holder* was not said.
        ResetFailedError: the command ran, and the slot could not be emptied after it; it is quarantined.
        SlotError: there is no such slot.
    """
    view = _view(executor, slot)
    if view.trajectory is not None and view.state != "releasing":
        _check_name(view, f"trajectory {view.trajectory} holds it", as_holder=as_holder)
        return view.trajectory, await _run(executor, view.trajectory, call, who, timeout_seconds)
    if view.state != "available":
        _refuse(view, view.error)
    if view.keeps_files_of == NOBODY:
        _refuse(view, "and its reset did not end: reset it")
    if view.keeps_files_of is not None:
        _check_name(view, f"it keeps the files of trajectory {view.keeps_files_of}", as_holder=as_holder)
    trajectory = view.keeps_files_of or operators_trajectory(slot)
    await executor.take_slot(trajectory, slot)
    try:
        result = await _run(executor, trajectory, call, who, timeout_seconds)
    finally:
        is_ours = view.keeps_files_of is None
        await executor.release_trajectory(trajectory, reset_workspace=is_ours, because=BECAUSE, principal=who)
    return trajectory, result


async def _run(
    executor: ToolExecutor, trajectory: str, call: ToolCall, who: str, timeout_seconds: float | None
) -> ToolResult:
    """Run a call; cancelled, return when its end is recorded, so that nobody has to settle it afterwards."""
    try:
        return await executor.execute(trajectory, call, timeout_seconds, principal=who)
    except asyncio.CancelledError:
        with contextlib.suppress(PerdureError, TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                await executor.find(call.uniq_id)
        raise


def operators_trajectory(slot: str) -> str:
    """Return the trajectory that an operator's commands in a slot of nobody's are recorded in."""
    return f"operator:{slot}"


def _view(executor: ToolExecutor, slot: str) -> SlotView:
    return executor.pool.view(executor.pool.shell(slot))


def _check_name(view: SlotView, why: str, *, as_holder: bool) -> None:
    if not as_holder:
        _refuse(view, why)


def _refuse(view: SlotView, why: str) -> None:
    because = f", {why}" if why else ""
    raise SlotTransitionError(slot=view.slot, verb="run a command in", state=view.state, because=because)
