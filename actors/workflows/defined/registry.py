"""The workflows of a runtime by name: functions, and definitions, which are checked whole before they are registered.

It starts nothing. Invariant: a name means one workflow, and each definition in here was without faults when it came.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any, TypeAlias, cast

import msgspec

from perdure.actors.kernel.payloads import Redaction, encode_payload
from perdure.actors.tools.errors import InvalidArgumentsError
from perdure.actors.workflows.context import Context
from perdure.actors.workflows.defined.checking import check
from perdure.actors.workflows.defined.errors import InvalidDefinitionError
from perdure.actors.workflows.defined.hiding import redacted
from perdure.actors.workflows.defined.known import Known
from perdure.actors.workflows.defined.model import Pattern, WorkflowDefinition
from perdure.actors.workflows.defined.names import lacking
from perdure.actors.workflows.defined.pattern_faults import LONGEST_SECONDS
from perdure.actors.workflows.defined.patterns import perform
from perdure.actors.workflows.defined.reading import Source, load_definition
from perdure.actors.workflows.definition import Workflow, digest
from perdure.actors.workflows.errors import UnknownWorkflowError
from perdure.store.errors import UsageError
from perdure.store.expected import checked_but

Data: TypeAlias = dict[str, Any]

AnyWorkflow: TypeAlias = Workflow[..., Any]

_NO_REDACTION = Redaction(())


class WorkflowInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to know of a workflow."""

    id: str
    name: str
    description: str
    pattern: Pattern | None
    """None: a function."""
    steps: tuple[str, ...]
    metadata: dict[str, Any]


Infos: TypeAlias = list[WorkflowInfo]


class _Given(msgspec.Struct, frozen=True):
    """Of an encoded input, what a run is given."""

    data: msgspec.Raw = msgspec.Raw(b"{}")


class DefinedWorkflow(Workflow[[Data], Data]):
    """A definition that can be run: `await rt.start(rt.workflows["order"], {"id": 7})`.

    A run's input is the definition and the data, so that it goes on with the definition that it started with.
    """

    def __init__(self, definition: WorkflowDefinition, known: Known) -> None:
        async def perform_definition(ctx: Context, definition: WorkflowDefinition, data: Data) -> Data:
            return await perform(ctx, definition, data, known)

        super().__init__(cast("Any", perform_definition), definition.id)
        self.definition = definition
        self._known = known
        self._encoded: tuple[Redaction, bytes] | None = None
        self.takes_data = True
        # What is out of range, or no number, is a fault that the check of the whole will name.
        limit = None if definition.timeout is None else min(LONGEST_SECONDS, definition.timeout)
        self.timeout = None if limit is None else timedelta(seconds=limit)
        self.description = definition.description

    def encode_input(self, args: tuple[Any, ...], kwargs: dict[str, Any], redaction: Redaction) -> bytes:
        """Return the input as a JSON object: this definition, unless one is given, and the data.

        What a definition sends as constants is redacted like data; its paths and ids are not, whatever they are called.

        Raises:
            InvalidArgumentsError: it does not fit.
            UnencodableError, PayloadTooLargeError: it cannot be recorded.
        """
        others = {name: value for name, value in kwargs.items() if name != "definition"}
        given = self._signature.bind(args and (self.definition, *args), others)
        if strange := given.keys() - {"definition", "data"}:
            reason = f"it takes the data as one object, not {', '.join(sorted(strange))}"
            raise InvalidArgumentsError(detail="", tool=self.name, reason=reason)
        where, data = f"the data of {self.name}", given.get("data", {})
        recorded = encode_payload(data, where=where, redaction=redaction, stable=True)
        if "definition" in kwargs:
            definition = self._encode(kwargs["definition"], redaction)
        else:
            definition = self._encode_own(redaction)
        encoded = b'{"data":%b,"definition":%b}' % (recorded, definition)
        self._signature.check(encoded)
        return encoded

    def _encode_own(self, redaction: Redaction) -> bytes:
        if self._encoded is None or self._encoded[0] is not redaction:  # once: most of what the start of a run costs
            self._encoded = (redaction, self._encode(self.definition, redaction))
        return self._encoded[1]

    def _encode(self, definition: Any, redaction: Redaction) -> bytes:
        where = f"the definition {self.name}"
        return encode_payload(redacted(definition, redaction), where=where, redaction=_NO_REDACTION, stable=True)

    def decode_input(self, data: Any) -> dict[str, Any]:
        """Return the definition that a run was started with, and its data.

        Raises:
            InvalidArgumentsError: they no longer fit.
            UnknownAgentError, UnknownNameError: what it names is not registered here: the run waits for its code.
        """
        given = super().decode_input(data)
        definition: WorkflowDefinition = given["definition"]
        if (error := lacking(definition, self._known)) is not None:
            raise error
        return given

    def input_digest(self, data: bytes) -> str:
        """Return what tells the data of one run from those of another.

        The definition does not count: after a deploy that changed it, the same start is still the same run, which keeps
        the definition that it has.
        """
        return digest(self.name, bytes(msgspec.json.decode(data, type=_Given).data))


@checked_but("__init__")
class Workflows(Mapping[str, AnyWorkflow]):
    """Workflows by name, in the order of registration."""

    def __init__(self, workflows: Iterable[AnyWorkflow | Source] = (), known: Known | None = None) -> None:
        """Register *workflows*, which may name one another; *known* is what else their steps may name.

        Raises:
            UsageError, InvalidDefinitionError: as `register`.
        """
        self._workflows: dict[str, AnyWorkflow] = {}
        self._own: dict[str, AnyWorkflow] = {}
        self.known = msgspec.structs.replace(known or Known(), workflows=self)
        self.register_all(workflows)

    def provide(self, workflow: AnyWorkflow) -> None:
        """Have a workflow of Perdure's own found by its name, and not listed."""
        self._own[workflow.name] = workflow

    def __getitem__(self, name: str) -> AnyWorkflow:
        try:
            return self._workflows.get(name) or self._own[name]
        except KeyError:
            raise UnknownWorkflowError(workflow=name, known=", ".join(sorted(self._workflows)) or "none") from None

    def get(self, name: str, default: Any = None) -> Any:
        """Return a workflow by name, or *default*."""
        return self._workflows.get(name) or self._own.get(name, default)

    def __contains__(self, name: object) -> bool:
        return name in self._workflows

    def __iter__(self) -> Iterator[str]:
        return iter(self._workflows)

    def __len__(self) -> int:
        return len(self._workflows)

    def register(self, workflow: AnyWorkflow | Source, *, replace: bool = False) -> AnyWorkflow:
        """Add a function made by `@workflow`, or a definition in any form that `load_definition` reads; return it.

        The same again changes nothing. Runs under way keep the definition that they started with.

        Raises:
            InvalidDefinitionError: the definition has faults; names all of them. Nothing was registered.
            UsageError: another workflow has the name and *replace* is not set, or it is none.
        """
        return self.register_all((workflow,), replace=replace)[0]

    def register_all(
        self, workflows: Iterable[AnyWorkflow | Source], *, replace: bool = False
    ) -> "tuple[AnyWorkflow, ...]":
        """Add several, which may name one another: all of them, or none if one is refused. See `register`."""
        before = dict(self._workflows)
        try:
            made = tuple(self._add(each, replace=replace) for each in workflows)
            for each in made:
                self._check(each)
        except BaseException:
            self._workflows = before
            raise
        return made

    def _check(self, workflow: AnyWorkflow) -> None:
        definition = _definition(workflow)
        if definition is not None and (faults := check(definition, self.known)):
            raise InvalidDefinitionError(workflow_id=workflow.name, faults=tuple(faults))

    def _add(self, source: AnyWorkflow | Source, *, replace: bool) -> AnyWorkflow:
        made = source if isinstance(source, Workflow) else self._made(source)
        there = self._workflows.get(made.name)
        if there is not None and (there is made or _is_same(there, made)):
            return there
        if there is not None and not replace:
            instead = "give one of them another name, @workflow(name=…), or another id, or say replace=True"
            raise UsageError(f"two workflows are called {made.name!r}: {instead}")
        self._workflows[made.name] = made
        return made

    def _made(self, source: Any) -> DefinedWorkflow:
        if not isinstance(source, (WorkflowDefinition, Mapping, str, bytes)) and not hasattr(source, "__fspath__"):
            raise UsageError(f"{source!r} is not a workflow: decorate it with @workflow, or write a WorkflowDefinition")
        return DefinedWorkflow(load_definition(cast("Source", source)), self.known)

    def remove(self, name: str) -> AnyWorkflow:
        """Take a workflow out and return it. Its runs in memory go on; others wait until it is registered again.

        Raises:
            UnknownWorkflowError: there is none of that name.
        """
        found = self[name]
        del self._workflows[name]
        return found

    def list(self) -> Infos:
        """Return what there is to know of each workflow."""
        return [_info(each) for each in self._workflows.values()]


def _definition(workflow: AnyWorkflow) -> WorkflowDefinition | None:
    return workflow.definition if isinstance(workflow, DefinedWorkflow) else None


def _is_same(there: AnyWorkflow, made: AnyWorkflow) -> bool:
    definition = _definition(made)
    return definition is not None and definition == _definition(there)


def _info(workflow: AnyWorkflow) -> WorkflowInfo:
    definition = _definition(workflow)
    if definition is None:
        name, description = workflow.name, workflow.description
        return WorkflowInfo(id=name, name=name, description=description, pattern=None, steps=(), metadata={})
    return WorkflowInfo(
        id=definition.id,
        name=definition.name or definition.id,
        description=definition.description,
        pattern=definition.pattern,
        steps=tuple(step.id for step in definition.steps),
        metadata=definition.metadata,
    )
