"""A definition under way in a run: which steps are performed, what becomes of their answers, how it fails.

Not here: the order of the steps (`patterns.py`) and a single call (`calling.py`). Invariant: everything that it decides
follows from what is recorded, so a replay decides the same.
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec

from perdure.actors.workflows.context import Context
from perdure.actors.workflows.defined.calling import USUAL, Answer, Data, Way, call_step
from perdure.actors.workflows.defined.conditions import Verdict, evaluate
from perdure.actors.workflows.defined.data import WHOLE, with_results
from perdure.actors.workflows.defined.errors import DataPathError
from perdure.actors.workflows.defined.facts import note_path, note_skip
from perdure.actors.workflows.defined.known import Known
from perdure.actors.workflows.defined.model import Branching, Conditions, Step, WorkflowDefinition
from perdure.actors.workflows.defined.pausing import after_pause
from perdure.actors.workflows.defined.results import MergeError, StepResult, item_error, merge
from perdure.actors.workflows.errors import WorkflowFailedError


class Flow:
    """One definition under way in one run."""

    def __init__(self, ctx: Context, definition: WorkflowDefinition, data: Data, known: Known) -> None:
        self.ctx = ctx
        self.definition = definition
        self.data = data
        """What the run was given."""
        self.known = known
        self._visits: Counter[str] = Counter()

    # Pauses

    async def pause(self, step: Step, data: Data, way: Way = USUAL) -> tuple[Data, Step | None]:
        """Pause after a step that says so; return the data with the answer, and the step to go on at if it is named.

        Raises:
            WorkflowFailedError: there is no place for the answer.
        """
        if not step.pause:
            return data, None
        key = f"{way.key or step.id}@pause"
        answer = await self.ctx.with_options(key=key).pause(step.id, result=data)
        try:
            data = with_results(data, {WHOLE: step.answer}, answer)
        except DataPathError as error:
            raise self.broken(f"Step {step.id} failed: {error}", type(error).__name__, step) from error
        following = after_pause(self.definition, step)
        if following is not None:
            note_path(step.id, following.id, "resumed")
        return data, following

    # The way

    def judge(self, conditions: Conditions, data: Data) -> Verdict:
        """Return whether conditions hold over *data*, and why."""
        return evaluate(conditions, data, self.known.predicates)

    def applies(self, step: Step, data: Data, key: str | None = None) -> bool:
        """Return whether a step is to be performed; where not, that and why is recorded."""
        verdict = self.judge(step.conditions, data)
        if not verdict.holds:
            note_skip(key or step.id, verdict.reason)
        return verdict.holds

    def applying(self) -> list[Step]:
        """Return the steps that are to be performed, by what the run was given."""
        return [step for step in self.definition.steps if self.applies(step, self.data)]

    def begin(self) -> Step | None:
        """Return the step that a conditional workflow begins with."""
        definition = self.definition
        return definition.steps[0] if definition.start is None else definition.step(definition.start)

    def visit(self, step: Step) -> Way:
        """Count that a step is come to once more, and return how it is called this time.

        Raises:
            WorkflowFailedError: a conditional workflow came there too often.
        """
        self._visits[step.id] += 1
        times, limit = self._visits[step.id], self.definition.max_visits
        if times > limit and self.definition.pattern == "conditional":
            raise self.broken(f"step {step.id} was reached more than {limit} times (max_visits)", "TooManyVisits", step)
        return USUAL if times == 1 else Way(key=f"{step.id}@{times}")

    def follow(self, step: Step, data: Data) -> Step | None:
        """Return the step that comes after *step*; the way is recorded, with the reason."""
        following, because = self._next(step, data)
        note_path(step.id, following, because)
        return None if following is None else self.definition.step(following)

    def _next(self, step: Step, data: Data) -> tuple[str | None, str]:
        turn = step.next
        if not isinstance(turn, Branching):
            return turn, "always"
        verdict = self.judge(turn.condition, data)
        chosen = turn.if_true if verdict.holds else turn.if_false
        return (chosen if verdict.is_known else None) or turn.default, verdict.reason

    # Steps

    async def perform(self, step: Step, data: Data, way: Way = USUAL) -> StepResult:
        """Perform a step over *data* and return what came of it.

        Raises:
            WorkflowFailedError: it failed for good, and the workflow stops for that.
        """
        result, error = await self._answered(step, data, way)
        if error is not None and step.on_failure == "stop":
            raise self.failed(result) from error
        return result

    async def beside(self, steps: Sequence[Step], data: Data) -> list[StepResult]:
        """Perform steps beside one another over the same data; return what came of each, in their order."""

        async def attempt(step: Step) -> StepResult:
            result, _ = await self._answered(step, data, USUAL)
            return result

        return await self.ctx.map(attempt, steps, concurrency=self.definition.concurrency)

    async def map(self, step: Step, items: Sequence[Any], start: int) -> list[StepResult | None]:
        """Perform a step over each item, of which the first has the number *start*; None for those that are skipped.

        Raises:
            WorkflowFailedError: an item failed for good, and the workflow does not go on without it.
        """
        numbered = list(enumerate(items, start))
        return await self.ctx.map(partial(self._item, step), numbered, concurrency=self.definition.concurrency)

    async def _item(self, step: Step, numbered: tuple[int, Any]) -> StepResult | None:
        index, item = numbered
        if not self.applies(step, {"item": item}):
            return None
        result, error = await self._answered(step, {"item": item}, USUAL)
        if error is not None and self.definition.on_item_failure == "fail":
            shape = {"pattern": "map_reduce", "reduce_result": None, "failed_items": [item_error(index, result)]}
            failure = msgspec.structs.replace(result, error=f"item {index}: {result.error}")
            raise self.failed(failure, shape) from error
        return result

    async def _answered(self, step: Step, data: Data, way: Way) -> Answer:
        answer = await call_step(self.ctx, self.known, step, data, way)
        if step.publish is not None and answer[0].success:
            await self.ctx.publish(step.publish, answer[0].data)
        return answer

    # Data

    def put(self, step: Step, data: Data, result: StepResult) -> Data:
        """Return *data* with what a step's result maps into them.

        Raises:
            WorkflowFailedError: there is no place for it.
        """
        try:
            return with_results(data, step.output_mapping, result.data)
        except DataPathError as error:
            raise self.broken(f"Step {step.id} failed: {error}", type(error).__name__, step) from error

    def accumulated(self, step: Step, data: Data, result: StepResult) -> Data:
        """Return the same, where a step without a mapping puts all that it returned."""
        return self.put(step, data, result) if step.output_mapping else {**data, **result.as_object()}

    def merged(self, results: Sequence[StepResult]) -> Any:
        """Return what the steps returned as one, of those with a mapping what it takes from that.

        Raises:
            WorkflowFailedError: they cannot be merged, or the reducer raised.
        """
        given = [self._contributed(result) for result in results]
        try:
            return merge(self.definition.merge, given, self.known.reducers)
        except MergeError as error:
            raise self.broken(str(error), "MergeError") from error
        except Exception as error:
            raise self.broken(f"reducer {self.definition.merge} failed: {error}", type(error).__name__) from error

    def _contributed(self, result: StepResult) -> StepResult:
        step = self.definition.step(result.step_id)
        if not step.output_mapping or result.data is None:
            return result
        return msgspec.structs.replace(result, data=self.put(step, {}, result))

    # Failing

    def unless_all_failed(self, shape: Data, results: Sequence[StepResult]) -> Data:
        """Return the result of steps beside one another.

        Raises:
            WorkflowFailedError: there were some, each of them failed, and for one of them that is to end the workflow;
                the result is with it.
        """
        if any(result.success for result in results):
            return shape
        ending = next((one for one in results if self.definition.step(one.step_id).on_failure == "stop"), None)
        if ending is not None:
            raise self.failed(ending, shape)
        return shape

    def failed(self, failure: StepResult, shape: Data | None = None) -> WorkflowFailedError:
        """Return the failure of the workflow that the failure of a step is."""
        return WorkflowFailedError(
            workflow_id=self.definition.id,
            step_id=failure.step_id,
            agent=failure.agent,
            error_type=failure.error_type,
            error=failure.error,
            result=shape,
        )

    def broken(self, error: str, error_type: str, step: Step | None = None) -> WorkflowFailedError:
        """Return the failure of the workflow that no step's failure is behind."""
        return WorkflowFailedError(
            workflow_id=self.definition.id,
            step_id=None if step is None else step.id,
            agent=None if step is None else step.agent or step.tool or step.workflow,
            error_type=error_type,
            error=error,
        )
