"""The figures of a runtime under the keys of founding document 003: each part says its own. Reads only."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perdure.runtime.app import Runtime


async def overview(runtime: "Runtime") -> dict[str, Any]:
    """Return the figures of entry points, goals, events and shared state. See `Runtime.statistics` and `get_stats`."""
    streams = await runtime.entry_points.statistics()
    goals = tuple(runtime.goals.book)
    return {
        "running": runtime.is_running,
        "entry_points": len(streams),
        "streams": streams,
        "goal_id": goals[0] if len(goals) == 1 else None,
        "outcome_aggregator": await runtime.goals.statistics(),
        "event_bus": runtime.events.statistics(),
        "state_manager": await runtime.state.statistics(),
    }
