"""What a request means that names a step, a workflow or a slot: looked up before the log is asked. Decides nothing.

The invariant: nothing is recorded here.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from perdure.actors.kernel.payloads import Redaction
from perdure.actors.workflows.definition import Workflow
from perdure.store.records import Query, Recorded, StreamId


class _Started(msgspec.Struct, frozen=True):
    """Of a `step-started`, or a `child-started`, what tells whom it calls."""

    step: str
    tool: str = ""
    workflow: str = ""
    undoes: str = ""


class Called(msgspec.Struct, frozen=True):
    """Whom a step of a run called: one of the two has a name."""

    tool: str
    workflow: str


async def called_by(read: Callable[[Query], Awaitable[list[Recorded]]], stream: StreamId, step: str) -> Called | None:
    """Return what a step of a run called; None: it is not known, or its result is nobody's.

    What a compensation returned is read by nobody, and a person who undid something by hand has nothing to say for it.
    """
    query = Query(stream=stream, types=("step-started", "child-started"))
    while page := await read(query):
        for event in page:
            started = msgspec.json.decode(event.data or "{}", type=_Started)
            if started.step == step:
                return None if started.undoes else Called(started.tool, started.workflow)
        query = msgspec.structs.replace(query, after=page[-1].position)
    return None


def named_input(
    workflow: Workflow[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], redaction: Redaction
) -> bytes:
    """Return the encoded input of a run that is started by name, from plain values.

    Read as the declared types first: a dict then gives the same bytes as the Struct that it stands for, and the same
    id is the same run, whoever starts it.

    Raises:
        InvalidArgumentsError, UnencodableError, PayloadTooLargeError: it does not fit, or cannot be recorded.
    """
    given = workflow.encode_input(tuple(args), dict(kwargs), redaction)
    return workflow.encode_input((), workflow.decode_input(given), redaction)
