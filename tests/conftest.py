"""What holds for every test."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

# No test times anything: on a busy machine an example may take as long as it takes.
settings.register_profile("perdure", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("perdure")


def is_below(folder: Path, name: str) -> bool:
    file = getattr(sys.modules[name], "__file__", None)
    return isinstance(file, str) and Path(file).is_relative_to(folder)


@pytest.fixture(autouse=True)
def interpreter(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Leave the interpreter as it was found: commands set up logging, paths and applications for good."""
    monkeypatch.delenv("PERDURE_DB", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    found = set(sys.modules)
    yield
    structlog.reset_defaults()
    for name in set(sys.modules) - found:
        if is_below(tmp_path_factory.getbasetemp(), name):
            del sys.modules[name]
