"""The extra `serve`: one sentence in place of a traceback where its packages are missing."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from perdure.store.errors import UsageError

_PACKAGES: Final = frozenset({"httpx2", "standardwebhooks", "starlette", "uvicorn"})


@contextmanager
def serve_extra(what: str) -> Generator[None]:
    """Say what to install when an import in this block finds that a package of the extra is missing.

    Raises:
        UsageError: names the package and the extra.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _PACKAGES:
            raise
        raise UsageError(f"{what} needs {package}, which is not installed: pip install 'perdure[serve]'") from error
