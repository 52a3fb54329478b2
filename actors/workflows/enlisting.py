"""What a run that leaves memory tells the index of sleepers, so that events find it there.

Not here: the waits themselves (`listening.py`). Invariant: a run leaves memory in one unit with its entries; one for
which an event may have come meanwhile is not listed, and is due at once.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from perdure.actors.kernel.messages import Command
from perdure.actors.kernel.shell import Shell
from perdure.actors.triggers.listing import ListedWait, Listen, StopListening, listing_of, place_of
from perdure.actors.triggers.wanted import Wanted
from perdure.actors.workflows.events import RunFact, RunParked
from perdure.actors.workflows.steering import PAUSED
from perdure.actors.workflows.subscriptions import Subscriptions
from perdure.store.errors import LogClosedError, LogWriteError
from perdure.store.records import StreamId

if TYPE_CHECKING:
    from perdure.actors.workflows.driver import Driver


async def with_listings(driver: "Driver", fact: RunFact) -> tuple[RunFact, list[tuple[Shell, Command]]]:
    """Return why a run leaves memory, with what the index of sleepers is told in the same unit.

    A run that waits for events is listed at the places of its waits, and no more at those where it was and is not.

    Raises:
        Parked: the log failed.
    """
    held: Subscriptions = driver.shell.state.events
    if not isinstance(fact, RunParked) or not (held.waits or held.listed):
        return fact, []
    waits = {} if fact.waits_on == PAUSED else held.waits  # what lets it go on has it look back
    wanted = {step: Wanted(wait.wanted.encode()) for step, wait in waits.items()}
    seen = {step: driver.events_seen.get(step, wait.after) for step, wait in waits.items()}
    listed = _by_place(wanted, seen)
    places = sorted({*listed, *held.listed})
    shells = await _shells(driver, [listing_of(place, driver.run_id) for place in places])
    exchange = driver.engine.exchange
    if any(exchange.is_behind(each.types, seen[step]) for step, each in wanted.items()):
        return RunParked(driver.engine.clock.moment().now, None), []  # one came while the code was leaving
    moves: list[tuple[Shell, Command]] = []
    for place, shell in zip(places, shells, strict=True):
        exchange.sleepers.listed(place)
        known = listed.get(place)
        moves.append((shell, StopListening() if known is None else Listen(driver.run_id, tuple(known))))
    return msgspec.structs.replace(fact, listens=tuple(sorted(listed))), moves


def _by_place(wanted: dict[str, Wanted], seen: dict[str, int]) -> dict[str, list[ListedWait]]:
    listed: dict[str, list[ListedWait]] = {}
    for step, each in wanted.items():
        for type in each.types:
            either = tuple(each.where(type))
            listed.setdefault(place_of(type, either), []).append(ListedWait(step, either, seen[step]))
    return listed


async def leave_listings(driver: "Driver") -> None:
    """Take a run that is about to end off the index of sleepers: nobody needs to look for it there.

    Raises:
        Parked: the log failed.
    """
    listed = driver.shell.state.events.listed
    if listed and driver.ending is None:
        for shell in await _shells(driver, [listing_of(place, driver.run_id) for place in listed]):
            driver.engine.system.ref(shell.stream).tell(StopListening(), correlation=driver.run_id)


async def _shells(driver: "Driver", streams: Sequence[StreamId]) -> list[Shell]:
    """Return actors, all of them in memory at the same moment."""
    directory = driver.engine.system.directory
    while True:
        shells = [shell for stream in streams if (shell := directory.active(stream)) is not None]
        if len(shells) == len(streams):
            return shells
        try:
            await asyncio.gather(*(_activated(driver, stream) for stream in streams))
        except (LogWriteError, LogClosedError) as error:
            driver.log_failed(error)


async def _activated(driver: "Driver", stream: StreamId) -> Any:
    return await driver.engine.system.directory.activate(stream)
