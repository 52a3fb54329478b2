"""What is installed is what was meant: wheel, sdist and editable install, each looked at from outside the checkout.

Built without isolation and installed without dependencies, so that no network is needed: the new environments see the
packages of the one that runs the tests, but not perdure itself, since a path in a .pth file does not run the .pth files
of the folder it names.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

# One worker builds, the others go on with the rest of the suite.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("packaging")]

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis"
)
MAPPED = {"runtime/facade": "perdure", "runtime/testing": "perdure/testing"}  # the rest is perdure/<folder>


def run(*command: str | Path, cwd: Path) -> str:
    """Run *command* in *cwd* and return what it printed; nothing of this test run's environment may help it."""
    hidden = ("PYTHON", "PYTEST", "COV_")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    finished = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, f"{command}\n{finished.stdout}\n{finished.stderr}"
    return finished.stdout


class Environment:
    """A virtual environment with the packages around this test run, except perdure."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, symlinks=True)
        self.python = folder / "bin" / "python"
        self.perdure = folder / "bin" / "perdure"
        self.site_packages = Path(
            run(self.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
        )
        around = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
        (self.site_packages / "around.pth").write_text("\n".join(around) + "\n", encoding="utf-8")

    def install(self, *what: str | Path) -> None:
        options = ("--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--force-reinstall")
        run(sys.executable, "-m", "pip", "--python", self.python, "install", *options, *what, cwd=self.site_packages)


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source: a build leaves folders in the tree, and a stale one of them would end in the next wheel."""
    folder = tmp_path_factory.mktemp("checkout") / "perdure-source"
    shutil.copytree(ROOT, folder, symlinks=True, ignore=LEFT_OUT)
    return folder


@pytest.fixture(scope="session")
def sdist(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "build", "--no-isolation", "--sdist", "--outdir", folder, cwd=checkout)
    (archive,) = folder.iterdir()
    return archive


@pytest.fixture(scope="session")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", folder, cwd=checkout)
    (archive,) = folder.iterdir()
    return archive


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    environment = Environment(tmp_path_factory.mktemp("installed") / "venv")
    environment.install(wheel)
    return environment


def shipped_files() -> set[str]:
    """Where each source file belongs in the wheel."""
    shipped = set[str]()
    for layer in ("actors", "runtime", "store"):
        for path in (ROOT / layer).rglob("*"):
            source = path.relative_to(ROOT)
            if path.is_file() and "__pycache__" not in source.parts:
                folder = next((f for f in MAPPED if source.is_relative_to(f)), None)
                shipped.add(
                    f"{MAPPED[folder]}/{source.relative_to(folder).as_posix()}"
                    if folder
                    else f"perdure/{source.as_posix()}"
                )
    return shipped


def files_of(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_the_wheel_holds_every_source_file_once_and_nothing_else(wheel: Path) -> None:
    assert sorted(files_of(wheel)) == sorted(shipped_files())


def test_the_wheel_has_no_name_but_perdure_at_its_top(wheel: Path) -> None:
    assert {name.split("/")[0] for name in files_of(wheel)} == {"perdure"}


def test_the_sdist_builds_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()

    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path / "dist", cwd=source)
    (again,) = (tmp_path / "dist").iterdir()

    assert sorted(files_of(again)) == sorted(files_of(wheel))


def test_the_sdist_holds_what_the_tests_need(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tests = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("*.py")}

    assert sorted(tests - names) == []
    assert {"CHANGELOG.md", "LICENSE", "Makefile", "MANIFEST.in", "README.md", "pyproject.toml"} <= names


def test_the_installed_wheel_is_imported_from_outside_the_checkout(installed: Environment, tmp_path: Path) -> None:
    where = run(installed.python, "-c", "import perdure; print(perdure.__file__)", cwd=tmp_path).strip()

    assert Path(where) == installed.site_packages / "perdure" / "__init__.py"


def test_an_install_leaves_the_names_of_the_folders_to_the_application(installed: Environment, tmp_path: Path) -> None:
    program = "import importlib.util as u; print([n for n in ('actors', 'runtime', 'store') if u.find_spec(n)])"

    assert run(installed.python, "-c", program, cwd=tmp_path).strip() == "[]"


def test_an_application_with_folders_of_the_same_names_keeps_them(installed: Environment, tmp_path: Path) -> None:
    for name in ("actors", "runtime", "store"):
        (tmp_path / f"{name}.py").write_text("MINE = True\n", encoding="utf-8")
    program = "import perdure, actors, runtime, store; print(actors.MINE and runtime.MINE and store.MINE)"

    assert run(installed.python, "-c", program, cwd=tmp_path).strip() == "True"


def test_the_command_line_is_installed(installed: Environment, tmp_path: Path) -> None:
    as_command = run(installed.perdure, "--help", cwd=tmp_path)
    as_module = run(installed.python, "-m", "perdure", "--help", cwd=tmp_path)

    assert "Usage: perdure" in as_command
    assert "--help" in as_module


def test_the_installed_package_is_typed(installed: Environment) -> None:
    assert (installed.site_packages / "perdure" / "py.typed").exists()


def test_an_editable_install_is_imported_from_outside_the_checkout(checkout: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "venv")
    outside = tmp_path / "outside"
    outside.mkdir()

    environment.install("--editable", checkout)

    program = "import perdure, perdure.actors, perdure.store, perdure.runtime, perdure.testing; print(perdure.__file__)"
    assert Path(run(environment.python, "-c", program, cwd=outside).strip()) == checkout / "runtime/facade/__init__.py"
    assert "Usage: perdure" in run(environment.perdure, "--help", cwd=outside)


@pytest.mark.parametrize("name", ["facade", "testing"])
def test_an_editable_install_has_no_second_copy_of_a_mapped_folder(name: str, checkout: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "venv")
    environment.install("--editable", checkout)
    program = f"try:\n    import perdure.runtime.{name}\nexcept ImportError as error:\n    print('refused:', error)"

    assert run(environment.python, "-c", program, cwd=tmp_path).startswith("refused: ")


def test_every_module_of_the_installed_wheel_can_be_imported(
    installed: Environment, wheel: Path, tmp_path: Path
) -> None:
    files = (Path(name) for name in files_of(wheel) if name.endswith(".py") and not name.endswith("__main__.py"))
    modules = sorted(".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files)
    program = f"import importlib; [importlib.import_module(name) for name in {modules}]; print('imported')"

    assert run(installed.python, "-c", program, cwd=tmp_path).strip() == "imported"


@pytest.mark.timeout(1200)  # some hundred tests in one
def test_the_installed_wheel_passes_what_reads_its_files(installed: Environment, tmp_path: Path) -> None:
    """The log, the audit's views and the commands: what an install could lack, since it is no Python module."""
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=LEFT_OUT)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    chosen = sorted((tmp_path / "tests/unit").glob("test_cli_*.py"))
    chosen += [tmp_path / "tests/contracts/test_event_log.py", tmp_path / "tests/unit/test_audit.py"]
    which = "import perdure; print(perdure.__file__)"

    assert run(installed.python, "-c", which, cwd=tmp_path).startswith(str(installed.site_packages))
    assert " passed" in run(installed.python, "-m", "pytest", "--quiet", *chosen, cwd=tmp_path)
