"""What must hold of a log after a crash: its acknowledgements, its effects and itself, compared. No test.

Everything is read from outside: the log by a reader, the acknowledgements and the executions from their files.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from perdure.store.audit import verify
from perdure.store.reader import LogReader
from perdure.store.records import Query, Recorded
from tests.crash.naive_breaker import NaiveBreaker
from tests.crash.workload import BROKEN_RESET_SECONDS, BROKEN_THRESHOLD, Effects, Execution, expected_result, lines

ENDS = ("step-completed", "step-failed", "step-cancelled")


class Aftermath:
    """A log that nobody owns, with what its owners said and did."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "log.db"
        self.acks: list[list[Any]] = [msgspec.json.decode(line) for line in lines(directory / "acks")]
        self.executions = Effects(directory / "executions").all()
        with LogReader.open(self.path) as reader:
            self.events = reader.read(Query(limit=10**9))
        self.by_stream: dict[str, list[Recorded]] = defaultdict(list)
        for event in self.events:
            self.by_stream[event.stream].append(event)

    def check(self) -> None:
        """Check everything that must hold after any crash."""
        assert verify(self.path).findings == ()
        self.check_acknowledgements()
        self.check_executions()
        self.check_times()
        self.check_breakers()

    # Nothing acknowledged is lost

    def check_acknowledgements(self) -> None:
        counts = Counter(ack[0] if ack[0] != "called" else "" for ack in self.acks)
        for ack in self.acks:
            match ack:
                case ["started", run]:
                    assert self._of(run, "run-started"), f"{run} was acknowledged as started and is lost"
                case ["result", run, result]:
                    [end] = self._of(run, "run-completed")
                    assert data_of(end)["result"] == result
                    workflow, _, item = run.partition("-")
                    assert expected_result(workflow, run, item, result), f"{run} ended with {result}"
                case ["called", "put", key]:
                    assert any(data_of(e)["call"] == key for e in self._tool("put", "call-succeeded"))
                case ["seen", position, stream, version, kind, data]:
                    event = self.events[position - 1]
                    assert (event.position, event.stream, event.version) == (position, stream, version)
                    assert (event.type, event.data) == (kind, data)
                case _:
                    pass
        assert counts["call failed"] <= sum(":" not in data_of(e)["call"] for e in self._tool("broken", "call-failed"))
        assert counts["call refused"] <= sum(
            ":" not in data_of(e)["call"] for e in self._tool("broken", "call-refused")
        )

    # No finished step runs again, and nothing runs that the log has no intent of

    def check_executions(self) -> None:
        lives = {data_of(e)["pid"]: e.position for e in self.by_stream["runtime/main"] if e.type == "runtime-opened"}
        for key, executed in self._executions().items():
            tool = executed[0].tool
            attempts = Counter((line.pid, line.attempt) for line in executed)
            if executed[0].run is None:
                assert len(executed) == 1, f"direct call {key} of {tool} was made {len(executed)} times"
                assert tool == "lookup" or any(data_of(e)["call"] == key for e in self._tool(tool, "call-started"))
                continue
            assert max(attempts.values()) == 1, f"{key} ran twice in one attempt of one life: {executed}"
            self._check_step(key, tool, executed, lives)

    def _check_step(self, key: str, tool: str, executed: list[Execution], lives: dict[int, int]) -> None:
        run, _, step = key.partition(":")
        facts = [e for e in self.by_stream[f"run/{run}"] if data_of(e).get("step") == step]
        kinds = Counter(event.type for event in facts)
        if tool != "lookup":
            intents = kinds["step-started"] + kinds["attempt-started"]
            assert len(executed) <= intents, f"{key} ran {len(executed)} times, with {intents} intents in the log"
        if tool in ("charge", "launch"):
            assert len(executed) == 1, f"irreversible {key} happened {len(executed)} times"
        ended = min((e.position for e in facts if e.type in ENDS), default=None)
        last = max(lives[line.pid] for line in executed)
        assert ended is None or last < ended, f"{key} ended at {ended} and ran again in the life from {last} on"
        assert sum(kinds[kind] for kind in ENDS) <= 1, f"{key} ended more than once"

    def _executions(self) -> dict[str, list[Execution]]:
        found: dict[str, list[Execution]] = defaultdict(list)
        for line in self.executions:
            found[line.key].append(line)
        return found

    # Waits are kept across crashes

    def check_times(self) -> None:
        due: dict[tuple[str, str], int] = {}
        for event in self.events:
            facts = data_of(event)
            where = (event.stream, facts.get("step", ""))
            match event.type:
                case "attempt-failed" | "attempt-refused":
                    due[where] = facts["retry_at"]
                case "timer-set":
                    due[where] = facts["due"]
                case "attempt-started" | "timer-fired":
                    assert event.at >= due.pop(where, 0), f"{event} is too early"
                case _:
                    pass

    # The breakers stand where a model says

    def check_breakers(self) -> None:
        for position, low, high, tools in self._reports():
            for name, figures in tools.items():
                model = _breaker(name)
                for event in self.by_stream[f"tool/{name}"]:
                    if event.position <= position:
                        model.feed(event)
                model.done()
                assert figures["state"] in model.reported(low, high), f"{name} after position {position}"
                assert figures["failures"] == model.streak
                assert {key: figures[key] for key in model.counts} == model.counts
        for stream, events in self.by_stream.items():
            if stream.startswith("tool/"):
                model = _breaker(stream.removeprefix("tool/"))
                for event in events:
                    model.feed(event)
                model.done()

    def _reports(self) -> Iterator[tuple[int, int, int, dict[str, Any]]]:
        for ack in self.acks:
            if ack[0] == "figures":
                yield ack[1], ack[2], ack[3], ack[4]

    # In the end

    def check_finished(self) -> None:
        """Check that every run has come to its end, and every irreversible effect happened once."""
        for stream, events in self.by_stream.items():
            if not stream.startswith("run/"):
                continue
            last = events[-1]
            if last.type == "run-blocked" and data_of(last)["kind"] == "poison":
                resumed = [data_of(e)["after_crash"] for e in events if e.type == "run-resumed"]
                assert resumed[-2:] == [True, True], f"{stream} is called poison after {resumed}"
            else:
                assert last.type == "run-completed", f"{stream} ended with {last}"

    def _of(self, run: str, kind: str) -> list[Recorded]:
        return [event for event in self.by_stream[f"run/{run}"] if event.type == kind]

    def _tool(self, name: str, kind: str) -> list[Recorded]:
        return [event for event in self.by_stream[f"tool/{name}"] if event.type == kind]


def data_of(event: Recorded) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(event.data or "{}")
    return found


def _breaker(tool: str) -> NaiveBreaker:
    match tool:
        case "broken":
            return NaiveBreaker(BROKEN_THRESHOLD, BROKEN_RESET_SECONDS)
        case "flaky":
            return NaiveBreaker(1000, 300)
        case _:
            return NaiveBreaker(3, 300)
