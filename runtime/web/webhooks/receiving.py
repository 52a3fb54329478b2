"""The ASGI application of the webhooks: each delivery is read, checked, recorded, and only then accepted.

It knows starlette. Invariant: 202 says that the delivery's event is durable, 200 that it was already; whatever else is
answered, or nothing, its sender must send it again.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from perdure.actors.kernel.logs import logger
from perdure.runtime.serving.access import OPEN, Access
from perdure.runtime.serving.exchange import answer, application
from perdure.runtime.web.webhooks.delivery import DeliveryData, payload_of, query_params, recorded_headers
from perdure.runtime.web.webhooks.figures import Tally, WebhookStatistics
from perdure.runtime.web.webhooks.route import WebhookRoute
from perdure.runtime.web.webhooks.signatures import Delivered, Verifier, body_id, challenge, delivery_id
from perdure.store.errors import PayloadTooLargeError, PerdureError, UsageError

BODY_SECONDS: Final = 30
"""How long a sender may take to send a body."""
MAX_AT_ONCE: Final = 1_000
"""Deliveries that may be on their way at the same time; more are asked to come again."""
MAX_BYTES_AT_ONCE: Final = 64 * 1024 * 1024
"""And the bytes of their bodies."""
RETRY_AFTER: Final = {"Retry-After": "5"}
_LAST: Final = {"Connection": "close"}
_PARAMETER: Final = re.compile(r"\{[^}:]*")
_log = logger("perdure.webhooks")


class ServedRoute(msgspec.Struct, frozen=True, eq=False):
    """A route with what proves its sender; without that anybody is let in."""

    route: WebhookRoute
    verifier: Verifier | None


class Delivery(msgspec.Struct, frozen=True):
    """A delivery that was let in, to be recorded."""

    source: str
    id: str | None
    """What it is known again by."""
    correlation: str | None
    """What its sender calls it."""
    data: DeliveryData


Record = Callable[[Delivery], Awaitable[bool]]
"""Makes a delivery durable; returns whether it is new."""


class Desk:
    """Takes deliveries in: at most so many at a time, and none once it is closed."""

    def __init__(self, record: Record, now: Callable[[], int]) -> None:
        self._record = record
        self._now = now
        self._reading: set[asyncio.Timeout] = set()
        self.open_access: Access = OPEN
        """Who may use the routes that are not signed."""
        self.is_closed = False
        self.at_once = 0
        self.bytes_at_once = 0
        self._tally = Tally()
        self._told: set[tuple[str, str]] = set()

    def statistics(self, routes: int) -> WebhookStatistics:
        """Return the figures, given how many routes there are."""
        return self._tally.statistics(routes, self.at_once)

    def close(self) -> None:
        """Take nothing new: who has not sent all of a delivery is told to come again. Idempotent."""
        self.is_closed = True
        loop = asyncio.get_running_loop()
        for limit in self._reading:
            if not limit.expired():
                limit.reschedule(loop.time())

    async def take(self, request: Request, served: ServedRoute) -> Response:
        """Record the delivery that a request is, and answer it.

        Raises:
            HTTPException: it is not accepted; says why.
            ClientDisconnect: who sent it left before its end.
        """
        self.at_once += 1
        try:
            return await self._take(request, served)
        except HTTPException as error:
            self._tally.refuse(error.status_code)
            raise
        finally:
            self.at_once -= 1

    async def _take(self, request: Request, served: ServedRoute) -> Response:
        route = served.route
        if self.is_closed or self.at_once > MAX_AT_ONCE:
            raise _later()
        if served.verifier is None and (denial := self.open_access.denial(route.path, request.headers)) is not None:
            raise HTTPException(denial.status, denial.detail, _LAST)
        delivered = Delivered(request.headers, await self._body(request, route.max_bytes))
        if served.verifier is not None and (fault := served.verifier.fault(delivered, self._now())) is not None:
            self._tell(route.path, served.verifier.account(delivered, fault))
            raise HTTPException(401, fault)
        payload = payload_of(delivered.body)
        if (text := challenge(route.scheme if served.verifier else None, payload)) is not None:
            return answer({"challenge": text})
        scheme = route.scheme if served.verifier else None
        id = delivery_id(scheme, delivered, payload, route.delivery_header)
        data = DeliveryData(
            path=request.scope["path"],
            method=request.method,
            headers=recorded_headers(request.headers.items()),
            payload=payload,
            query_params=query_params(request.scope["query_string"].decode("latin-1")),
            path_params={name: str(value) for name, value in request.path_params.items()},
        )
        known_by = body_id(delivered.body) if route.dedupe == "body" else id
        return await self._recorded(Delivery(route.source, known_by, id, data))

    def _tell(self, path: str, reason: str) -> None:
        """Log why deliveries to a route are refused, each reason once: they may be somebody's who only tries."""
        if (path, reason) not in self._told:
            self._told.add((path, reason))
            _log.warning("a delivery is not signed as its route asks", path=path, reason=reason)

    async def _recorded(self, delivery: Delivery) -> Response:
        time = asyncio.get_running_loop().time
        began = time()
        try:
            is_new = await self._record(delivery)
        except PayloadTooLargeError:
            raise HTTPException(413, "Payload too large") from None
        except PerdureError as error:  # the log is closed, full or has failed: nothing may be said to be durable
            _log.warning("a delivery was not accepted", source=delivery.source, reason=str(error))
            raise _later() from error
        # Durable before visible: the event is on disk, or was before.
        if is_new:
            self._tally.accept(time() - began)
            return answer({"status": "accepted"}, 202)
        self._tally.duplicates += 1
        return answer({"status": "duplicate"})

    async def _body(self, request: Request, limit: int) -> bytes:
        said = request.headers.get("content-length", "0")
        if said.isdecimal() and int(said[:20]) > limit:
            raise _too_large(limit)
        try:
            async with asyncio.timeout(BODY_SECONDS) as patience:
                self._reading.add(patience)
                try:
                    return await self._read(request, limit)
                finally:
                    self._reading.discard(patience)
        except TimeoutError:
            raise _later() if self.is_closed else HTTPException(408, "The body took too long", _LAST) from None

    async def _read(self, request: Request, limit: int) -> bytes:
        parts = bytearray()
        try:
            async for part in request.stream():
                parts += part
                self.bytes_at_once += len(part)
                if len(parts) > limit:
                    raise _too_large(limit)
                if self.bytes_at_once > MAX_BYTES_AT_ONCE:
                    raise _later()
            return bytes(parts)
        finally:
            self.bytes_at_once -= len(parts)


def webhook_app(served: Iterable[ServedRoute], desk: Desk) -> Starlette:
    """Return the application of some routes.

    Raises:
        UsageError: two of them have a path and a method in common, or a path is no template.
    """
    by_path: dict[str, dict[str, ServedRoute]] = {}
    taken: dict[tuple[str, str], WebhookRoute] = {}
    for one in served:
        methods = by_path.setdefault(one.route.path, {})
        for method in one.route.methods:
            other = taken.setdefault((method, _PARAMETER.sub("{", one.route.path)), one.route)
            if other is not one.route:
                detail = f"two webhooks take {method} {one.route.path}, {other.source} and {one.route.source}"
                raise UsageError(f"{detail}: give them different paths, or one route both secrets")
            methods[method] = one
    # What has no parameter is looked at first, whatever the order of registration: /t/new is not /t/{id}.
    paths = sorted(by_path, key=lambda path: path.count("{"))
    app = application(_table(paths, by_path, desk), OPEN, _error_shape)
    app.router.redirect_slashes = False
    return app


def _table(paths: Sequence[str], by_path: dict[str, dict[str, ServedRoute]], desk: Desk) -> list[Route]:
    try:
        return [Route(path, _endpoint(by_path[path], desk), methods=list(by_path[path])) for path in paths]
    except (AssertionError, ValueError) as error:  # how starlette says that a path is no template
        raise UsageError(f"the path of a webhook is not a template: {error}") from error


def _endpoint(by_method: dict[str, ServedRoute], desk: Desk) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        served = by_method.get(request.method)
        if served is None:  # starlette answers HEAD where GET is; a delivery it is not
            raise HTTPException(405, headers={"Allow": ", ".join(by_method)})
        return await desk.take(request, served)

    return endpoint


def _error_shape(text: str) -> dict[str, str]:
    return {"error": text}


def _later() -> HTTPException:
    return HTTPException(503, "Not accepted now: send it again later", {**RETRY_AFTER, **_LAST})


def _too_large(limit: int) -> HTTPException:
    return HTTPException(413, f"The body is over {limit} bytes", _LAST)
