"""Loading an application's file, and the input that the command line names."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure.runtime.app import Runtime
from perdure.runtime.cli.exits import Exit, Failure
from perdure.runtime.cli.loading import load, read_input, split_target
from perdure.runtime.cli.serving import missing_in
from perdure.store.errors import UsageError

ONE = "from perdure import workflow\n@workflow\nasync def {name}(ctx): ...\n"


@pytest.fixture(autouse=True)
def imports() -> Iterator[None]:
    """Leave the interpreter as it was: loading a file imports it for good."""
    modules, path = dict(sys.modules), list(sys.path)
    yield
    sys.path[:] = path
    for name in sys.modules.keys() - modules.keys():
        del sys.modules[name]


def write(folder: Path, text: str, name: str = "loaded_app.py") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("a/flows.py:main", (Path("a/flows.py"), "main")),
        ("flows.py", (Path("flows.py"), None)),
        ("flows.py:", (Path("flows.py"), None)),
        ("a:b/flows.py", (Path("a:b/flows.py"), None)),
    ],
)
def test_a_target_is_a_file_and_perhaps_a_workflow(target: str, expected: tuple[Path, str | None]) -> None:
    assert split_target(target) == expected


def test_the_tools_and_workflows_of_a_file_are_found_once_each(tmp_path: Path) -> None:
    text = ONE.format(name="w") + "other = w\nfrom perdure import tool\n@tool(name='t')\ndef f(): ...\n"

    application = load(write(tmp_path, text))

    assert [workflow.name for workflow in application.workflows] == ["w"]
    assert [tool.name for tool in application.tools] == ["t"]
    assert application.workflow("other") is application.workflow("w") is application.workflow(None)


DEFINED = """
from perdure import Agent, Queue, Step, WorkflowDefinition, load_definition

def risky(data):
    return data["amount"] > 10

def longest(results):
    return max(results, key=len)

async def ask(message):
    return message.data

AGENTS = [Agent("zumbi", ask), Agent("anita", ask)]
mail = Queue("mail", concurrency=2)
STEPS = (Step(id="look", agent="zumbi", conditions="risky"), Step(id="check", agent="anita"))
plan = WorkflowDefinition(id="order-plan", pattern="fan_out_fan_in", merge="longest", steps=STEPS)
other = load_definition('{"id": "other", "steps": [{"id": "w", "workflow": "order-plan"}]}')
"""


def test_definitions_are_found_with_the_agents_predicates_and_reducers_that_they_name(tmp_path: Path) -> None:
    application = load(write(tmp_path, DEFINED))

    assert [workflow.name for workflow in application.workflows] == ["order-plan", "other"]
    assert application.workflow("plan") is application.workflow("order-plan")
    assert [agent.name for agent in application.agents] == ["zumbi", "anita"]
    assert [queue.name for queue in application.queues] == ["mail"]
    assert {"risky", "longest"} <= application.parts["predicates"].keys() & application.parts["reducers"].keys()


def test_what_is_found_makes_a_runtime_of_which_the_workflows_are_those_of_the_file(tmp_path: Path) -> None:
    application = load(write(tmp_path, DEFINED))

    runtime = Runtime(tmp_path / "never-opened.db", **application.parts)

    assert runtime.workflows["order-plan"] is application.workflow("plan")


def test_a_definition_with_faults_is_refused_with_all_of_them(tmp_path: Path) -> None:
    text = DEFINED.replace('conditions="risky"', 'conditions="riski"').replace('agent="anita"', 'agent="Anita"')

    with pytest.raises(Failure) as failure:
        load(write(tmp_path, text))

    assert failure.value.code is Exit.USAGE
    faults = failure.value.message.splitlines()[1:]
    assert [fault.split(": ")[0].strip() for fault in faults] == ["steps[0].conditions", "steps[1].agent"]
    assert [fault.split("; ")[1] for fault in faults] == ["did you mean risky?", "did you mean anita?"]


def test_an_async_function_is_no_predicate(tmp_path: Path) -> None:
    application = load(write(tmp_path, DEFINED))

    assert "ask" not in application.functions


def test_a_file_imports_its_neighbours_which_see_the_same_copy_of_it(tmp_path: Path) -> None:
    write(tmp_path, "import loaded_app\ndef copy():\n    return loaded_app.w\n", "loaded_neighbour.py")
    path = write(tmp_path, ONE.format(name="w") + "import loaded_neighbour\nassert loaded_neighbour.copy() is w\n")

    assert load(path).workflow("w").name == "w"


def test_a_file_that_is_called_like_a_module_in_use_does_not_take_its_place(tmp_path: Path) -> None:
    path = write(tmp_path, ONE.format(name="w"), "json.py")

    load(path)

    assert sys.modules["json"].__file__ != str(path)


def test_an_unknown_workflow_is_refused_with_those_there_are(tmp_path: Path) -> None:
    application = load(write(tmp_path, ONE.format(name="b") + ONE.format(name="a")))

    with pytest.raises(UsageError, match="no workflow 'c'; there are: a, b"):
        application.workflow("c")


def test_of_several_workflows_one_must_be_named(tmp_path: Path) -> None:
    application = load(write(tmp_path, ONE.format(name="b") + ONE.format(name="a")))

    with pytest.raises(UsageError, match="say which"):
        application.workflow(None)


def test_a_file_without_a_workflow_is_refused(tmp_path: Path) -> None:
    application = load(write(tmp_path, "x = 1\n"))

    with pytest.raises(UsageError, match="has no workflow"):
        application.workflow(None)


@pytest.mark.parametrize(
    ("text", "message", "code"),
    [
        ("x = (\n", r"loaded_app\.py:1: '\(' was never closed", Exit.USAGE),
        ("from perdure import workflow\n@workflow\ndef f(ctx): ...\n", "workflow f is not async", Exit.USAGE),
        ("1 / 0\n", "ZeroDivisionError", Exit.FAILED),
    ],
)
def test_a_file_that_cannot_be_loaded_is_refused_with_the_reason(
    tmp_path: Path, text: str, message: str, code: Exit
) -> None:
    with pytest.raises(Failure, match=message) as failure:
        load(write(tmp_path, text))

    assert failure.value.code is code


def test_the_traceback_of_a_file_begins_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, "def f():\n    1 / 0\nf()\n")

    with pytest.raises(Failure):
        load(path)

    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1].startswith(f'  File "{path}", line 3')


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="there is no file"):
        load(tmp_path / "none.py")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="is a folder: name a file in it"):
        load(tmp_path)


def test_input_may_be_left_out(tmp_path: Path) -> None:
    assert read_input(None, tmp_path / "x.db") == {}


def test_input_may_stand_in_a_file(tmp_path: Path) -> None:
    path = write(tmp_path, '{"n": [1]}', "input.json")

    assert read_input(f"@{path}", tmp_path / "x.db") == {"n": [1]}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ('{"a": }', "--input is not JSON: Expecting value at line 1, column 7"),
        ('{"a": NaN}', "--input is not JSON"),
        ("[1]", "--input is an array: write an object"),
        ("3", "--input is a number"),
        ("@nowhere.json", "nowhere.json cannot be read: No such file"),
    ],
)
def test_bad_input_is_refused_with_the_place(tmp_path: Path, given: str, message: str) -> None:
    with pytest.raises(Failure) as failure:
        read_input(given, tmp_path / "x.db")

    assert message in failure.value.message
    assert failure.value.code is Exit.USAGE


def test_the_log_itself_is_never_read_as_input(tmp_path: Path) -> None:
    db = write(tmp_path, "{}", "x.db")

    with pytest.raises(Failure, match="is the log itself"):
        read_input(f"@{db}", db)


def test_a_file_with_nothing_to_serve_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "nothing_at_all.py").write_text("x = 1\n")
    (tmp_path / "one_tool.py").write_text("from perdure import tool\n\n@tool\ndef f() -> int:\n    return 1\n")

    said = [
        missing_in(application, application.served(tmp_path / "a.db"))
        for application in map(load, (tmp_path / "nothing_at_all.py", tmp_path / "one_tool.py"))
    ]

    assert "nothing_at_all.py has nothing to serve: no workflow, no tool, no webhook. Write @workflow" in str(said[0])
    assert said[1] is None
