"""What an application says of its slots and of the calls in them, with the defaults and their reasons."""

import msgspec

from perdure.actors.slots.policy import Policy
from perdure.store.errors import UsageError
from perdure.store.expected import check_fields


class ExecutorConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the executor and of its pool of slots."""

    batch_window_ms: int = 20
    """How long the first call of a batch waits for others, in milliseconds; negative is 0."""
    max_batch_size: int = 200
    """A batch of so many calls does not wait any longer."""
    allow_network: bool = True
    require_sandbox: bool = False
    require_stateful_sandbox: bool = False
    tool_server_url: str | None = None
    """Where tools marked `external=True` are called."""
    tool_server_token: str | None = None
    external_timeout_seconds: float = 30.0
    """Of an external call that names no limit: never without end."""
    min_slots: int = 0
    """Slots made at the start, and never given up."""
    max_slots: int = 100
    warm_slots: int = 0
    """Empty slots kept ready, so that a new trajectory waits for nothing."""
    acquire_timeout_seconds: float = 30.0
    """How long a trajectory waits for a slot when there may not be more of them."""
    lease_seconds: float = 600.0
    """How long a holder elsewhere keeps its slot without being heard of; then it is reset and given to others."""
    idle_seconds: float = 600.0
    """A free slot over `min_slots` that nobody took for so long is deleted."""
    health_seconds: float = 30.0
    """Between two looks at the health of free slots."""
    max_queued: int = 10_000
    """Calls that may wait at the same time; more are refused."""

    def __post_init__(self) -> None:
        """Check what can be checked at once.

        Raises:
            UsageError: a number is out of its range.
        """
        check_fields(self)
        if self.max_slots < 1 or not 0 <= self.min_slots <= self.max_slots:
            raise UsageError(f"0 <= min_slots <= max_slots and max_slots >= 1, not {self.min_slots}, {self.max_slots}")

    def __repr__(self) -> str:
        """Show everything but the token."""
        shown = ((name, getattr(self, name)) for name in self.__struct_fields__ if name != "tool_server_token")
        return f"ExecutorConfig({', '.join(f'{name}={value!r}' for name, value in shown)})"

    @property
    def policy(self) -> Policy:
        """What commands may do."""
        return Policy(
            allow_network=self.allow_network,
            require_sandbox=self.require_sandbox,
            require_stateful_sandbox=self.require_stateful_sandbox,
        )
