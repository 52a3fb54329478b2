"""From the address of a machine to the backend: how another process opens the slots that a log tells of.

It reads no log and starts nothing. What an application said of its backend beside the path (limits, read-only paths, a
first user id) is in no address: opened here, it has the defaults.
"""

from pathlib import Path
from typing import Final

from perdure.actors.slots.errors import SandboxUnavailableError
from perdure.runtime.sandbox.backend import Backend
from perdure.runtime.sandbox.local import Bubblewrap, PlainProcess
from perdure.runtime.sandbox.remote import RemoteBackend
from perdure.store.errors import UsageError

BUBBLEWRAP: Final = "bubblewrap"
PROCESS: Final = "process"
_URLS: Final = ("http", "https")


def kind_of(address: str) -> str:
    """Return what kind of machine an address is of: `bubblewrap`, `process`, `http`."""
    return address.partition(":")[0]


def open_backend(address: str, *, allow_unsandboxed: bool = False, token: str | None = None) -> Backend:
    """Return the backend that `Backend.address` told of; nothing is started, and no folder made.

    Raises:
        UsageError: it is the address of no backend of ours, or of plain processes, which were not allowed.
        SandboxUnavailableError: its folder is not here.
    """
    kind, _, rest = address.partition(":")
    if kind in _URLS:
        return RemoteBackend(address, token=token)
    if kind not in {BUBBLEWRAP, PROCESS} or not rest:
        known = "bubblewrap:/path, process:/path or the URL of a sandbox server"
        raise UsageError(f"{address!r} is not a machine: {known}")
    if not Path(rest).is_dir():
        raise SandboxUnavailableError(detail=f"the slots' folder {rest} is not on this machine")
    if kind == BUBBLEWRAP:
        return Bubblewrap(rest)
    return PlainProcess(rest, allow_unsandboxed=allow_unsandboxed)
