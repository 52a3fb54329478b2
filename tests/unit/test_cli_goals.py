"""`perdure goals` and `perdure goal`, from the log alone; and goals as another process sees them."""

import json
from pathlib import Path

import pytest

from perdure import (
    Constraint,
    Criterion,
    Goal,
    LogReader,
    Query,
    Recorded,
    Runtime,
    UnknownGoalError,
    UsageError,
    connect,
)
from perdure.actors.state.goal_commands import RecordDecision
from perdure.actors.state.goals import goal_stream
from tests.support.cli import Here
from tests.support.runs import data, play


@pytest.fixture
def here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Here:
    return Here(tmp_path, capsys)


GOALS = [
    Goal(
        id="mail",
        name="Send the mail",
        description="Before noon.",
        criteria=[
            Criterion(id="sent", description="the mail is sent", target="100%"),
            Criterion(id="cheap", weight=0.5),
        ],
        constraints=[
            Constraint(id="budget", type="soft", check={"if": "result.cost", "le": 100}),
            Constraint(id="law", type="hard"),
        ],
    ),
    Goal(id="idle"),
]


async def pursue(rt: Runtime) -> None:
    for number in range(10):
        decision = await rt.goals.record_decision("mail", f"try {number}", criteria=["sent"])
        cost = {"cost": 500} if number == 9 else {"cost": 5} if number != 8 else None
        await rt.goals.record_outcome(decision, number != 0, result=cost)
    await rt.goals.record_decision("mail", "and now?", criteria=["cheap"])


def fill(db: Path) -> None:
    async def scenario() -> None:
        async with Runtime(db, goals=GOALS) as rt:
            await pursue(rt)

    play(scenario)


def test_goals_are_listed_with_how_far_they_are(here: Here) -> None:
    fill(here.db)

    listed = here("goals", "--db", here.db)

    assert listed.code == 0
    assert listed.out.splitlines() == [
        "GOAL  STATUS  PROGRESS  MET  DECISIONS  OK  FAILED  VIOLATIONS  NEXT",
        "idle  draft      0.0 %  0/0          0   0       0           0  continue",
        "mail  active    60.0 %  0/2         11   9       1           1  continue",
    ]


def test_goals_are_listed_for_machines(here: Here) -> None:
    fill(here.db)

    lines = [json.loads(line) for line in here("goals", "--db", here.db, "--json").out.splitlines()]

    assert [one["goal"] for one in lines] == ["idle", "mail"]
    assert lines[1] == {
        "goal": "mail",
        "status": "active",
        "progress": 0.6,
        "recommendation": "continue",
        "criteria_met": 0,
        "criteria": 2,
        "decisions": 11,
        "successes": 9,
        "failures": 1,
        "violations": 1,
    }


def test_a_goal_is_shown_with_its_evidence_and_where_it_is_in_the_log(here: Here) -> None:
    fill(here.db)

    shown = here("goal", "mail", "--db", here.db)

    with LogReader.open(here.db) as reader:
        last = [row.position for row in reader.read(Query(types=("outcome-recorded",)))][-1]
        violated = [row.position for row in reader.read(Query(types=("constraint-violated",)))][-1]
    lines = shown.out.splitlines()
    assert shown.code == 0
    assert lines[:3] == [
        "mail (Send the mail): active, 60.0 %, continue",
        "  Before noon.",
        "  11 decisions: 9 succeeded, 1 failed, 1 without an outcome",
    ]
    assert [line.split() for line in lines if line.startswith(("sent", "cheap"))] == [
        ["sent", "no", "90.0", "%", "100%", "1", "10", "9", "1"],
        ["cheap", "no", "0.0", "%", "80%", "0.5", "1", "0", "0"],
    ]
    assert [line.split(":")[0] for line in lines if "success, position" in line] == [
        "  ↳ try 5", "  ↳ try 6", "  ↳ try 7", "  ↳ try 8", "  ↳ try 9",
    ]  # fmt: skip
    assert f"  ↳ try 9: success, position {last}" in lines
    assert lines[-3] == "constraint budget: violated 1 time"
    assert lines[-2].endswith(f"soft: result.cost is 500, not le 100, position {violated}")
    assert lines[-1] == "constraint budget: 1 outcome could not be judged"


def test_a_goal_is_shown_for_machines(here: Here) -> None:
    fill(here.db)

    found = json.loads(here("goal", "goal/mail", "--db", here.db, "--json").out)

    with LogReader.open(here.db) as reader:
        rows = [at(reader, position) for position in found["criteria_status"]["sent"]["positions"]]
    assert found["overall_progress"] == 0.6
    assert [data(row)["decision"] for row in rows] == [6, 7, 8, 9, 10]
    assert found["criteria_status"]["sent"]["target"] == "100%"
    assert found["violations"] == {"budget": 1}
    assert found["unjudged"] == {"budget": 1}
    assert found["constraint_violations"][0]["timestamp"][:2] == "20"


def at(reader: LogReader, position: int) -> Recorded:
    (row,) = reader.read(Query(after=position - 1, until=position))
    return row


def test_an_unknown_goal_is_a_wrong_call(here: Here) -> None:
    fill(here.db)

    ended = here("goal", "nowhere", "--db", here.db)

    assert ended.code == 2
    assert "knows no goal 'nowhere'; there are: " in ended.err


def test_a_log_without_goals_says_so(here: Here) -> None:
    async def scenario() -> None:
        async with Runtime(here.db):
            pass

    play(scenario)

    ended = here("goals", "--db", here.db)

    assert (ended.code, ended.out) == (0, "")
    assert "no goal is pursued" in ended.err


def test_the_goals_of_a_file_are_those_of_its_runs(here: Here) -> None:
    here.file.write_text(
        """
from perdure import Constraint, Context, Criterion, Goal, workflow

goals = [Goal(id="g", criteria=[Criterion(id="c")], constraints=[Constraint(id="k", type="soft", check="is_small")])]


def is_small(outcome):
    return outcome["result"] < 5


@workflow
async def total(ctx: Context) -> float:
    decision = await ctx.goal("g").decide("count", criteria=["c"])
    return (await ctx.goal("g").outcome(decision, True, result=9)).progress
""",
        encoding="utf-8",
    )

    ended = here.run("total")

    assert (ended.code, json.loads(ended.out)) == (0, 1.0)
    assert "completed" in here("goals", "--db", here.db).out
    assert "constraint k: violated 1 time" in here("goal", "g", "--db", here.db).out


def test_another_process_sees_how_far_a_goal_is_and_tells_it_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Runtime(tmp_path / "a.db", goals=GOALS) as owner, connect(tmp_path / "a.db") as rt:
            await pursue(owner)

            assert await rt.goals.progress("mail") == await owner.goals.progress("mail")
            assert await rt.get_goal_progress("mail") == await owner.get_goal_progress("mail")
            assert (await rt.goals.get("mail")).status == "active"
            assert (await rt.goals.statistics("mail"))["total_decisions"] == 11
            with pytest.raises(UnknownGoalError):
                await rt.goals.get("nowhere")
            with pytest.raises(UsageError, match="not asked from another process"):
                await rt.ask(goal_stream("mail"), RecordDecision(intent="go"))

    play(scenario)
