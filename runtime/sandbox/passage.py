"""A way to folders that the users of slots may not reach, such as those below root's home.

Permissions are left as they are: in a mount namespace of its own, each such path is bound to a place that everybody may
pass, and the jail is made from there. Only root needs it, and only root can. Invariant: without it a path is itself.
"""

import shlex
import shutil
from collections.abc import Iterable
from pathlib import Path

from perdure.actors.slots.errors import SandboxUnavailableError

PLACES = (Path("/mnt"), Path("/media"), Path("/srv"), Path("/opt"))
"""Folders that a system has and that a namespace may cover; the first that leads to none of the paths is taken."""

OTHERS_MAY_PASS = 0o001


class Passage:
    """Which paths are seen elsewhere, and how that is brought about."""

    def __init__(self, paths: Iterable[Path]) -> None:
        """Find out which of *paths*, which exist, are behind a folder that others may not pass.

        Raises:
            SandboxUnavailableError: there are such, and no way to them; says what to do.
        """
        self._blocked = [path for path in (each.resolve() for each in paths) if _obstacle(path) is not None]
        self._place = self._choose() if self._blocked else None

    def _choose(self) -> Path:
        free = (place for place in PLACES if place.is_dir() and not any(_leads_to(place, p) for p in self._blocked))
        place = next(free, None)
        if place is None or shutil.which("unshare") is None or shutil.which("mount") is None:
            obstacle = _obstacle(self._blocked[0])
            raise SandboxUnavailableError(
                detail=f"as root, every slot has its own user, and {obstacle} lets no other user pass: "
                f"`chmod o+x {shlex.quote(str(obstacle))}`, install util-linux (unshare, mount), "
                "or keep the slots elsewhere, such as /var/lib/perdure"
            )
        return place

    def seen(self, path: Path | str) -> str:
        """Return where *path* is found by who went through."""
        if self._place is None:
            return str(path)
        resolved = Path(path).resolve()
        for number, blocked in enumerate(self._blocked):
            if resolved == blocked or blocked in resolved.parents:
                return str(self._place / str(number) / resolved.relative_to(blocked))
        return str(path)

    def enter(self) -> list[str]:
        """Return what stands before a command that is to go through: nothing, where all is open."""
        if self._place is None:
            return []
        place = shlex.quote(str(self._place))
        steps = [f"mount -t tmpfs -o mode=755,size=64k tmpfs {place}"]
        for number, path in enumerate(self._blocked):
            make = "mkdir" if path.is_dir() else "touch"
            steps.append(f"{make} {place}/{number} && mount --rbind {shlex.quote(str(path))} {place}/{number}")
        script = f'{" && ".join(steps)} && exec "$@"'
        return ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", script, "sh"]


def _obstacle(path: Path) -> Path | None:
    """Return the first folder on the way that others may not pass."""
    return next((p for p in reversed(path.parents) if not p.stat().st_mode & OTHERS_MAY_PASS), None)


def _leads_to(place: Path, path: Path) -> bool:
    return place == path or place in path.parents
