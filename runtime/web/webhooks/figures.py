"""The figures of the webhooks: what came in since the runtime was opened, and why not. No HTTP library.

Invariant: they are counted in memory and rest on nothing, so each life of a program begins at zero; what was accepted
ever is in the log, as the events `webhook_received`.
"""

from typing import Final

import msgspec

REASONS: Final = {401: "not_signed", 403: "forbidden", 408: "too_slow", 413: "too_large", 503: "not_now"}
"""What a refusal is counted as, by the status that it is answered with."""


class WebhookStatistics(msgspec.Struct, frozen=True):
    """Figures of the webhooks since the runtime was opened."""

    routes: int
    accepted: int
    """Deliveries that became events."""
    duplicates: int
    """Deliveries that had come in before."""
    refused: int
    """Those that were not signed, too large, or came at a bad time; not what was for no route, or left half way."""
    at_once: int
    """Deliveries on their way now."""
    refused_for: dict[str, int] = {}
    """The refused ones by reason: `not_signed`, `forbidden` (of an unsigned route, from elsewhere), `too_slow`,
    `too_large`, `not_now` (the runtime closes, the log takes no more, too much at once)."""
    mean_seconds: float = 0.0
    """From a delivery's being read and checked to its event's being durable: of the accepted ones, on average."""
    longest_seconds: float = 0.0


class Tally:
    """Counts deliveries."""

    def __init__(self) -> None:
        self.accepted = 0
        self.duplicates = 0
        self.refused: dict[str, int] = {}
        self._seconds = 0.0
        self._longest = 0.0

    def accept(self, seconds: float) -> None:
        """Count a delivery that was recorded, and how long that took."""
        self.accepted += 1
        self._seconds += seconds
        self._longest = max(self._longest, seconds)

    def refuse(self, status: int) -> None:
        """Count a delivery that was answered with an error."""
        reason = REASONS.get(status, "other")
        self.refused[reason] = self.refused.get(reason, 0) + 1

    def statistics(self, routes: int, at_once: int) -> WebhookStatistics:
        """Return the figures."""
        return WebhookStatistics(
            routes,
            self.accepted,
            self.duplicates,
            sum(self.refused.values()),
            at_once,
            dict(self.refused),
            self._seconds / self.accepted if self.accepted else 0.0,
            self._longest,
        )
