"""What is in a folder of a workspace, with a bound on how much is looked at. It opens folders, never files."""

import os
import posixpath
import stat
from collections import deque
from typing import NamedTuple

from perdure.runtime.sandbox.beneath import Beneath, MissingPathError, PathError, closing


class Found(NamedTuple):
    """Something in a workspace: its path from the workspace's top, and its own status, not that of a link's target."""

    path: str
    status: os.stat_result


def walk(workspace: Beneath, top: str, *, recursive: bool, bound: int) -> tuple[list[Found], bool]:
    """Return at most *bound* things in the folder *top*, sorted by path, and whether there is more.

    One folder is open at a time, so no depth can use up the descriptors; links are never followed. A folder too deep
    for a path, or closed to us, counts as more. What disappears meanwhile does not count.

    Raises:
        PathError: *top* itself cannot be listed.
    """
    found: dict[str, Found] = {}
    folders, has_more = deque([top]), False
    while folders:
        folder = folders.popleft()
        try:
            opened = workspace.open_folder(folder, follows=folder == top)
        except PathError as error:
            if folder == top:
                raise
            has_more |= not isinstance(error, MissingPathError)
            continue
        with closing(opened), os.scandir(opened) as entries:
            for entry in entries:
                if len(found) == bound:
                    return sorted(found.values()), True
                try:
                    each = Found(posixpath.normpath(f"{folder}/{entry.name}"), entry.stat(follow_symlinks=False))
                except FileNotFoundError:
                    continue
                # Somebody who renames can make a name appear twice: the first counts, so that what is listed beneath
                # a path is always beneath a folder of the list.
                if found.setdefault(each.path, each) is each and recursive and stat.S_ISDIR(each.status.st_mode):
                    folders.append(each.path)
    return sorted(found.values()), has_more
