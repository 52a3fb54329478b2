"""The configuration of founding document 003, with its names and defaults, as the settings of a runtime. Data only."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from perdure.runtime.settings import Settings
from perdure.runtime.web.webhooks.route import WebhookRoute
from perdure.store.expected import check_fields


class AgentRuntimeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a runtime may be told in the words of document 003; `settings()` and `routes()` are what `Runtime` takes."""

    max_concurrent_executions: int = 100
    cache_ttl: float = 60.0
    """Of a cache of the store that document 003 has: there is none here, and this changes nothing."""
    batch_interval: float = 0.1
    """Seconds between that store's writes: here what is acknowledged is durable, and this changes nothing."""
    max_history: int = 1000
    """Events that the bus remembers: here the log has all of them, and this changes nothing."""
    execution_result_max: int = 1000
    execution_result_ttl_seconds: float | None = None
    webhook_host: str = "127.0.0.1"
    webhook_port: int = 8080
    webhook_routes: Sequence[Mapping[str, Any]] = []
    """Of each `source_id`, `path`, `methods` and `secret`."""

    def __post_init__(self) -> None:
        check_fields(self)

    def settings(self) -> Settings:
        """Return the settings: `Runtime(…, settings=config.settings())`."""
        return Settings(
            max_concurrent_executions=self.max_concurrent_executions,
            execution_result_max=self.execution_result_max,
            execution_result_ttl_seconds=self.execution_result_ttl_seconds,
            webhook_host=self.webhook_host,
            webhook_port=self.webhook_port,
        )

    def routes(self) -> tuple[WebhookRoute, ...]:
        """Return the routes of its webhooks: `Runtime(…, webhooks=config.routes())`.

        Raises:
            UsageError: one lacks a word, has an unknown one, or cannot be that.
        """
        return tuple(WebhookRoute.from_spec(each) for each in self.webhook_routes)
