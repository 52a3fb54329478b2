"""One request and its answer, for every server here: bodies read within bounds, JSON both ways, errors as JSON.

It knows starlette, and nothing of what is asked. Invariant: no body, whatever is in it, ends as an error of the server.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, TypeAlias, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

from perdure.runtime.serving.access import Access

T = TypeVar("T")

Shape: TypeAlias = Callable[[str], Mapping[str, Any]]
"""Makes an error's body from its text: each wire format has its own."""

MAX_BODY_BYTES: Final = 32 * 1024 * 1024
"""Of one request: a batch of 200 files of 100,000 bytes, each byte of them escaped, is 20 to 30 MB."""

LEFT: Final = 499
"""The status for nobody: who asked is gone. nginx's number."""

_encoder = msgspec.json.Encoder()


def application(
    routes: Sequence[BaseRoute], access: Access, shape: Shape, lifespan: Lifespan[Starlette] | None = None
) -> Starlette:
    """Return an application that lets in who may come in, and says every error in its *shape*."""

    async def refused(_: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else LEFT
        detail = error.detail if isinstance(error, HTTPException) else "the caller left"
        return answer(shape(detail), status, error.headers if isinstance(error, HTTPException) else None)

    async def broken(_: Request, error: Exception) -> Response:
        return answer(shape(f"Internal error: {type(error).__name__}"), 500)

    return Starlette(
        routes=routes,
        middleware=[Middleware(_Guard, access=access, shape=shape)],
        exception_handlers={HTTPException: refused, ClientDisconnect: refused, Exception: broken},
        lifespan=lifespan,
    )


class _Guard:
    """Refuses who may not come in before anything of the body is read."""

    def __init__(self, app: ASGIApp, access: Access, shape: Shape) -> None:
        self._app = app
        self._access = access
        self._shape = shape

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            denial = self._access.denial(scope["path"], Headers(scope=scope))
            if denial is not None:
                headers = {"WWW-Authenticate": "Bearer"} if denial.status == 401 else None  # noqa: PLR2004
                await answer(self._shape(denial.detail), denial.status, headers)(scope, receive, send)
                return
        elif scope["type"] != "lifespan":
            return  # no route of ours speaks anything else: the connection is refused
        await self._app(scope, receive, send)


def detail_shape(text: str) -> Mapping[str, Any]:
    """Return an error as the tool server and the executor server say it."""
    return {"detail": text}


def error_shape(text: str) -> Mapping[str, Any]:
    """Return an error as the sandbox server says it."""
    return {"success": False, "error": text}


def answer(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return *value* as a JSON reply."""
    return Response(_encoder.encode(value), status, headers, media_type="application/json")


async def read(request: Request, kind: type[T], *, not_json: str = "Invalid JSON") -> T:
    """Return the body of a request as a *kind*.

    Raises:
        HTTPException: 413 it is too large, 400 it is not JSON or does not fit, 422 a field that must be there is not.
        ClientDisconnect: who sent it left before its end.
    """
    found: T = await read_json(request, kind, not_json=not_json)
    return found


async def read_json(request: Request, kind: Any = Any, *, not_json: str = "Invalid JSON") -> Any:
    """Return the body of a request as whatever JSON it is. See `read`."""
    body = await _body(request)
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        text = str(error)
        raise HTTPException(422 if text.startswith("Object missing required field") else 400, text) from None
    except RecursionError:
        raise HTTPException(400, f"{not_json}: it is nested too deeply") from None
    except (msgspec.MsgspecError, ValueError):
        raise HTTPException(400, not_json) from None


async def _body(request: Request) -> bytes:
    said = request.headers.get("content-length", "0")
    if said.isdecimal() and int(said[:20]) > MAX_BODY_BYTES:
        raise _too_large()
    parts = bytearray()
    async for part in request.stream():
        parts += part
        if len(parts) > MAX_BODY_BYTES:
            raise _too_large()
    return bytes(parts)


def _too_large() -> HTTPException:
    return HTTPException(413, f"the body is over {MAX_BODY_BYTES} bytes")


async def unless_left(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return what *work* returns; when who asked leaves before that, it is cancelled. Call it after the body was read.

    Raises:
        ClientDisconnect: who asked has left.
        Whatever the work raises.
    """
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_left(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.wait((working, leaving))
        for task in (working, leaving):
            if not task.cancelled():
                task.exception()  # looked at, so that asyncio does not report it as lost


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
