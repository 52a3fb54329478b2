"""How tools and their circuits stand, from the log alone: raw events, folded by the rules of the tools' own actor.

It judges no calls and writes nothing. The policies are in the code of the application: where it is not there, a refused
call says until when its circuit was open. Invariant: what cannot be read (a newer version's events) is passed over.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, cast

import msgspec

from perdure.actors.kernel.messages import Moment
from perdure.actors.tools.breaker import BreakerPolicy, Circuit, Outcome
from perdure.actors.tools.statistics import ToolStatistics, percentile
from perdure.actors.tools.tool import ToolBehavior, ToolState, statistics
from perdure.runtime.cli.exits import Exit, Failure
from perdure.runtime.cli.facts import facts_of
from perdure.runtime.cli.folding import Fold, newest, streams_of
from perdure.store.reader import LogReader
from perdure.store.records import Recorded, StreamId

TOOL_PREFIX: Final = "tool/"
TURNS: Final = ("circuit-opened", "circuit-half-opened", "circuit-closed", "circuit-forced")
"""What changes a circuit's state."""

_UNKNOWN: Final = timedelta(days=36_500)
"""Stands for the time that a circuit stays open where no code and no refusal tells it."""
_STATES: Final = ("open", "half_open", "closed")
"""From bad to good."""
_KEPT: Final = 100


class CircuitStanding(msgspec.Struct, frozen=True, kw_only=True):
    """How one circuit stands."""

    name: str
    """The tool's, with `@CONVERSATION` where each has its own."""
    figures: ToolStatistics
    recent: tuple[Outcome, ...]
    last_at: int
    turn: Recorded | None
    """The event that brought it to where it is; None: it never moved."""
    is_retry_known: bool
    """Whether `figures.retry_after_seconds` says something."""
    reason: str

    @property
    def tool(self) -> str:
        """The tool's name alone."""
        return self.name.partition("@")[0]

    @property
    def conversation(self) -> str | None:
        """Whose circuit it is; None: everybody's."""
        return self.name.partition("@")[2] or None

    @property
    def is_due(self) -> bool:
        """Whether its time has come, and the next call is the probe."""
        return self.figures.state == "half_open" and self.turn is not None and self.turn.type == "circuit-opened"

    @property
    def state(self) -> str:
        """Its state in words, with what an operator made of it."""
        return {"open": "forced open", "disabled": "disabled"}.get(self.figures.forced, self.figures.state)


class Fleet:
    """Reads the tools of a log."""

    def __init__(self, reader: LogReader, policies: Mapping[str, BreakerPolicy], now: int) -> None:
        self._reader = reader
        self._policies = policies
        self._now = now
        self._fold = Fold(reader, ToolBehavior({}))

    def standings(self, tool: str | None = None) -> Iterator[CircuitStanding]:
        """Yield how the circuits stand, all or those of one tool, in the order of their names."""
        for stream, last_at in circuits_of(self._reader, tool):
            yield self._standing(stream, last_at)

    def _standing(self, stream: StreamId, last_at: int) -> CircuitStanding:
        state = self._fold.state(stream)
        breaker = state.breaker
        turn = newest(self._reader, stream, TURNS) if breaker.generation else None
        policy = self._policies.get(state.name.partition("@")[0]) or self._told(stream, state, turn)
        figures = statistics(state, policy or BreakerPolicy(reset_timeout=_UNKNOWN), Moment(self._now, self._now))
        return CircuitStanding(
            name=state.name,
            figures=figures,
            recent=state.recent,
            last_at=last_at,
            turn=turn,
            is_retry_known=breaker.circuit is not Circuit.OPEN or bool(policy and not breaker.forced),
            reason=_word(turn) or (breaker.reason if breaker.circuit is Circuit.OPEN else ""),
        )

    def _told(self, stream: StreamId, state: ToolState, turn: Recorded | None) -> BreakerPolicy | None:
        """Return a policy with the reset timeout that the last refused call was told of."""
        if state.breaker.circuit is not Circuit.OPEN or state.breaker.forced or turn is None:
            return None
        refused = newest(self._reader, stream, ("call-refused",), after=turn.position)
        wait = 0 if refused is None else facts_of(refused).retry_after
        if refused is None or not wait:
            return None
        return BreakerPolicy(reset_timeout=timedelta(microseconds=max(0, refused.at + wait - state.breaker.opened_at)))


def _word(turn: Recorded | None) -> str:
    """Return who said what, where an operator brought a circuit to where it is."""
    if turn is None or turn.type != "circuit-forced":
        return ""
    return f"{turn.principal or 'an operator'}: {facts_of(turn).because}"


def circuits_of(reader: LogReader, tool: str | None = None) -> Iterator[tuple[StreamId, int]]:
    """Yield the streams of the circuits of a tool (of all tools when left out), and when something last happened there.

    *tool* may be a circuit's own name, `TOOL@CONVERSATION`.
    """
    for row in streams_of(reader, TOOL_PREFIX + (tool or "")):
        name = row.stream[len(TOOL_PREFIX) :]
        if tool is None or tool in (name, name.partition("@")[0]):
            yield row.stream, row.last_at


def check_known(reader: LogReader, circuit: str) -> None:
    """Check that the log knows a circuit, or a tool, of that name.

    Raises:
        Failure: it does not; names those that it knows.
    """
    if next(circuits_of(reader, circuit), None) is not None:
        return
    known = sorted({name[len(TOOL_PREFIX) :].partition("@")[0] for name, _ in circuits_of(reader)})
    raise Failure(f"this log knows no tool {circuit!r}; it knows: {', '.join(known) or 'none'}", Exit.USAGE)


class ToolFigures(msgspec.Struct, frozen=True, kw_only=True):
    """A tool, all of its circuits taken together."""

    tool: str
    figures: ToolStatistics
    circuits: tuple[CircuitStanding, ...]

    @property
    def not_closed(self) -> list[CircuitStanding]:
        """The circuits that refuse calls, or are held by an operator."""
        return [one for one in self.circuits if one.state != "closed"]

    @property
    def state(self) -> str:
        """The state of its circuit; of several, the worst, with how many are not closed."""
        if len(self.circuits) == 1:
            return self.circuits[0].state
        return f"{self.figures.state} {len(self.not_closed)}/{len(self.circuits)}" if self.not_closed else "closed"


def by_tool(standings: Iterable[CircuitStanding]) -> list[ToolFigures]:
    """Return the tools in the order of their names."""
    found: dict[str, list[CircuitStanding]] = {}
    for one in standings:
        found.setdefault(one.tool, []).append(one)
    return [ToolFigures(tool=tool, figures=_sum(found[tool]), circuits=tuple(found[tool])) for tool in sorted(found)]


def _sum(circuits: Sequence[CircuitStanding]) -> ToolStatistics:
    all_figures = [one.figures for one in circuits]
    if len(all_figures) == 1:
        return all_figures[0]
    calls = sum(one.calls for one in all_figures)
    recent = sorted((outcome for one in circuits for outcome in one.recent), key=lambda o: o.at)[-_KEPT:]
    worst = min(circuits, key=lambda one: (_STATES.index(one.figures.state), -one.figures.failures))
    failed = [one for one in sorted(circuits, key=lambda one: one.last_at) if one.figures.last_error]
    sums: dict[str, Any] = {
        name: sum(getattr(one, name) for one in all_figures)
        for name in ("successes", "calls", "rejected", "cancelled", "lost")
    }
    return msgspec.structs.replace(
        worst.figures,
        **sums,
        failures=max(one.failures for one in all_figures),
        avg_time=sum(one.avg_time * one.calls for one in all_figures) / calls if calls else 0.0,
        p50=percentile(recent, 0.5),
        p95=percentile(recent, 0.95),
        last_error=failed[-1].figures.last_error if failed else "",
    )


def figures_object(one: CircuitStanding | ToolFigures) -> dict[str, Any]:
    """Return figures for programs; what is not known is null."""
    fields = cast("dict[str, Any]", msgspec.to_builtins(one.figures))
    is_known = one.is_retry_known if isinstance(one, CircuitStanding) else all(c.is_retry_known for c in one.circuits)
    return fields | {"retry_after_seconds": fields["retry_after_seconds"] if is_known else None}
