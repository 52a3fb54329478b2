"""What the fault tests share: the shim, built once, and a way to need what a machine may lack."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.faults.reopened")


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that makes the disk fail, to be loaded before the C library."""
    if shutil.which("gcc") is None:
        if "CI" in os.environ:
            pytest.fail("gcc is missing: .ci/run installs it")
        pytest.skip("gcc is not here: apt-get install gcc libc6-dev")
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    source = Path(__file__).with_name("shim.c")
    flags = ["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run(["gcc", *flags, "-o", str(library), str(source), "-ldl"], check=True)
    return library
