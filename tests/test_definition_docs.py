"""docs/definitions.md: its examples are accepted as they stand, and it names every field and every pattern."""

import re
from pathlib import Path

import msgspec
import pytest

from perdure import Agent, Branching, Compensation, RetryPolicy, Step, Trigger, WorkflowDefinition, Workflows
from perdure.actors.workflows.defined.conditions import OPERATORS
from perdure.actors.workflows.defined.known import Known
from perdure.actors.workflows.defined.model import PATTERNS

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "definitions.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```(?:json|toml)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
AGENTS = {name: Agent(name, lambda message: message.data) for name in ("zumbi", "anita", "tiradentes")}


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_accepted_as_it_stands(example: str) -> None:
    assert Workflows([example], Known(agents=AGENTS)).list()[0].steps


def test_there_are_examples_of_patterns_in_json_and_in_toml() -> None:
    patterns = {info.pattern for example in EXAMPLES for info in Workflows([example], Known(agents=AGENTS)).list()}

    assert patterns == set(PATTERNS) - {"parallel"}


@pytest.mark.parametrize("struct", [WorkflowDefinition, Step, RetryPolicy, Compensation, Branching, Trigger])
def test_every_field_is_described(struct: type[msgspec.Struct]) -> None:
    described = set(re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", PAGE, flags=re.MULTILINE | re.DOTALL)))

    assert set(struct.__struct_encode_fields__) - described == set()


def test_every_pattern_and_every_operator_is_described() -> None:
    assert all(f"**{pattern}**" in PAGE for pattern in PATTERNS)
    assert f"`{' '.join(OPERATORS)}`" in PAGE
