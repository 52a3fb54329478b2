"""The rules of the source tree, read from the source: who may import whom, and who may touch the log's file."""

import ast
import importlib
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("store", "actors", "runtime")  # each may import itself and what stands before it
FACADE, TESTING = "perdure", "perdure.testing"  # runtime/facade and runtime/testing; above every layer

TOP_LEVEL = {
    *("pyproject.toml", "runtime", "actors", "store", "tests", "README.md"),
    *("Makefile", "MANIFEST.in", "LICENSE", "CHANGELOG.md", ".ci", ".dev", ".git", ".gitignore"),
    *("benchmarks", "docs", "examples"),
}

# One connection in one process writes (rule 3): so few modules know a driver at all, each for a reason.
MAY_IMPORT_AIOSQLITE = {
    "perdure.store.connection": "it is the connection",
}
MAY_IMPORT_SQLITE3 = {
    "perdure.store.faults": "it translates the errors of sqlite3, once",
    "perdure.store.sqlite": "it catches them while reading, and asks for the version",
    "perdure.store.committer": "it catches them while writing",
    "perdure.store.reader": "it is the connection of processes that only read",
    "perdure.store.audit": "a file that SQLite cannot read is a finding",
    "perdure.store.doctor": "it tells the version, and what is wrong with a file",
}
# The owner's POSIX locks on the log fall with any close of its file in the process (rule 3): so nobody opens files
# who does not have to, and who does never opens the log, its -wal or its -shm.
MAY_OPEN_FILES = {
    "perdure.store.lock": "the owner's lock is a file of its own beside the log",
    "perdure.store.queries": "it reads the SQL that is shipped with the package",
    "perdure.actors.workflows.defined.reading": "it reads a definition in .json or .toml, and no other file",
    "perdure.runtime.views": "it reads the SQL that is shipped with the package",
    "perdure.runtime.cli.artifacts": "it writes the file that a person names, when the log is closed",
    "perdure.runtime.cli.loading": "it reads the input that a person names, before a log is opened",
    "perdure.runtime.sandbox.bubblewrap": "it writes the /etc and the filter that its jails share",
    "perdure.runtime.sandbox.cgroup": "control groups are set by writing files of the kernel's",
    "perdure.runtime.sandbox.emptying": "it opens folders of slots that it empties, and no file",
    "perdure.runtime.sandbox.outcomes": "it keeps how executions ended, in files beside each slot",
    "perdure.runtime.sandbox.place": "it keeps the newest lease of a slot in a file of its own",
    "perdure.runtime.sandbox.process": "it reads the exit code that a command's shell wrote down",
    "perdure.runtime.sandbox.processes": "it reads /proc",
    "perdure.runtime.cli.servers": "it reads the token that a person names, before a log is opened",
    "perdure.runtime.control.address": "it opens the folder of a socket whose path is too long for an address",
    "perdure.runtime.sandbox.beneath": "it opens paths of slots, which cannot leave their folder",
    "perdure.runtime.sandbox.openat": "it is how",
    "perdure.runtime.sandbox.packing": "it packs an archive in memory",
    "perdure.runtime.sandbox.multiplexer": "it writes the script that runs tmux in the jail",
    "perdure.runtime.sandbox.transcript": "it keeps how far a slot's terminal was read",
}

FILE_METHODS = {"read_bytes", "read_text", "write_bytes", "write_text", "copyfile", "copyfileobj", "copy2", "fdopen"}
FILE_MODULES = {"io", "os", "shutil", "mmap", "codecs", "tokenize", "linecache"}
FILE_FUNCTIONS = {"open", "copy", "copyfile", "copyfileobj", "copy2", "move", "fdopen", "mmap", "getlines"}
KEBAB_CASE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


class Module(NamedTuple):
    name: str
    path: Path
    tree: ast.Module

    @property
    def layer(self) -> str:
        return self.path.relative_to(ROOT).parts[0]

    def at(self, node: ast.stmt | ast.expr) -> str:
        return f"{self.path.relative_to(ROOT)}:{node.lineno}"


def package_of(folder: Path) -> str:
    """The import name of *folder*, as docs/decisions/0001-folder-mapping.md says."""
    parts = folder.relative_to(ROOT).parts
    if parts[:2] == ("runtime", "facade"):
        parts = parts[2:]
    elif parts[:2] == ("runtime", "testing"):
        parts = parts[1:]
    return ".".join(("perdure", *parts))


def read_modules() -> dict[str, Module]:
    modules: dict[str, Module] = {}
    for layer in LAYERS:
        for path in sorted((ROOT / layer).rglob("*.py")):
            package = package_of(path.parent)
            name = package if path.stem == "__init__" else f"{package}.{path.stem}"
            modules[name] = Module(name, path, ast.parse(path.read_text(encoding="utf-8"), str(path)))
    return modules


MODULES = read_modules()


def imports(module: Module, *, for_types: bool = True) -> Iterator[tuple[ast.Import | ast.ImportFrom, str]]:
    """Every module that *module* imports, wherever the statement stands, and those *for_types* only too.

    `from a import b` is `a.b` where that is a module, else `a`.
    """
    waiting: list[ast.AST] = [module.tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield node, inner if inner in MODULES else node.module or ""
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and not for_types:
            waiting += node.orelse
        else:
            waiting += ast.iter_child_nodes(node)


def importers_of(driver: str) -> set[str]:
    found = set[str]()
    for module in MODULES.values():
        found |= {module.name for _, name in imports(module) if name.split(".")[0] == driver}
    return found


def rank(name: str) -> int:
    """How high *name*, a module of perdure, stands: the facade and the test kit use all layers and none uses them."""
    if name in {FACADE, f"{FACADE}.__main__"}:
        return len(LAYERS) + 1
    if name == TESTING or name.startswith(f"{TESTING}."):
        return len(LAYERS)
    return LAYERS.index(name.split(".")[1])


def test_there_is_a_module_in_every_layer() -> None:
    layers = {module.layer for module in MODULES.values()}

    assert layers == set(LAYERS)


def test_imports_point_down_only() -> None:
    trespasses = [
        f"{module.at(node)} imports {name}"
        for module in MODULES.values()
        for node, name in imports(module)
        if name.split(".")[0] == "perdure" and rank(name) > rank(module.name)
    ]

    assert trespasses == []


def test_imports_are_absolute_and_name_perdure() -> None:
    bare = [
        f"{module.at(node)} imports {name or 'a relative name'}"
        for module in MODULES.values()
        for node, name in imports(module)
        if name.split(".")[0] in LAYERS or (isinstance(node, ast.ImportFrom) and node.level)
    ]

    assert bare == []


def test_no_one_imports_a_mapped_folder_by_the_name_of_its_place() -> None:
    second_copies = [
        f"{module.at(node)} imports {name}"
        for module in MODULES.values()
        for node, name in imports(module)
        if name.startswith(("perdure.runtime.facade", "perdure.runtime.testing"))
    ]

    assert second_copies == []


def test_modules_form_no_cycle() -> None:
    # Parts of one whole may name each other's types; what needs the other to run would be one module in two files.
    needs = {
        name: {used for _, used in imports(module, for_types=False) if used in MODULES and used != name}
        for name, module in MODULES.items()
    }

    while free := {name for name, needed in needs.items() if not needed & needs.keys()}:
        for name in free:
            del needs[name]

    assert sorted(needs) == [], "these import each other, or something that does"


@pytest.mark.parametrize("name", ["perdure.runtime.facade", "perdure.runtime.testing"])
def test_a_mapped_folder_refuses_a_second_name(name: str) -> None:
    with pytest.raises(ImportError):
        importlib.import_module(name)


def test_every_package_folder_is_listed_for_the_build() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {path.parent for layer in LAYERS for path in (ROOT / layer).rglob("*.py")}
    folders |= {path.parent for path in MODULES["perdure.store"].path.parent.rglob("*.sql")}

    assert sorted(settings["packages"]) == sorted(package_of(folder) for folder in folders)
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


def test_the_top_level_holds_only_what_a_repository_needs() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: what is ignored cannot be told")
    unknown = {path.name for path in ROOT.iterdir()} - TOP_LEVEL
    command = ["git", "check-ignore", "--stdin"]
    names = "\n".join(sorted(unknown))
    ignored = subprocess.run(command, cwd=ROOT, input=names, capture_output=True, text=True, check=False).stdout

    assert sorted(unknown - set(ignored.splitlines())) == []


def test_only_the_connection_knows_aiosqlite() -> None:
    assert sorted(importers_of("aiosqlite") - MAY_IMPORT_AIOSQLITE.keys()) == []


def test_only_named_modules_know_sqlite3() -> None:
    assert sorted(importers_of("sqlite3") - MAY_IMPORT_SQLITE3.keys()) == []


def opens_a_file(call: ast.Call) -> bool:
    """Whether *call* looks like one that opens a file. `Journal.open(...)` does not, `path.open("rb")` does."""
    match call.func:
        case ast.Name(id="open" | "copyfile" | "copyfileobj" | "copy2" | "fdopen"):
            return True
        case ast.Attribute(value=ast.Name(id=owner), attr=name) if owner in FILE_MODULES:
            return name in FILE_FUNCTIONS
        case ast.Attribute(attr=name) if name in FILE_METHODS:
            return True
        case ast.Attribute(value=owner, attr="open"):
            return mode_of(call) is not None or looks_like_a_path(owner)
        case _:
            return False


def mode_of(call: ast.Call) -> str | None:
    given = [*call.args[:1], *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    for value in given:
        if isinstance(value, ast.Constant) and isinstance(value.value, str) and re.fullmatch("[rwxabt+]+", value.value):
            return value.value
    return None


def looks_like_a_path(value: ast.expr) -> bool:
    match value:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name.lower().endswith(("path", "file"))
        case ast.Call(func=ast.Name(id="Path")) | ast.BinOp(op=ast.Div()):
            return True
        case _:
            return False


def test_nobody_opens_files_who_does_not_have_to() -> None:
    openers = [
        module.at(node)
        for module in MODULES.values()
        if module.name not in MAY_OPEN_FILES
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and opens_a_file(node)
    ]

    assert openers == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("open(path)", True),
        ("io.open(name)", True),
        ("os.open(name, flags)", True),
        ("shutil.copy(a, b)", True),
        ("mmap.mmap(fd, 0)", True),
        ("Path(name).open()", True),
        ("(folder / name).open()", True),
        ("self._path.open('rb')", True),
        ("target.open(mode='wb')", True),
        ("path.read_bytes()", True),
        ("SqliteEventLog.open(path)", False),
        ("journal.open()", False),
        ("copy(state)", False),
    ],
)
def test_a_call_that_opens_a_file_is_told_from_one_that_does_not(source: str, *, expected: bool) -> None:
    call = ast.parse(source, mode="eval").body

    assert isinstance(call, ast.Call)
    assert opens_a_file(call) is expected


def test_every_tag_is_spelled_by_hand_in_kebab_case() -> None:
    tags = [
        (f"{module.at(node)} {node.name}", keyword.value)
        for module in MODULES.values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef)
        for keyword in node.keywords
        if keyword.arg == "tag"
    ]
    wrong = [
        f"{place}: {ast.unparse(tag)}"
        for place, tag in tags
        if not (isinstance(tag, ast.Constant) and isinstance(tag.value, str) and KEBAB_CASE.fullmatch(tag.value))
    ]

    assert wrong == []
