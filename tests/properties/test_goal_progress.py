"""A goal beside a naive model of document 003's formula, which keeps everything and counts it anew each time."""

from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from perdure import Constraint, Criterion, Goal
from perdure.actors.kernel.replay import replay
from perdure.actors.state.goal_events import GoalAchieved, GoalProgressed
from tests.support.goals import Pursued, snapshot_of

WORDS = ("the", "email", "is", "sent", "theist", "missionary", "paid", "c1", "late")


class Aggregator:
    """The algorithm as it is written down, over lists of all that was said."""

    def __init__(self, goal: Goal) -> None:
        self.goal = goal
        self.decisions: list[dict[str, Any]] = []
        self.violated: list[str] = []

    def is_relevant(self, decision: dict[str, Any], criterion: Criterion) -> bool:
        if criterion.id in decision["criteria"]:
            return True
        if not self.goal.match_text:
            return False
        if criterion.id in str(decision["constraints"]):
            return True
        text = f"{decision['intent']} {decision['reasoning']}".lower()
        return len([word for word in criterion.description.lower().split() if word in text]) >= 2

    def progress_of(self, criterion: Criterion) -> tuple[bool, float]:
        relevant = [each for each in self.decisions if self.is_relevant(each, criterion)]
        told = [each["outcome"] for each in relevant if each["outcome"] is not None]
        progress = told.count(True) / len(told) if told else 0.0
        if not relevant:
            return False, progress
        target = criterion.target
        if isinstance(target, str) and target.endswith("%"):
            return progress >= float(target.rstrip("%")) / 100, progress
        return progress >= 0.8, progress

    def overall(self) -> float:
        standing = [(one.weight, *self.progress_of(one)) for one in self.goal.criteria]
        total = sum(weight for weight, _, _ in standing)
        return sum(weight * (1.0 if met else progress) for weight, met, progress in standing) / total if total else 0.0

    def recommendation(self) -> str:
        if any(one.type == "hard" and one.id in self.violated for one in self.goal.constraints):
            return "adjust"
        if self.overall() >= 0.95 and all(self.progress_of(one)[0] for one in self.goal.criteria):
            return "complete"
        return "adjust" if self.overall() < 0.3 and len(self.decisions) > 10 else "continue"


criteria = st.lists(
    st.builds(
        Criterion,
        id=st.sampled_from(["c1", "c2", "c3", "paid"]),
        description=st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join),
        target=st.sampled_from(["100%", "90%", "33.3%", "0%", "50 %", 5, None, "much"]),
        weight=st.sampled_from([0, 0.1, 0.5, 0.7, 1, 1.0]),
    ),
    max_size=4,
    unique_by=lambda one: one.id,
)
goals = st.builds(
    Goal,
    id=st.just("g"),
    criteria=criteria,
    constraints=st.just((Constraint(id="law"), Constraint(id="taste", type="soft"))),
    match_text=st.booleans(),
)
sentences = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join)
actions = st.lists(
    st.one_of(
        st.tuples(st.just("decide"), st.lists(st.integers(0, 3), max_size=3), sentences, sentences),
        st.tuples(st.just("decide"), st.lists(st.integers(0, 3), max_size=3), sentences, sentences),
        st.tuples(st.just("end"), st.integers(0, 40), st.booleans()),
        st.tuples(st.just("end"), st.integers(0, 40), st.just(True)),
        st.tuples(st.just("violate"), st.sampled_from(["taste", "taste", "law"])),
    ),
    max_size=40,
)

ELEVEN_FAILURES: list[Any] = [("decide", [0], "go", "")] * 11 + [("end", number, False) for number in range(11)]


@settings(max_examples=300)
@given(goal=goals, said=actions)
@example(goal=Goal(id="g", criteria=[Criterion(id="c1")]), said=ELEVEN_FAILURES)
@example(goal=Goal(id="g"), said=ELEVEN_FAILURES)
def test_progress_is_what_the_written_algorithm_says_after_every_event(goal: Goal, said: list[Any]) -> None:
    pursued, naive = Pursued(goal), Aggregator(goal)

    for action, *what in said:
        act(pursued, naive, action, what)

        found = pursued.progress
        assert found.overall == naive.overall()
        assert found.recommendation == naive.recommendation()
        assert [(one.met, one.progress) for one in found.criteria] == [naive.progress_of(c) for c in goal.criteria]
        assert found.decisions == len(naive.decisions)
        assert found.successes == sum(each["outcome"] is True for each in naive.decisions)
        assert found.failures == sum(each["outcome"] is False for each in naive.decisions)
        assert sum(found.violations.values()) == len(naive.violated)


def act(pursued: Pursued, naive: Aggregator, action: str, what: list[Any]) -> None:
    match action, what:
        case "decide", [numbers, intent, reasoning]:
            named = [one.id for number, one in enumerate(pursued.goal.criteria) if number in numbers]
            pursued.decide(*named, intent=intent, reasoning=reasoning, constraints=(intent,))
            decision = {"criteria": named, "intent": intent, "reasoning": reasoning, "constraints": [intent]}
            naive.decisions.append({**decision, "outcome": None})
        case "end", [number, success] if number < len(naive.decisions):
            told = pursued.end(number + 1, success)
            decision = naive.decisions[number]
            assert told.is_new is (decision["outcome"] is None)
            decision["outcome"] = success if decision["outcome"] is None else decision["outcome"]
        case "violate", [constraint] if any(one.id == constraint for one in pursued.goal.constraints):
            pursued.violate(constraint)
            naive.violated.append(constraint)
        case _:
            pass


@settings(max_examples=150)
@given(goal=goals, said=actions)
def test_the_log_tells_all_of_a_goal(goal: Goal, said: list[Any]) -> None:
    pursued, naive = Pursued(goal), Aggregator(goal)
    complete_at = list[bool]()
    for action, *what in said:
        act(pursued, naive, action, what)
        complete_at.append(pursued.progress.recommendation == "complete")

    told = [event for event in pursued.log if isinstance(event, GoalProgressed)]

    assert replay(pursued.behavior, pursued.log, pursued.stream) == pursued.state == snapshot_of(pursued)
    assert len(pursued.facts(GoalAchieved)) == any(complete_at)
    assert (pursued.goal.status == "completed") is any(complete_at)
    assert not told or told[-1].progress == pursued.progress.overall
    assert pursued.state.open.keys() == {n for n, each in enumerate(naive.decisions, 1) if each["outcome"] is None}
    assert all(len(one.evidence) <= 5 for one in pursued.progress.criteria)
