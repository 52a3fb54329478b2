"""A coding task in a sandboxed slot: clone a repository, run its linter there, bring the report out.

    python examples/coding_task.py [REPOSITORY] [--db coding.db] [--slots coding-slots] [--out report.tar.gz]

Without an argument the repository is this project's own. The commands see the repository read-only, no network and
nothing else of this machine. Start it again and nothing runs a second time: the log answers.
"""

import argparse
import asyncio
import sys
import tarfile
from pathlib import Path

import msgspec

from perdure import (
    Bubblewrap,
    CommandResult,
    Context,
    ExecutorConfig,
    Runtime,
    SandboxUnavailableError,
    ToolContext,
    bash,
    slot_of,
    tool,
    workflow,
)

HERE = Path(__file__).resolve().parents[1]
RUFF = Path(sys.executable).parent / "ruff"  # one file of the virtual environment


class Review(msgspec.Struct, frozen=True):
    """What the task comes to."""

    commit: str
    files: int
    linter_exit_code: int
    findings: int
    archive: str


@tool(effect="idempotent")
async def bring_out(call: ToolContext, folder: str, to: str) -> str:
    """Write an archive of a folder of the workspace; its hash is in the log."""
    archive = await slot_of(call).archive(folder)
    await asyncio.to_thread(Path(to).write_bytes, archive)
    return to


@workflow
async def review(ctx: Context, repository: str, out: str) -> Review:
    """Every command is a step: recorded with its output, and never run twice."""

    async def run(command: str) -> CommandResult:
        return await ctx.call(bash, command=command, timeout=120)

    # The repository is another user's in there, which git asks about.
    cloned = await run(f"git config --global safe.directory '*' && git clone --quiet '{repository}' source")
    if cloned.exit_code:
        raise RuntimeError(f"git clone failed: {cloned.output}")
    commit = await run("git -C source rev-parse HEAD")
    files = await run("git -C source ls-files '*.py' | wc -l")
    linted = await run(
        f"mkdir -p report && cd source && '{RUFF}' check --no-cache --output-format json-lines . "
        "> ../report/findings.jsonl"
    )
    findings = await run("wc -l < report/findings.jsonl")
    archive = await ctx.call(bring_out, folder="report", to=out)
    return Review(commit.output, int(files.output), linted.exit_code, int(findings.output), archive)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Lint a repository in a sandboxed slot.")
    parser.add_argument("repository", nargs="?", default=str(HERE), help="a folder with a git repository")
    parser.add_argument("--db", default="coding.db", help="the log")
    parser.add_argument("--slots", default="coding-slots", help="where workspaces are")
    parser.add_argument("--out", default="report.tar.gz", help="where the report goes")
    given = parser.parse_args()
    given.repository = str(Path(given.repository).resolve())
    return given


async def main() -> None:
    given = parse()
    sandbox = Bubblewrap(given.slots, read_only=[given.repository, str(RUFF)])
    offline = ExecutorConfig(allow_network=False, require_sandbox=True)
    async with Runtime(given.db, workflows=[review], tools=[bring_out], sandbox=sandbox, executor=offline) as rt:
        run = await rt.with_options(id=f"review-{Path(given.repository).name}").start(
            review, given.repository, given.out
        )
        result = await run.result()
    with tarfile.open(result.archive) as archive:
        inside = ", ".join(archive.getnames())
    print(f"commit {result.commit[:12]}: {result.files} Python files, ruff ended with {result.linter_exit_code}")
    print(f"{result.findings} findings; {result.archive} holds {inside}")
    print(f"the log has every command and its output: perdure log --db {given.db}")


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except SandboxUnavailableError as error:
        sys.exit(f"no sandbox here: {error}")
