"""The HTTP API as an ASGI application: who may ask, which endpoint, what comes back. It decides nothing about runs.

It is also an attachment of the runtime that it serves: opened last and closed first, so that whatever it answers was
asked of a runtime that was open. Invariants: every request gets one answer of the description, or none when who asked
has left; neither a token, a body nor a query is in any line of a log.
"""

import asyncio
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias
from urllib.parse import quote

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from perdure.actors.kernel.accounts import account_of
from perdure.actors.kernel.logs import logger
from perdure.runtime.serving.access import Access
from perdure.runtime.web.api.endpoint import JSON, Call, Endpoint
from perdure.runtime.web.api.limits import ApiLimits
from perdure.runtime.web.api.openapi import describe
from perdure.runtime.web.api.problems import MEDIA_TYPE, Refused, problem_of
from perdure.runtime.web.api.reading import Bodies, check_names_no_secret, read_body, read_path, read_query
from perdure.runtime.web.api.roles import Caller, Tokens
from perdure.runtime.web.api.shapes import Health, Readiness
from perdure.runtime.web.api.streaming import EventStream
from perdure.runtime.web.api.table import TABLE, Found, Routes
from perdure.runtime.web.api.waiting import Waiting, draining, end_tasks
from perdure.store.errors import UsageError

if TYPE_CHECKING:
    from perdure.runtime.app import Runtime

State: TypeAlias = Literal["opening", "ready", "draining", "failed", "closed"]

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
OWN_PATHS: Final = frozenset({"/health", "/ready", "/openapi.json"})
"""What is the API's beside everything under `/v1/`."""

_PARAMETER: Final = re.compile(r"\\\{[^}]*\\\}")
"""In the path of a webhook, escaped."""

_encode = msgspec.json.Encoder().encode
_log = logger("perdure.http")


class ApiStatistics(msgspec.Struct, frozen=True):
    """Figures of the API since it was made."""

    state: State
    requests: int
    refused: int
    """Answered with a status from 400 to 499."""
    failed: int
    """Answered with a status from 500 on."""
    at_once: int
    """Requests on their way now, streams apart."""
    streams: int
    """Streams of events that are open now."""


class HttpApi:
    """The API of one runtime, `rt.http_api(…)`; an ASGI application."""

    def __init__(
        self,
        tokens: Tokens | None = None,
        *,
        hosts: Iterable[str] | None = LOOPBACK,
        limits: ApiLimits | None = None,
    ) -> None:
        """Describe an API; it answers 503 until its runtime is open.

        Args:
            tokens: who is let in; without any, everybody who reaches it, with the role `operate`.
            hosts: the names that requests may be for, and whose pages may send them; None: any, which takes tokens.
            limits: see `ApiLimits`.

        Raises:
            UsageError: neither tokens nor names.
        """
        self.tokens = tokens or Tokens()
        if hosts is None and not self.tokens.known:
            raise UsageError("without tokens the API answers to this machine's own names only: give it tokens")
        names = None if hosts is None else frozenset(name.lower() for name in hosts)
        self._access = Access(hosts=names)
        self.limits = limits or ApiLimits()
        self.state: State = "opening"
        self.webhooks: ASGIApp | None = None
        """Who answers what is not the API's own; None: nobody."""
        self.logs_requests = False
        """Whether each request is a line of the log; servers that it is mounted in mostly have lines of their own."""
        self._guards_webhooks = False
        self._hooks: dict[str, re.Pattern[str]] = {}
        self._rt: Runtime | None = None
        self._waiting = Waiting()
        self._bodies = Bodies()
        self._routes = Routes()
        self._description = _encode(describe(TABLE, has_tokens=bool(self.tokens.known)))
        self._at_once: set[asyncio.Task[Any]] = set()
        self._streams: set[asyncio.Task[Any]] = set()
        self._requests = self._refused = self._failed = 0
        self._failure = asyncio.Event()

    def statistics(self) -> ApiStatistics:
        """Return the figures."""
        streams = len(self._streams)
        return ApiStatistics(
            self.state, self._requests, self._refused, self._failed, len(self._at_once) - streams, streams
        )

    # As an attachment

    def attach(self, rt: "Runtime", *, webhooks: bool = False) -> None:
        """Serve *rt*, which is not open yet; with *webhooks*, its webhooks too, on the paths that are not the API's."""
        self._rt = rt
        if webhooks and rt.webhooks.routes:
            for route in rt.webhooks.routes:
                if is_own(route.path):
                    raise UsageError(f"webhook {route.path}: that path is the HTTP API's, choose another")
                self._hooks[route.path] = re.compile(_PARAMETER.sub("[^/]+", re.escape(route.path)))
            self.webhooks = rt.webhooks.app
            self._guards_webhooks = any(route.secret is None for route in rt.webhooks.routes)

    async def open(self) -> None:
        """Answer requests from here on."""
        self._waiting = Waiting()
        self.state = "ready"

    async def close(self) -> None:
        """Take no new request, end the waits and streams, and let the other requests end. Idempotent."""
        if self.state in ("opening", "ready"):
            self.state = "draining"
        self._waiting.end()
        rest = self._at_once - {asyncio.current_task()}
        if rest and self._rt is not None:
            await asyncio.wait(rest, timeout=max(1.0, self._rt.settings.drain.total_seconds()))
        if rest := {task for task in rest if not task.done()}:
            await end_tasks(*rest)

    async def abandon(self) -> None:
        """End as `kill -9` would."""
        self.state = "closed"
        self._waiting.end()
        if rest := self._at_once - {asyncio.current_task()}:
            await end_tasks(*rest)

    def log_failed(self) -> None:
        """Take no new request: nothing can be recorded any more."""
        self.state = "failed"
        self._waiting.end()
        self._failure.set()

    async def until_failed(self) -> None:
        """Return once nothing can be recorded any more."""
        await self._failure.wait()

    # As an ASGI application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = _path(scope)
        if self.webhooks is not None and not is_own(path):
            denial = self._access.denial(path, Request(scope).headers) if self._guards_webhooks else None
            if denial is None:
                await self._hook(self.webhooks, path, scope, receive, send)
                return
        request = Request(scope, receive)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - every server runs a request in a task
        began = asyncio.get_running_loop().time()
        self._at_once.add(task)
        self._requests += 1
        name = ""
        status = 499
        try:
            name, response = await self._response(request, path)
            status = response.status_code
            if isinstance(response, EventStream):
                self._streams.add(task)
            await response(scope, receive, send)
        except (ClientDisconnect, OSError):
            pass  # who asked has left
        finally:
            self._at_once.discard(task)
            self._streams.discard(task)
            self._note(request.method, name, status, asyncio.get_running_loop().time() - began)

    async def _hook(self, webhooks: ASGIApp, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        began, status = asyncio.get_running_loop().time(), 499

        async def told(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)  # the start of the answer has it
            await send(message)

        self._requests += 1
        try:
            await webhooks(scope, receive, told)
        finally:
            name = next((route for route, shape in self._hooks.items() if shape.fullmatch(path)), "other")
            self._note(scope["method"], name, status, asyncio.get_running_loop().time() - began)

    def _note(self, method: str, name: str, status: int, seconds: float) -> None:
        self._refused += 400 <= status < 500  # noqa: PLR2004
        self._failed += status >= 500  # noqa: PLR2004
        if self.logs_requests and name not in OWN_PATHS:
            _log.info("request", method=method, path=name, status=status, milliseconds=round(seconds * 1000, 1))

    async def _response(self, request: Request, path: str) -> tuple[str, Response]:
        """Return which line of the table was asked for, and the answer."""
        name = path if path in OWN_PATHS else "other"
        try:
            self._check_origin(request, path)
            if path in OWN_PATHS:
                return name, self._own(request, path)
            found = self._routes.find(request.method, path)
            if not isinstance(found, Found):
                raise _no_route(found, request.method)  # noqa: TRY301 - answered below, as every refusal is
            name = found.endpoint.path
            return name, await self._answered(request, found)
        except (ClientDisconnect, asyncio.CancelledError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, who asked is told
            if isinstance(error, UsageError) and self._rt is not None and not self._rt.is_running:
                error = draining()  # it closed under the request
            problem, headers = problem_of(error)
            if problem.status == 500:  # noqa: PLR2004 - our fault
                _log.error("a request failed", method=request.method, path=name, exception=account_of(error))
            return name, Response(_encode(problem), problem.status, headers, MEDIA_TYPE)

    def _check_origin(self, request: Request, path: str) -> None:
        denial = self._access.denial(path, request.headers)
        if denial is not None:
            raise Refused(denial.status, "ForbiddenOriginError", denial.detail)

    def _own(self, request: Request, path: str) -> Response:
        if request.method != "GET":
            raise _no_route(("GET",), request.method)
        if path == "/health":
            return _json(Health())
        if path == "/ready":
            return _json(Readiness(self.state), 200 if self.state == "ready" else 503)
        return Response(self._description, media_type=JSON)

    async def _answered(self, request: Request, found: Found) -> Response:
        endpoint = found.endpoint
        caller = self._caller(request, endpoint)
        rt = self._ready()
        if len(self._at_once) > self.limits.requests:
            raise Refused(503, "TooManyRequestsError", "too many requests at once", {"Retry-After": "1"})
        path = read_path(endpoint, found.parts)
        query = read_query(request, endpoint.query)
        body = await read_body(request, endpoint.body, self.limits, self._bodies)
        if not caller.may("admin"):
            check_names_no_secret(body)
        call = Call(rt, caller, request, self._waiting, self.limits, path, query, body)
        answer = await endpoint.does(call)
        if isinstance(answer, EventStream) and len(self._streams) >= self.limits.streams:
            raise Refused(503, "TooManyStreamsError", "too many streams are open", {"Retry-After": "5"})
        return answer if isinstance(answer, Response) else _json(answer.value, answer.status, answer.headers)

    def _caller(self, request: Request, endpoint: Endpoint) -> Caller:
        given = request.headers.getlist("authorization")
        if len(given) > 1:  # a proxy may have looked at the other one
            raise Refused(401, "UnauthorizedError", "one token at a time", {"WWW-Authenticate": "Bearer"})
        scheme, _, token = "".join(given).partition(" ")
        caller = self.tokens.caller(token.strip() if scheme.lower() == "bearer" and token.strip() else None)
        if caller is None:
            detail = "a token is needed: Authorization: Bearer TOKEN" if not scheme else "the token is not known"
            raise Refused(401, "UnauthorizedError", detail, {"WWW-Authenticate": "Bearer"})
        if not caller.may(endpoint.role):
            detail = f"this takes the role {endpoint.role}; yours is {caller.role}"
            if not self.tokens.known:
                detail += ": start the server with a token of that role"
            raise Refused(403, "ForbiddenError", detail)
        return caller

    def _ready(self) -> "Runtime":
        match self.state:
            case "ready" if self._rt is not None:
                return self._rt
            case "draining":
                raise draining()
            case "failed":
                raise Refused(503, "LogWriteError", "the log takes no more writes", {"Retry-After": "5"})
            case _:
                raise Refused(503, "NotOpenError", "the runtime is not open", {"Retry-After": "1"})


def is_own(path: str) -> bool:
    """Return whether a path is the API's."""
    return path in OWN_PATHS or path == "/v1" or path.startswith("/v1/")


def _path(scope: Scope) -> str:
    """Return the path as it was sent, percent-encoded, without that of where the application is mounted."""
    raw = scope.get("raw_path")
    path = quote(scope["path"]) if raw is None else raw.partition(b"?")[0].decode("ascii", "replace")
    root = quote(scope.get("root_path", ""))
    return path.removeprefix(root) if root else path


def _json(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(_encode(value), status, {"Cache-Control": "no-store", **(headers or {})}, JSON)


def _no_route(methods: Iterable[str], method: str) -> Refused:
    if allowed := ", ".join(sorted(set(methods))):
        detail = f"{method} is not for this path; {allowed} is"
        return Refused(405, "MethodNotAllowedError", detail, {"Allow": allowed})
    return Refused(404, "UnknownPathError", "there is nothing at this path: see /openapi.json")


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
