"""How large a file is. It opens none: the owner's locks on the log would fall with the file's closing (rule 3)."""

from pathlib import Path


def size_of(path: Path) -> int:
    """Return the size of a file in bytes, 0 when it does not exist."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
