"""Performs one execution in a slot: which tool it is, whether policy allows it here, and how its end is told.

It queues nothing and knows no lease. Invariant: what was begun has an outcome on disk before its result is returned.
"""

import asyncio
import math
from collections.abc import Sequence
from pathlib import Path

import msgspec

from perdure.actors.slots.errors import SlotError
from perdure.runtime.sandbox import filetools, stateful, terminal
from perdure.runtime.sandbox.backend import Execution, ExecutionResult, Unfinished
from perdure.runtime.sandbox.emptying import free_bytes, used_bytes
from perdure.runtime.sandbox.filetools import Reply
from perdure.runtime.sandbox.jail import Jail, unlock_folders
from perdure.runtime.sandbox.limits import TRUNCATED, SlotLimits
from perdure.runtime.sandbox.multiplexer import reaches_network
from perdure.runtime.sandbox.outcomes import Outcome
from perdure.runtime.sandbox.place import Job, Place
from perdure.runtime.sandbox.spawn import Command, Ended
from perdure.runtime.threads import WorkerThreads
from perdure.store.errors import UsageError

SAMPLE_SECONDS = 0.5
"""Between two measurements of a workspace in which a command runs."""
SAMPLE_SHARE = 10
"""A measurement that took long is followed by this many times its duration of rest."""
TOOLS = frozenset({"bash", "bash_stateful", "read_file", "write_file", "tmux"})


class Policy(msgspec.Struct, frozen=True):
    """What the application demands of one command; the executor put it among the arguments, never the model."""

    allow_network: bool = True
    require_sandbox: bool = False
    require_stateful_sandbox: bool = False


class Performer:
    """Performs executions in the slots of one jail."""

    def __init__(self, jail: Jail, limits: SlotLimits, threads: WorkerThreads) -> None:
        self._jail = jail
        self._limits = limits
        self._threads = threads
        self._shell = "/bin/bash" if Path("/bin/bash").exists() else "/bin/sh"

    async def perform(self, place: Place, execution: Execution, job: Job) -> ExecutionResult:
        """Perform it unless it was performed before, and return how it ended; nothing that goes wrong raises."""
        outcome = Outcome(place.folder, execution.execution_id)
        earlier = outcome.read(self._jail)
        if earlier is not None:
            return _again(execution, earlier)
        if job.is_cancelled:
            return _result(execution, self._cancelled())
        if execution.tool not in TOOLS:
            return _result(execution, filetools.failed(f"Unknown tool: {execution.tool}"))
        try:
            if not outcome.begin(execution):
                return _again(execution, outcome.read(self._jail) or Unfinished("it is running already"))
        except FileNotFoundError:
            return _result(execution, filetools.failed(f"slot {execution.slot} is not ready: acquire it first"))
        try:
            reply = await self._reply(place, execution, job, outcome)
        except asyncio.CancelledError:
            outcome.finish(_result(execution, self._cancelled()))
            raise
        result = _result(execution, reply)
        outcome.finish(result)
        return result

    async def _reply(self, place: Place, execution: Execution, job: Job, outcome: Outcome) -> Reply:
        try:
            match execution.tool:
                case "read_file" | "write_file":
                    perform = filetools.read_file if execution.tool == "read_file" else filetools.write_file
                    reply: Reply = await self._threads.run(lambda: perform(place.folder, execution.arguments))
                    return reply
                case "tmux":
                    return await self._terminal(place, execution)
                case _:
                    return await self._command(place, execution, job, outcome)
        except (SlotError, UsageError) as error:
            return filetools.failed(str(error))
        except Exception as error:  # noqa: BLE001 - one execution's fault is its own result
            return filetools.failed(f"{type(error).__name__}: {error}")

    async def _command(self, place: Place, execution: Execution, job: Job, outcome: Outcome) -> Reply:
        match execution.arguments:
            case {"command": str(text)}:
                stateful.check_command(text)
            case _:
                return filetools.failed(f"{execution.tool} needs `command`, a text")
        policy = _policy(execution)
        refusal = self._refusal(execution.tool, policy)
        if refusal is not None:
            return refusal
        if not policy.allow_network and await self._threads.run(lambda: reaches_network(place.folder)):
            text = "The terminal was started with network access, which is forbidden: stop it first"
            return filetools.failed(text, sandboxed=self._jail.is_sandbox)
        if execution.tool == "bash_stateful":
            vector = stateful.script(text, self._jail.inside(place.folder))
        else:
            vector = [self._shell, "-c", text]
        return self._told(await self._run(place, execution, job, outcome, vector, policy), execution, policy)

    async def _terminal(self, place: Place, execution: Execution) -> Reply:
        policy = _policy(execution)
        refusal = self._refusal(execution.tool, policy)
        if refusal is not None:
            return refusal
        return await terminal.tmux(
            place.folder,
            self._jail,
            execution.arguments,
            allow_network=policy.allow_network,
            timeout_seconds=execution.timeout_seconds,
            off_loop=self._threads.run,
        )

    def _refusal(self, tool: str, policy: Policy) -> Reply | None:
        if self._jail.is_sandbox:
            return None
        is_required = policy.require_sandbox or (tool != "bash" and policy.require_stateful_sandbox)
        missing = "but bubblewrap is unavailable: these slots are plain processes"
        if is_required:
            return filetools.failed(f"Sandboxing required {missing}", requires_bwrap=True)
        if not policy.allow_network:
            return filetools.failed(f"Network isolation requested {missing}", requires_bwrap=True)
        return None

    async def _run(
        self,
        place: Place,
        execution: Execution,
        job: Job,
        outcome: Outcome,
        vector: Sequence[str],
        policy: Policy,
    ) -> Ended:
        unlock_folders(place.folder)
        job.command = command = Command(self._jail, place.folder, self._limits, outcome.status)
        if job.is_cancelled:
            command.stop("cancelled")
        sampling = asyncio.create_task(self._sample(place, command))
        try:
            return await command.run(
                vector,
                allow_network=policy.allow_network,
                timeout_seconds=max(0.0, execution.timeout_seconds) if math.isfinite(execution.timeout_seconds) else 0,
                started=outcome.is_running_as,
            )
        finally:
            job.command = None
            sampling.cancel()

    async def _sample(self, place: Place, command: Command) -> None:
        """Measure the slot now and then; stop the command once it is over the limit and has grown."""
        loop = asyncio.get_running_loop()
        folders = (place.folder.workspace, place.folder.tmp, place.folder.run)
        await asyncio.sleep(max(0.0, place.measured_at + SAMPLE_SECONDS - loop.time()))
        while True:
            begun = loop.time()
            used: int | None = await self._threads.run(lambda: used_bytes(*folders))
            place.measured_at = loop.time()
            if used is not None:
                if used > self._limits.workspace_bytes and used > place.used_bytes:
                    command.stop("workspace")
                place.used_bytes = used
            rest = max(SAMPLE_SECONDS, SAMPLE_SHARE * (place.measured_at - begun))
            await self._rest(place, loop.time() + rest)

    async def _rest(self, place: Place, until: float) -> None:
        """Wait, but no longer than until the disk has lost what the slot may still take: rests can be minutes."""
        loop, before = asyncio.get_running_loop(), free_bytes(place.folder.workspace)
        while (left := until - loop.time()) > 0:
            await asyncio.sleep(min(SAMPLE_SECONDS, left))
            if before - free_bytes(place.folder.workspace) > max(0, self._limits.workspace_bytes - place.used_bytes):
                return

    def _told(self, ended: Ended, execution: Execution, policy: Policy) -> Reply:
        output = _output(ended, self._limits)
        match ended.why:
            case "timeout":
                return self._stopped(output, f"Command timed out after {execution.timeout_seconds}s", timeout=True)
            case "cancelled":
                return self._stopped(output, "Command cancelled", cancelled=True)
            case "output":
                error = f"Command killed: more than {self._limits.output_bytes} bytes of output"
                return self._stopped(output, error, over="output_bytes")
            case "workspace":
                error = f"Command killed: workspace over {self._limits.workspace_bytes} bytes"
                return self._stopped(output, error, over="workspace_bytes")
            case "exited":
                pass
        code, sandboxed = ended.exit_code, self._jail.is_sandbox
        if code is None:
            said = ended.stderr.decode(errors="replace").strip() or "killed from outside"
            return self._stopped(output, f"The command could not be run: {said}")
        isolated = sandboxed and not policy.allow_network
        return Reply(
            success=code == 0,
            output=output,
            error="" if code == 0 else f"Exit code: {code}",
            metadata={"exit_code": code, "sandboxed": sandboxed, "network_isolated": isolated},
        )

    def _stopped(self, output: str, error: str, **why: bool | str) -> Reply:
        metadata = {"exit_code": -1, **why, "sandboxed": self._jail.is_sandbox}
        return Reply(success=False, output=output, error=error, metadata=metadata)

    def _cancelled(self) -> Reply:
        return self._stopped("", "Command cancelled", cancelled=True)


def _policy(execution: Execution) -> Policy:
    try:
        return msgspec.convert(execution.arguments, Policy)
    except msgspec.ValidationError as error:
        raise UsageError(f"{execution.tool}: {error}") from error


def _output(ended: Ended, limits: SlotLimits) -> str:
    stdout = ended.stdout.decode("utf-8", "replace")
    stderr = ended.stderr.decode("utf-8", "replace")
    text = (f"{stdout}\n[stderr]\n{stderr}" if stdout and stderr else stdout or stderr).strip()
    return text if len(text) <= limits.output_characters else text[: limits.output_characters] + TRUNCATED


def _result(execution: Execution, reply: Reply) -> ExecutionResult:
    return ExecutionResult(
        execution_id=execution.execution_id,
        success=reply.success,
        output=reply.output,
        error=reply.error,
        metadata=reply.metadata,
    )


def _again(execution: Execution, earlier: ExecutionResult | Unfinished) -> ExecutionResult:
    if isinstance(earlier, ExecutionResult):
        return earlier
    return _result(execution, filetools.failed(f"Not run again: {earlier.reason}", unfinished=True))
