"""Requests to other servers: JSON out, bytes in, and certainty about what may have arrived. Repeats nothing.

The one module that knows httpx2, but for webhooks that go out: an extra that is imported when a client is made. Every
request has an end: a limit on the whole, not on the next byte. Environment variables (proxies, netrc) are not asked:
neither gets to see a token.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec

from perdure.runtime.serving.access import check_token
from perdure.runtime.serving.errors import NoAnswerError, NotReachedError, UnusableReplyError
from perdure.runtime.serving.extra import serve_extra
from perdure.store.errors import UsageError

if TYPE_CHECKING:
    import httpx2

MAX_REPLY_BYTES: Final = 64 * 1024 * 1024
"""Of one reply, or of one line of a stream; an archive of 5 MB is 7 MB of base64."""

_CONNECT_SECONDS: Final = 10.0
_KEEP_ALIVE_SECONDS: Final = 2.0
"""Less than servers keep idle connections (uvicorn: 5 s): one that is being closed may swallow a request."""


class Reply(msgspec.Struct, frozen=True):
    """An answer, whatever it says."""

    status: int
    body: bytes

    def detail(self) -> str:
        """Return what an error says: its `error` or `detail` where it is JSON, else its beginning."""
        try:
            said = msgspec.json.decode(self.body, type=dict[str, Any])
        except (msgspec.MsgspecError, ValueError, RecursionError):
            said = {}
        if text := said.get("error") or said.get("detail"):
            return str(text)
        return self.body[:200].decode("utf-8", "replace").strip() or "no text"


class JsonClient:
    """A server by its URL. Close it with `aclose`."""

    def __init__(
        self, url: str, token: str | None = None, *, transport: "httpx2.AsyncBaseTransport | None" = None
    ) -> None:
        """Connect to nothing yet.

        Args:
            url: without a path of its own the server's root; a slash at its end is passed over.
            token: sent as a bearer token; none when it is empty.
            transport: another way than the network, such as `httpx2.ASGITransport`.

        Raises:
            UsageError: httpx2 is missing, it is no URL, or no header can carry the token.
        """
        check_token(token or "")  # else the library refuses each request, with the token in its words
        with serve_extra("a client of a server"):
            import httpx2  # noqa: PLC0415 - an extra: imported by who makes a client
        self.url = url.rstrip("/")
        try:
            parsed = httpx2.URL(self.url)
            is_url = parsed.scheme in {"http", "https"} and parsed.host != ""
        except httpx2.InvalidURL:
            is_url = False
        if not is_url:
            raise UsageError(f"{url!r} is no URL: write http://HOST:PORT")
        self._client = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {token}"} if token else {},
            transport=transport,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx2.Timeout(None, connect=_CONNECT_SECONDS),
            limits=httpx2.Limits(keepalive_expiry=_KEEP_ALIVE_SECONDS, max_connections=None),
        )

    async def aclose(self) -> None:
        """Close what is open to the server."""
        await self._client.aclose()

    async def get(self, path: str, *, timeout_seconds: float) -> Reply:
        """Return the answer to a GET. See `post`."""
        async with self._asked("GET", path, None, timeout_seconds) as response:
            return Reply(response.status_code, await self._whole(response))

    async def post(self, path: str, body: object, *, timeout_seconds: float) -> Reply:
        """Return the answer to a POST of *body* as JSON, whatever its status.

        Raises:
            NotReachedError: the server did not get it.
            NoAnswerError: it may have; no answer came in time, or it broke off.
            UnusableReplyError: the reply is too large.
        """
        async with self._asked("POST", path, body, timeout_seconds) as response:
            return Reply(response.status_code, await self._whole(response))

    async def lines(self, path: str, body: object, *, timeout_seconds: float) -> AsyncGenerator[Reply]:
        """Yield the lines of the answer to a POST as they come; an error's body is one of them.

        Raises: as `post`; close the generator where it is not read to its end.
        """
        async with self._asked("POST", path, body, timeout_seconds, "application/x-ndjson") as response:
            if response.status_code != 200:  # noqa: PLR2004 - OK
                yield Reply(response.status_code, await self._whole(response))
                return
            rest = b""
            async for chunk in response.aiter_bytes():
                *whole, rest = (rest + chunk).split(b"\n")
                self._check_size(len(rest), response.status_code)
                for line in whole:
                    yield Reply(response.status_code, line)
            if rest:
                raise NoAnswerError(server=self.url, detail="the answer broke off")

    @asynccontextmanager
    async def _asked(
        self, method: str, path: str, body: object, timeout_seconds: float, accept: str = "application/json"
    ) -> "AsyncGenerator[httpx2.Response]":
        import httpx2  # noqa: PLC0415 - imported already by who made the client

        headers = {"Accept": accept}
        content = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = msgspec.json.encode(body)
        limit = asyncio.timeout(timeout_seconds)
        try:
            async with (
                limit,
                self._client.stream(method, self.url + path, content=content, headers=headers) as response,
            ):
                yield response
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise NoAnswerError(server=self.url, detail=f"no answer within {timeout_seconds:g} s") from error
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol) as error:
            raise NotReachedError(server=self.url, detail=_text(error)) from error
        except httpx2.HTTPError as error:
            raise NoAnswerError(server=self.url, detail=_text(error)) from error

    async def _whole(self, response: "httpx2.Response") -> bytes:
        parts = bytearray()
        async for chunk in response.aiter_bytes():
            parts += chunk
            self._check_size(len(parts), response.status_code)
        return bytes(parts)

    def _check_size(self, size: int, status: int) -> None:
        if size > MAX_REPLY_BYTES:
            raise UnusableReplyError(server=self.url, detail=f"it is over {MAX_REPLY_BYTES} bytes", status=status)


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
