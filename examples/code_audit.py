"""An audit of Python source files: a workflow that may be killed at any instant and goes on where it was.

    python examples/code_audit.py [DIRECTORY] [--db audit.db] [--out audit]
    perdure run examples/code_audit.py:code_audit --db audit.db --input '{"directory": "src", "out": "audit"}'

Kill it and start it again in the same way: no step that had finished runs a second time.
"""

import argparse
import ast
import asyncio
import itertools
import os
import re
import sysconfig
import threading
import time
import warnings
from collections import Counter
from datetime import timedelta
from pathlib import Path

import msgspec

from perdure import Context, Retry, Runtime, StepFailedError, ToolContext, tool, workflow

NOT_OURS = {"site-packages", "dist-packages", "__pycache__", "node_modules"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
LICENCE = (
    rb"SPDX-License-Identifier: ([\w.+-]+)|(MIT|BSD|Apache|Python Software Foundation|GNU)[\w ]{0,20}[Ll]icen[sc]e"
)
LONGEST = 10


class Facts(msgspec.Struct, frozen=True):
    """What is measured of one file."""

    path: str
    lines: int = 0
    functions: int = 0
    longest_function: str = ""
    longest_lines: int = 0
    documentable: int = 0
    """Modules, classes and functions: what can have a docstring."""
    documented: int = 0
    syntax_warnings: int = 0
    problem: str | None = None
    """Why the file could not be parsed."""


class Report(msgspec.Struct, frozen=True):
    """What the audit comes to."""

    directory: str
    files: int
    lines: int
    functions: int
    docstring_share: float
    syntax_warnings: int
    longest_functions: list[Facts]
    problems: dict[str, str]
    licences: dict[str, int]


# Tools: everything that looks at or changes the world outside. Their calls are recorded and guarded.


@tool(effect="read")
def list_files(context: ToolContext, directory: str) -> list[str]:
    """Return the paths of the Python files under a directory, in order."""
    leave_trace(context)
    found: list[str] = []
    for folder, folders, files in os.walk(directory):
        folders[:] = [name for name in folders if name not in NOT_OURS]
        found += [str(Path(folder, name)) for name in files if name.endswith(".py")]
    return sorted(found)


@tool(effect="read")
def measure(context: ToolContext, path: str) -> Facts:
    """Parse a file and measure it. A file that cannot be parsed is a finding, not a failure."""
    leave_trace(context)
    try:
        source = Path(path).read_bytes()
        tree, syntax_warnings = parse(source)
        nodes = list(ast.walk(tree))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return Facts(path, problem=f"{type(error).__name__}: {error}")
    functions = [node for node in nodes if isinstance(node, FUNCTIONS)]
    documentable = [node for node in nodes if isinstance(node, (ast.Module, ast.ClassDef, *FUNCTIONS))]
    longest = max(functions, key=length, default=None)
    return Facts(
        path,
        lines=len(source.splitlines()),
        functions=len(functions),
        longest_function=longest.name if longest else "",
        longest_lines=length(longest) if longest else 0,
        documentable=len(documentable),
        documented=sum(ast.get_docstring(node, clean=False) is not None for node in documentable),
        syntax_warnings=syntax_warnings,
    )


@tool(effect="read", failure_threshold=3, reset_timeout=1, retry=Retry(attempts=5, backoff=timedelta(seconds=0.2)))
def find_licence(context: ToolContext, path: str) -> str:
    """Return the licence that a file states, by the register's name for it."""
    leave_trace(context)
    with Path(path).open("rb") as file:
        return REGISTER.ask(file.read(4096))


@tool
def write_report(context: ToolContext, out: str, report: Report) -> list[str]:
    """Write the report as Markdown and JSON. Idempotent: a second time writes the same files again."""
    leave_trace(context)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    json = msgspec.json.format(msgspec.json.encode(report)).decode()
    for name, text in (("report.md", markdown(report)), ("report.json", json)):
        part = folder / f"{name}.part"
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(folder / name)  # readers see the old report or the new one, never a half
    return [str(folder / "report.md"), str(folder / "report.json")]


# The workflow: plain code between the tools. After a crash it runs again, with what is recorded for what was done.


@workflow
async def code_audit(ctx: Context, directory: str, out: str) -> Report:
    """Measure every Python file under a directory and write a report."""

    async def licence_of(path: str) -> str:
        try:
            return await ctx.call(find_licence, path)
        except StepFailedError as failure:
            return f"not known ({failure.error_type})"

    paths = await ctx.call(list_files, directory)
    facts, licences = await ctx.gather(
        ctx.map(measure, paths, concurrency=4),  # they compute: more at a time would not be faster
        ctx.map(licence_of, paths),
    )
    report = reduced(directory, facts, licences)
    await ctx.call(write_report, out, report)
    return report


def reduced(directory: str, facts: list[Facts], licences: list[str]) -> Report:
    documentable = sum(fact.documentable for fact in facts)
    return Report(
        directory=directory,
        files=len(facts),
        lines=sum(fact.lines for fact in facts),
        functions=sum(fact.functions for fact in facts),
        docstring_share=round(sum(fact.documented for fact in facts) / max(1, documentable), 3),
        syntax_warnings=sum(fact.syntax_warnings for fact in facts),
        longest_functions=sorted(
            (fact for fact in facts if fact.functions), key=lambda fact: fact.longest_lines, reverse=True
        )[:LONGEST],
        problems={fact.path: fact.problem for fact in facts if fact.problem},
        licences=dict(Counter(licences).most_common()),
    )


# What the tools are made of.


class Register:
    """A register of licences, fragile on purpose: it gives the retries and the circuit breaker something to do.

    It falls over at the 5th question and at every 300th after that, and takes 0.8 seconds to get up.
    """

    def __init__(self) -> None:
        self._questions = itertools.count(1)
        self._up_again_at = 0.0

    def ask(self, head: bytes) -> str:
        time.sleep(0.005)
        if next(self._questions) % 300 == 5:  # noqa: PLR2004 - see above
            self._up_again_at = time.monotonic() + 0.8
        if time.monotonic() < self._up_again_at:
            raise ConnectionError("the register is down")
        if stated := re.search(LICENCE, head):
            return (stated[1] or stated[2]).decode()
        return "copyright only" if b"copyright" in head.lower() else "none stated"


REGISTER = Register()
PARSING = threading.Lock()


def parse(source: bytes) -> tuple[ast.Module, int]:
    # catch_warnings changes the whole process: without the lock a thread would count the warnings of another.
    with PARSING, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tree = ast.parse(source)
        return tree, sum(issubclass(one.category, (SyntaxWarning, DeprecationWarning)) for one in caught)


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def markdown(report: Report) -> str:
    lines = [
        f"# Audit of {report.directory}\n",
        f"- {report.files:,} files, {report.lines:,} lines, {report.functions:,} functions",
        f"- docstrings where there can be one: {report.docstring_share:.0%}",
        f"- syntax warnings: {report.syntax_warnings:,}",
        f"- files that could not be parsed: {len(report.problems):,}",
        "\n| longest function | lines | file |\n|---|---:|---|",
    ]
    lines += [
        f"| `{one.longest_function}` | {one.longest_lines} | {Path(one.path).relative_to(report.directory)} |"
        for one in report.longest_functions
    ]
    lines += ["\n| licence | files |\n|---|---:|"]
    lines += [f"| {name} | {count:,} |" for name, count in report.licences.items()]
    lines += ["\n| not parsed | reason |\n|---|---|"] if report.problems else []
    lines += [f"| {Path(path).relative_to(report.directory)} | {why} |" for path, why in report.problems.items()]
    return "\n".join(lines) + "\n"


def leave_trace(context: ToolContext) -> None:
    """Add a line for this execution to a file: from outside of the log it shows what ran how often (see demo.py)."""
    if trace := os.environ.get("AUDIT_TRACE"):
        with Path(trace).open("a", encoding="utf-8") as file:  # O_APPEND: lines of several threads do not mix
            file.write(f"{context.idempotency_key} {context.attempt}\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Audit the Python files under a directory.")
    parser.add_argument("directory", nargs="?", default=sysconfig.get_path("stdlib"), help="default: Python's library")
    parser.add_argument("--db", default="audit.db", help="the log; made if it is not there (default: %(default)s)")
    parser.add_argument("--out", default="audit", help="folder of the report (default: %(default)s)")
    parser.add_argument("--id", default="audit", help="the same id again is the same run (default: %(default)s)")
    given = parser.parse_args()
    given.directory, given.out = (str(Path(path).resolve()) for path in (given.directory, given.out))
    return given


async def main(given: argparse.Namespace) -> None:
    async with Runtime(given.db, tools=[find_licence], workflows=[code_audit]) as rt:
        register = (await rt.statistics()).tools[find_licence.name]
        print(f"{find_licence.name}: the circuit is {register.state}, {register.calls:,} calls so far", flush=True)
        run = await rt.with_options(id=given.id).start(code_audit, given.directory, given.out)
        report = await run.result()
    print(f"{report.files:,} files, {report.lines:,} lines, {report.functions:,} functions: see {given.out}/report.md")


if __name__ == "__main__":
    asyncio.run(main(arguments()))
