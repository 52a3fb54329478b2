"""Makes the HTTP API of a runtime, where the packages that it takes are installed. Nothing is served here."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from perdure.runtime.serving.extra import serve_extra
from perdure.store.errors import UsageError

if TYPE_CHECKING:
    from perdure.runtime.app import Runtime
    from perdure.runtime.machinery import Machinery
    from perdure.runtime.web.api.application import HttpApi
    from perdure.runtime.web.api.roles import Tokens


def make_api(
    runtime: "Runtime",
    machinery: "Machinery",
    tokens: "Tokens | None",
    hosts: Iterable[str] | None,
    *,
    webhooks: bool,
) -> "HttpApi":
    """Return the API of *runtime*, which is not open yet. See `Runtime.http_api`.

    Raises:
        UsageError: as `Runtime.http_api`.
    """
    with serve_extra("the HTTP API"):
        from perdure.runtime.web.api.application import HttpApi  # noqa: PLC0415 - an extra

    api = HttpApi(tokens, hosts=hosts)
    adopt(api, runtime, machinery, webhooks=webhooks)
    return api


def adopt(api: "HttpApi", runtime: "Runtime", machinery: "Machinery", *, webhooks: bool) -> None:
    """Have *api* serve a runtime that is not open yet.

    Raises:
        UsageError: it is open, or a webhook has a path of the API's.
    """
    if machinery.is_open:
        raise UsageError("ask for the HTTP API before the runtime is open: it is opened and closed with it")
    api.attach(runtime, webhooks=webhooks)
    machinery.attachments.append(api)  # the last one: what lets others in is opened last and closed first
