"""What a person is shown of other arguments than those recorded: both, cut to where they differ.

Not here: what a mismatch is. The invariant: the account is short, however large the arguments are.
"""

from perdure.actors.kernel.system import ActorSystem
from perdure.actors.workflows.events import StepStarted
from perdure.store.codec import blob_hashes
from perdure.store.records import Query, stream_id

SHOWN_CHARACTERS = 400
"""Of each side: what is compared at a glance."""


async def arguments_beside(system: ActorSystem, run: str, step: str, now: bytes) -> str:
    """Return the recorded arguments of *step* beside those that the code gives now, both JSON; empty if none are."""
    query = Query(stream=stream_id(f"run/{run}"), types=("step-started",))
    while page := await system.log.read(query):
        blobs = await system.log.blobs(blob_hashes(page))
        for event in page:
            started = system.codec.decode(event, blobs)
            if isinstance(started, StepStarted) and started.step == step:
                before, after = where_they_differ(bytes(started.arguments).decode(), now.decode())
                return f" | recorded arguments: {before} | now: {after}"
        query = Query(stream=query.stream, types=query.types, after=page[-1].position)
    return ""


def where_they_differ(one: str, other: str) -> tuple[str, str]:
    """Return two texts as a person can compare them: long ones cut to a part around their first difference."""
    if max(len(one), len(other)) <= SHOWN_CHARACTERS:
        return one, other
    same = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    start = max(0, same - SHOWN_CHARACTERS // 4)
    return _cut(one, start), _cut(other, start)


def _cut(text: str, start: int) -> str:
    part = text[start : start + SHOWN_CHARACTERS]
    return f"{'…' if start else ''}{part}… ({len(text)} characters)"
