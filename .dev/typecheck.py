"""Run pyright over every source file, test, example and benchmark, and fail unless it read every one of them.

pyright skips hidden and linked folders and calls the empty rest a success. So the installed package is laid out under
build/types from real folders with links to files, and the number of files that pyright analysed must be the number of
files that are there.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TREE = ROOT / "build" / "types"
# Import names of the mapped folders: docs/decisions/0001-folder-mapping.md. A folder that is mapped by itself is left
# out of the one it lies in.
MAPPED = {
    "runtime/facade": "perdure",
    "runtime/testing": "perdure/testing",
    "runtime": "perdure/runtime",
    "actors": "perdure/actors",
    "store": "perdure/store",
}


def mapped_to(source: Path) -> Path:
    """Return the place of *source*, a path from the root, in the installed package."""
    for folder, package in MAPPED.items():  # the inner folders stand first
        if source.is_relative_to(folder):
            return Path(package) / source.relative_to(folder)
    message = f"{source} lies in no mapped folder"
    raise ValueError(message)


def lay_out() -> int:
    """Build the tree anew and return the number of modules in it."""
    shutil.rmtree(TREE, ignore_errors=True)
    modules = 0
    for layer in ("actors", "runtime", "store"):
        for source in sorted((ROOT / layer).rglob("*")):
            if source.suffix == ".py" or source.name == "py.typed":
                link = TREE / mapped_to(source.relative_to(ROOT))
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(source)
                modules += source.suffix == ".py"
    return modules


def main() -> int:
    """Return the exit code: 0 when pyright found no error and has analysed every file."""
    expected = lay_out()
    for folder in ("tests", "examples", "benchmarks"):
        expected += sum(1 for _ in (ROOT / folder).rglob("*.py"))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    try:
        report = json.loads(answer.stdout)
    except ValueError:
        print(answer.stdout, answer.stderr, sep="\n")
        return answer.returncode or 1
    for found in report["generalDiagnostics"]:
        place = found.get("range", {}).get("start", {"line": 0, "character": 0})
        path = Path(found["file"]).resolve().relative_to(ROOT)
        rule = f" ({found['rule']})" if "rule" in found else ""
        print(f"{path}:{place['line'] + 1}:{place['character'] + 1}: {found['severity']}: {found['message']}{rule}")
    summary = report["summary"]
    print(f"pyright: {summary['errorCount']} errors in {summary['filesAnalyzed']} of {expected} files")
    return int(answer.returncode != 0 or summary["filesAnalyzed"] != expected)


if __name__ == "__main__":
    sys.exit(main())
