"""How runs begin: from an input, or where another run was before one of its steps; and how one is tried again.

Not here: the rules of a run (`actors/workflows/run.py`). Invariant: a run whose id is returned is in the log.
"""

from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
import uuid_utils

from perdure.actors.kernel.spans import check_limit
from perdure.actors.workflows.children import checked_run_id
from perdure.actors.workflows.commands import StartRun
from perdure.actors.workflows.definition import digest, shorter
from perdure.runtime.machinery import Machinery
from perdure.runtime.options import OptionValues
from perdure.runtime.steering import ForkRequest, Place, changed_input, place_of_fork, plan_of_retry
from perdure.store.records import stream_id

if TYPE_CHECKING:
    from perdure.runtime.app import Runtime


class Beginnings:
    """Starts, forks and retries runs of a runtime."""

    def __init__(self, runtime: "Runtime", machinery: Machinery) -> None:
        self._runtime = runtime
        self._machinery = machinery

    async def start(self, workflow: str, data: bytes, options: OptionValues, source: Place | None = None) -> str:
        """Start a run from its encoded input and return its id; durable on return."""
        parts = self._machinery.parts
        run = str(uuid_utils.uuid7()) if options.id is None else checked_run_id(options.id)
        known = parts.workflows.get(workflow)
        check_limit(options.deadline, "deadline", may_be_over=True)
        limit = shorter(options.deadline, None if known is None else known.timeout)
        until = None if limit is None else parts.clock.moment().now + limit // timedelta(microseconds=1)
        command = StartRun(
            workflow,
            msgspec.Raw(data),
            digest(workflow, data) if known is None else known.input_digest(data),
            self._machinery.engine.life,
            until,
            options.conversation,
            options.principal,
            forked_from=None if source is None else source.origin,
            place=options.place,
            mail=() if source is None else source.moved,
        )
        await self._runtime.ask(stream_id(f"run/{run}"), command, principal=options.principal)
        return run

    async def retry(self, run: str, who: str | None) -> str | None:
        """Have a run tried again; return the step that it failed of."""
        command = await plan_of_retry(self._machinery.system, checked_run_id(run))
        await self._runtime.ask(stream_id(f"run/{run}"), command, principal=who)
        return command.fact.step

    async def fork(self, run: str, asked: ForkRequest) -> str:
        """Start a run that begins where another one was before a step; return its id."""
        place = await place_of_fork(self._machinery.system, checked_run_id(run), asked.step)
        name, data = place.started.workflow, changed_input(place.started, asked.changed)
        workflows = self._machinery.parts.workflows
        if name in workflows:
            workflows[name].decode_input(data)
        queue = place.started.place
        options = OptionValues(
            id=asked.id,
            deadline=asked.deadline,
            conversation=place.started.conversation,
            principal=asked.who or place.principal,
            queue=None if queue is None else queue.queue,
            priority=0 if queue is None else queue.priority,
            partition=None if queue is None else queue.partition,
        )
        return await self.start(name, data, options, place)
