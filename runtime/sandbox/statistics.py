"""The figures of an executor and its slots, for people and for its server. Frozen data and nothing else."""

from typing import Any

import msgspec


class SlotStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """How the slots of a runtime stand, and what was asked of them in this life."""

    slots: dict[str, int] = {}
    """How many there are in each state."""
    queued: int = 0
    """Calls that wait for their turn."""
    running: int = 0
    """Calls that were taken out of the queue and have not ended."""
    waiting: int = 0
    """Trajectories that wait for a slot."""
    trajectories: int = 0
    """In memory: with a slot or with calls."""
    batches: int = 0
    """Sent to the machine."""
    requests: int = 0
    errors: int = 0
    """Requests that came to a result without success."""
    is_started: bool = False

    def as_status(self) -> dict[str, Any]:
        """Return the same as the executor's server says it."""
        held = sum(self.slots.get(state, 0) for state in ("acquired", "executing", "releasing"))
        return {
            "queue_size": self.queued,
            "total_requests": self.requests,
            "total_errors": self.errors,
            "pool": {
                "total_slots": sum(self.slots.values()),
                "available_slots": self.slots.get("available", 0),
                "acquired_slots": held,
                "slots_by_state": self.slots,
                "waiting": self.waiting,
                "started": self.is_started,
            },
        }
