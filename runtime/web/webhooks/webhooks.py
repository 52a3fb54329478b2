"""The webhooks of a runtime, `rt.webhooks`: routes, the ASGI application, the server, and what deliveries start.

Not here: how one delivery is read (`receiving.py`). Invariant: a delivery becomes an event `webhook_received`, once;
whatever it starts is started from that event, once, also when the runtime ends in between.
"""

from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Final

import msgspec

from perdure.actors.kernel.payloads import Secret, encode_payload
from perdure.actors.triggers.errors import PublicationConflictError
from perdure.actors.triggers.event_names import RECEIVED
from perdure.actors.triggers.kinds import Webhook
from perdure.actors.triggers.log_event import LogEvent
from perdure.actors.triggers.topic import Publish, topic_of
from perdure.runtime.entries.event_entries import RETRY
from perdure.runtime.entries.event_subscription import EventSubscription
from perdure.runtime.serving.access import Access, is_loopback
from perdure.runtime.serving.extra import serve_extra
from perdure.runtime.web.webhooks.figures import WebhookStatistics
from perdure.runtime.web.webhooks.route import WebhookRoute, check_secrets
from perdure.runtime.web.webhooks.serving import WebhookApp, WebhookServer
from perdure.store.errors import UsageError
from perdure.store.expected import checked_but

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from perdure.runtime.app import Runtime
    from perdure.runtime.machinery import Machinery
    from perdure.runtime.web.webhooks.receiving import Delivery, Desk, ServedRoute

PREFIX: Final = "webhook:"
"""The subscription by which deliveries start an entry point is called by this and its id."""


@checked_but("__init__")
class Webhooks:
    """The webhooks of a runtime; an attachment, opened last and closed first."""

    def __init__(self, runtime: "Runtime", machinery: "Machinery", routes: Iterable[WebhookRoute]) -> None:
        self._runtime = runtime
        self._machinery = machinery
        self._own = tuple(routes)
        if not all(isinstance(route, WebhookRoute) for route in self._own):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UsageError("Runtime(webhooks=[WebhookRoute(source='github', path='/github'), …])")
        self._app = WebhookApp()
        self._desk: Desk | None = None
        self._subscriptions: list[EventSubscription] = []
        self.server: WebhookServer | None = None
        """The runtime's own server, while it is open and has routes; its `port` and `url` say where."""

    @property
    def routes(self) -> tuple[WebhookRoute, ...]:
        """The routes, those of entry points among them."""
        return (*self._own, *(WebhookRoute.of_entry(entry, trigger) for entry, trigger in self._entries()))

    @property
    def app(self) -> "ASGIApp":
        """The ASGI application of the routes, to be mounted in another: `Mount("/hooks", app=rt.webhooks.app)`.

        It may be had before the runtime is open; whatever comes in while it is not is answered with 503. Set
        `Settings(webhook_port=None)` if the runtime is not to serve the routes as well.

        Raises:
            UsageError: the extra `serve` is not installed.
        """
        with serve_extra("webhooks"):
            import_module("starlette")
        return self._app

    def statistics(self) -> WebhookStatistics:
        """Return the figures."""
        routes, desk = len(self.routes), self._desk
        return WebhookStatistics(routes, 0, 0, 0, 0) if desk is None else desk.statistics(routes)

    def _entries(self) -> list[tuple[str, Webhook]]:
        known = self._runtime.entry_points.list()
        return [(entry.id, trigger) for entry in known if isinstance(trigger := entry.trigger, Webhook)]

    # As an attachment

    async def open(self) -> None:
        """Have entry points started by what comes in, and let it come in.

        Raises:
            UsageError: routes contradict each other, a secret is unknown or empty, the port cannot be had, an open
                route could be reached from other machines, or the extra `serve` is not installed.
        """
        if not (routes := self.routes):
            return
        with serve_extra("a runtime with webhooks"):
            from perdure.runtime.web.webhooks.receiving import Desk, webhook_app  # noqa: PLC0415 - an extra

        settings, clock = self._machinery.parts.settings, self._machinery.parts.clock
        desk = Desk(self._record, lambda: clock.moment().now)
        app = webhook_app([self._ready(route) for route in routes], desk)
        if settings.webhook_port is not None:
            desk.open_access = _access(settings.webhook_host, routes)
        for entry, _ in self._entries():
            await self._bind(entry)
        self._app.routes, self._desk = app, desk
        if settings.webhook_port is not None:
            self.server = WebhookServer(settings.webhook_host, settings.webhook_port)
            await self.server.open(self._app)

    async def close(self) -> None:
        """Take in nothing new; what is on its way is answered. Idempotent."""
        if self._desk is not None:
            self._desk.close()
        if (server := self.server) is not None:
            await server.close()
            self.server = None
        while self._subscriptions:  # what is not started by now is in the next life
            self._subscriptions.pop().unsubscribe()

    async def abandon(self) -> None:
        """Let go of everything; nothing more can be recorded, so nothing more is accepted."""
        await self.close()

    def log_failed(self) -> None:
        """Accept nothing more."""
        if self._desk is not None:
            self._desk.is_closed = True

    # What comes in

    def _ready(self, route: WebhookRoute) -> "ServedRoute":
        from perdure.runtime.web.webhooks.receiving import ServedRoute  # noqa: PLC0415 - an extra
        from perdure.runtime.web.webhooks.signatures import Verifier  # noqa: PLC0415 - an extra

        if route.secret is None:
            return ServedRoute(route, None)
        values = tuple(self._value(secret, route) for secret in route.secrets)
        check_secrets(values, route.path)
        tolerance = round(route.tolerance.total_seconds() * 1_000_000)
        return ServedRoute(route, Verifier(route.scheme, values, tolerance))

    def _value(self, secret: Secret | str, route: WebhookRoute) -> str:
        if isinstance(secret, str):
            return secret
        value = self._machinery.parts.secrets(secret.name)
        if value == "":
            raise UsageError(f"the secret of webhook {route.path} is empty: Secret({secret.name!r}) has no value")
        if value is None:
            where = "give it in Runtime(secrets=…) or as an environment variable"
            raise UsageError(
                f"webhook {route.path} is signed with Secret({secret.name!r}), which has no value: {where}"
            )
        return value

    async def _record(self, delivery: "Delivery") -> bool:
        data = encode_payload(delivery.data, where="the delivery", redaction=self._machinery.parts.redaction)
        id = None if delivery.id is None else f"{delivery.source}:{delivery.id}"
        event = Publish(msgspec.Raw(data), id, source=delivery.source, correlation=delivery.correlation)
        try:
            # Not Runtime.publish: while the runtime closes, what is on its way is still recorded.
            is_new: bool = await self._machinery.system.ref(topic_of(RECEIVED)).ask(event)
        except PublicationConflictError:  # the same delivery, sent again with other headers
            return False
        return is_new

    async def _bind(self, entry: str) -> None:
        """Have an entry point started by each delivery of its route; where it was is kept in the log."""

        async def start(event: LogEvent) -> None:
            await self._runtime.entry_points.fire(
                entry,
                {"event": event.to_dict()},
                kind="webhook",
                key=_key(entry, event),
                correlation=event.correlation,
                # Of a delivery 0. A run may publish such an event too, even one that starts itself: that has to end.
                depth=event.depth if event.run is None else event.depth + 1,
                cause=event.position,
            )

        subscription = self._runtime.events.subscribe(
            start, (RECEIVED,), name=PREFIX + entry, stream=entry, retry=RETRY
        )
        self._subscriptions.append(subscription)
        await subscription.opened()  # in the log before anything comes in: a crash then makes it miss nothing


def _key(entry: str, event: LogEvent) -> str:
    """Return what tells a delivery from all others, however old: its sender's id, or else its place in the log."""
    id = event.id or "#"
    return f"@{event.position}" if id.startswith("#") else id.removeprefix(f"{entry}:")


def _access(host: str, routes: Iterable[WebhookRoute]) -> Access:
    """Return who may use the routes that are not signed; on this machine not the pages of a browser."""
    if is_loopback(host):
        return Access().bound_to(host)
    for route in routes:
        if route.secret is None:
            detail = f"webhook {route.path} has no secret and could be reached from other machines on {host}"
            raise UsageError(f"{detail}: give it one, listen on 127.0.0.1, or mount rt.webhooks.app in your own server")
    return Access()
