"""A circuit breaker as one would write it on a napkin, to judge the one in the log. It shares no code with it.

It reads the events of one tool's stream: from outcomes and admissions it foretells every transition, so one that is
missing, or that nothing caused, is an error.
"""

from typing import Any

import msgspec

from perdure.store.records import Recorded


class NaiveBreaker:
    """Where a breaker must stand after the events fed to it."""

    def __init__(self, threshold: int, reset_seconds: float) -> None:
        self.threshold = threshold
        self.reset_micros = round(reset_seconds * 1_000_000)
        self.state = "closed"
        self.streak = 0
        self.opened_at = 0
        self.generation = 0
        self.counts = {"calls": 0, "successes": 0, "rejected": 0, "cancelled": 0, "lost": 0}
        self._must_follow: str | None = None

    def feed(self, event: Recorded) -> None:
        data: dict[str, Any] = msgspec.json.decode(event.data or "{}")
        kind = event.type
        if self._must_follow is not None:
            assert kind == self._must_follow, f"{self._must_follow} is missing before {event}"
        elif kind in ("circuit-opened", "circuit-closed"):
            raise AssertionError(f"nothing caused {event}")
        self._must_follow = None
        getattr(self, "_" + kind.replace("-", "_"))(data)

    def done(self) -> None:
        assert self._must_follow is None, f"{self._must_follow} is missing at the end"

    def reported(self, low: int, high: int) -> set[str]:
        """Return the states that may be reported between two times: what is open is half open once it is time."""
        if self.state != "open":
            return {self.state}
        due = self.opened_at + self.reset_micros
        return {"half_open"} if low > due else {"open"} if high <= due else {"open", "half_open"}

    def _call_succeeded(self, data: dict[str, Any]) -> None:
        self.counts["calls"] += 1
        self.counts["successes"] += 1
        if data["generation"] == self.generation:
            self.streak = 0
            if self.state == "half_open":
                self._must_follow = "circuit-closed"

    def _call_failed(self, data: dict[str, Any]) -> None:
        self.counts["calls"] += 1
        if data["generation"] == self.generation:
            self.streak += 1
            if self.state == "half_open" or (self.state == "closed" and self.streak >= self.threshold):
                self._must_follow = "circuit-opened"

    def _circuit_opened(self, data: dict[str, Any]) -> None:
        self.state, self.opened_at = "open", data["at"]
        self._next_generation(data)

    def _circuit_half_opened(self, data: dict[str, Any]) -> None:
        assert self.state == "open", "half open without having been open"
        assert data["at"] > self.opened_at + self.reset_micros, "half open before its time"
        self.state, self._must_follow = "half_open", "probe-admitted"
        self._next_generation(data)

    def _circuit_closed(self, data: dict[str, Any]) -> None:
        self.state, self.streak = "closed", 0
        self._next_generation(data)

    def _next_generation(self, data: dict[str, Any]) -> None:
        self.generation += 1
        assert data["generation"] == self.generation

    def _probe_admitted(self, data: dict[str, Any]) -> None:
        assert self.state == "half_open", f"a probe while {self.state}"

    def _call_refused(self, data: dict[str, Any]) -> None:
        assert self.state != "closed", "refused by a closed circuit"
        self.counts["rejected"] += 1

    def _call_cancelled(self, data: dict[str, Any]) -> None:
        self.counts["cancelled"] += 1

    def _call_lost(self, data: dict[str, Any]) -> None:
        self.counts["lost"] += 1

    def _call_started(self, data: dict[str, Any]) -> None:
        assert self.state != "open", "let through by an open circuit"
