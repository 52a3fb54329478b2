"""What the figures were measured on: a table without it says nothing."""

import os
import platform
import sqlite3
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import gettempdir

import msgspec

LIBRARIES = ("msgspec", "pykka", "aiosqlite")


class Machine(msgspec.Struct, frozen=True):
    """Hardware and versions."""

    processor: str
    cores: int
    system: str
    python: str
    sqlite: str
    libraries: dict[str, str]
    folder: str
    """Where the logs were; on a disk in memory every commit is free, so TMPDIR decides what is measured."""


def machine() -> Machine:
    """Return what this process runs on."""
    return Machine(
        processor=_processor(),
        cores=os.cpu_count() or 0,
        system=f"{platform.system()} {platform.release()}",
        python=f"{platform.python_implementation()} {'.'.join(map(str, sys.version_info[:3]))}",
        sqlite=sqlite3.sqlite_version,
        libraries={name: version(name) for name in LIBRARIES},
        folder=gettempdir(),
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
