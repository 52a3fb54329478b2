"""Results of calls on their way into the log and out of it again."""

from typing import Any

import msgspec

from perdure.actors.kernel.payloads import Redaction, encode_payload
from perdure.actors.kernel.system import ActorSystem
from perdure.actors.slots.calls import ToolResult
from perdure.actors.slots.commands import CompleteExecution
from perdure.actors.slots.events import ExecutionCancelled, ExecutionCompleted, ExecutionSettled
from perdure.runtime.sandbox.backend import ExecutionResult
from perdure.store.codec import blob_hashes
from perdure.store.errors import PerdureError, UnencodableError
from perdure.store.records import Query, StreamId

OUTPUT_LIMIT = 1_000_000
"""Characters recorded of an output or an error; what backends give is shorter, what tool servers give may not be."""

TRUNCATED = "\n... (output truncated)"

ENDS = ("execution-completed", "execution-cancelled", "execution-settled")

_metadata = msgspec.json.Decoder(dict[str, Any])


def as_result(found: ExecutionResult) -> ToolResult:
    """Return what a machine said as what a caller is told."""
    return ToolResult(found.success, found.output, found.error, found.metadata)


def as_command(uniq_id: str, result: ToolResult, micros: int, redaction: Redaction) -> CompleteExecution:
    """Return what is recorded of *result*: texts that are bounded and can be written, metadata that is JSON."""
    try:
        metadata = encode_payload(result.metadata, where="metadata", redaction=redaction)
    except PerdureError as error:
        metadata = msgspec.json.encode({"metadata_error": str(error)})
    return CompleteExecution(
        uniq_id, result.success, _text(result.output), _text(result.error), msgspec.Raw(metadata), micros
    )


def told(command: CompleteExecution) -> ToolResult:
    """Return what the caller is told: what the log has of it, so that live and replayed are the same."""
    return ToolResult(command.success, command.output, command.error, _metadata.decode(command.metadata))


def cancelled(reason: str, *, was_begun: bool) -> ToolResult:
    """Return what is told of a call that was given up."""
    return ToolResult(success=False, error=f"cancelled: {reason}", metadata={"cancelled": True, "was_begun": was_begun})


def _text(text: str) -> str:
    if len(text) > OUTPUT_LIMIT:
        text = text[:OUTPUT_LIMIT] + TRUNCATED
    return text.encode("utf-8", "backslashreplace").decode()


async def recorded_result(system: ActorSystem, stream: StreamId, version: int) -> ToolResult:
    """Return the result that the event of *stream* with this version holds; it is durable then.

    Raises:
        UnencodableError: the event holds none.
    """
    await system.log.flush()
    after = 0
    while page := await system.log.read(Query(stream=stream, types=ENDS, after=after)):
        for event in page:
            if event.version == version:
                return _from(system.codec.decode(event, await system.log.blobs(blob_hashes([event]))))
        after = page[-1].position
    raise UnencodableError(where=f"{stream}#{version}", detail="it has been erased, or is no result")


def _from(event: object) -> ToolResult:
    match event:
        case ExecutionCompleted(success=success, output=output, error=error, metadata=metadata):
            return ToolResult(success, output, error, _metadata.decode(metadata))
        case ExecutionSettled(success=success, output=output, because=because):
            return ToolResult(success, output, "" if success else because, {"settled": because})
        case ExecutionCancelled(reason=reason, was_begun=was_begun):
            return cancelled(reason, was_begun=was_begun)
        case _:
            raise UnencodableError(where="result", detail=f"{type(event).__name__} is no result")
