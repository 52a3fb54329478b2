"""What must hold of slots after a crash: log, answers that callers were given, and workspaces, compared. No test.

Everything is read from outside. The log is folded once more here, naively and without the product's own rules.
"""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import msgspec

from perdure import ToolResult
from perdure.store.audit import verify
from perdure.store.reader import LogReader
from perdure.store.records import Query, Recorded
from tests.crash.oracle import data_of
from tests.crash.slot_life import Acknowledged
from tests.crash.slot_plan import (
    TRAJECTORIES,
    Kind,
    Order,
    Planned,
    has_terminal,
    id_of,
    is_leaver,
    name_of,
    plan,
    token,
)
from tests.crash.workload import lines

EFFECTFUL: frozenset[Kind] = frozenset({"once", "daemons", "repeatable"})


class SlotAftermath:
    """A log that nobody owns and the slots that it speaks of."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.path = Path(order.directory) / "log.db"
        self.acks: list[list[Any]] = [msgspec.json.decode(line) for line in lines(Path(order.directory) / "acks")]
        self.told = Acknowledged.read(Path(order.directory))
        with LogReader.open(self.path) as reader:
            self.events = reader.read(Query(limit=10**9))
        self.by_kind: dict[str, list[Recorded]] = defaultdict(list)
        for event in self.events:
            self.by_kind[event.type].append(event)
        self.is_finished = any(ack[0] == "finished" for ack in self.acks)
        self.slots: dict[str, str] = {}
        """By trajectory, as the log says."""
        self.requested: dict[str, dict[str, Any]] = {}
        """Intents by the call's id, the newest attempt."""

    def check(self) -> None:
        """Check everything that must hold after any crash."""
        self.check_leases()
        self.check_calls()
        self.check_stayers()
        self.check_orphans()
        self.check_results()
        for trajectory in range(TRAJECTORIES):
            self.check_workspace(trajectory)
        self.check_looks()

    # No slot held twice

    def check_leases(self) -> None:
        holders: dict[str, str] = {}
        leases: Counter[str] = Counter()
        for event in self.events:
            if event.type not in {"slot-acquired", "slot-released", "slot-quarantined", "trajectory-slot-assigned"}:
                continue
            data = data_of(event)
            slot = data["slot"]
            assert event.type != "slot-quarantined", data
            if event.type == "slot-acquired":
                assert slot not in holders, f"{slot} was given to {data['trajectory']} while {holders[slot]} held it"
                assert data["trajectory"] not in holders.values()
                assert data["lease"] > leases[slot]
                holders[slot], leases[slot] = data["trajectory"], data["lease"]
            elif event.type == "slot-released":
                assert data["lease"] == leases[slot]
                del holders[slot]
            else:
                assert (holders[slot], leases[slot]) == (event.stream.partition("/")[2], data["lease"])
        self.slots = {trajectory: slot for slot, trajectory in holders.items()}

    def check_stayers(self) -> None:
        """Whoever does not leave has one slot in all lives."""
        moved = Counter[str](event.stream for event in self.by_kind["trajectory-slot-assigned"])
        for trajectory in range(TRAJECTORIES):
            name = name_of(trajectory)
            if not is_leaver(trajectory):
                assert moved[f"trajectory/{name}"] <= 1
                assert name in self.slots or not self.told.done[trajectory] or self.is_finished

    # A call is requested, and ends, once

    def check_calls(self) -> None:
        attempts: Counter[str] = Counter()
        ended: Counter[str] = Counter()
        doubted: Counter[str] = Counter()
        for event in self.events:
            if not event.stream.startswith("trajectory/") or "execution" not in (data := data_of(event)):
                continue
            call = data["execution"]
            match event.type:
                case "execution-requested":
                    attempts[call] += 1
                    assert data["attempt"] == attempts[call]
                    assert not ended[call], f"{call} ran again after its end"
                    assert not doubted[call], f"{call} ran again although it was in doubt"
                    self.requested[call] = data
                case "execution-in-doubt":
                    doubted[call] += 1
                    assert plan_of(self.order, call).effect == "irreversible"
                case _:
                    ended[call] += 1
                    assert ended[call] == 1
                    assert attempts[call]
        assert not set(doubted.values()) - {1}

    # Nothing of a former life was left

    def check_orphans(self) -> None:
        for kind, *facts in self.acks:
            if kind == "opened":
                assert facts == [[]], f"a former life left processes: {facts}"

    # What was told is so, and stays so

    def check_results(self) -> None:
        recorded: dict[str, dict[str, Any]] = {}
        for kind in ("execution-completed", "execution-settled"):
            recorded.update({data_of(event)["execution"]: data_of(event) for event in self.by_kind[kind]})
        for (trajectory, number), result in self.told.results.items():
            call = id_of(trajectory, number)
            assert call in recorded, f"{call} was told, and is not in the log"
            data = recorded[call]
            assert (result.success, result.output) == (data["success"], data.get("output", ""))
            assert "settled" in result.metadata or result.metadata == data["metadata"]
            assert self.is_expected(trajectory, number, result), f"{call} came to {result}"

    def is_expected(self, trajectory: int, number: int, result: ToolResult) -> bool:
        if "settled" in result.metadata:
            return not result.success
        if not result.success:
            return False
        if "output_lost" in result.metadata:
            return result.output == ""
        match plan(self.order, trajectory, number).kind:
            case "once" | "daemons" | "repeatable":
                return result.output == f"done {id_of(trajectory, number)}"
            case "read":
                return result.output == token(trajectory, number)
            case _:
                return True

    # What is in the workspaces

    def check_workspace(self, trajectory: int) -> None:
        slot = self.slots.get(name_of(trajectory))
        number = self.told.done[trajectory]
        if slot is None:
            return
        workspace = Path(self.order.slots) / slot / "workspace"
        self.check_token(trajectory, number, workspace)
        effects = Counter(line.decode() for line in lines(workspace / "effects"))
        self.check_effects(trajectory, effects)
        if not is_leaver(trajectory):
            for (holder, each), result in self.told.results.items():
                if holder == trajectory and plan(self.order, holder, each).kind in EFFECTFUL and result.success:
                    assert effects[id_of(holder, each)], f"{id_of(holder, each)} succeeded and left nothing"
            self.check_counter(trajectory, workspace)
        if has_terminal(trajectory):
            assert set(lines(workspace / "told")) <= {name_of(trajectory).encode()}

    def check_token(self, trajectory: int, number: int, workspace: Path) -> None:
        """Whoever has a slot finds there what it wrote at its beginning, and never what somebody else did."""
        path = workspace / "token"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        assert text.startswith(name_of(trajectory)) or not text
        is_leaving = is_leaver(trajectory) and plan(self.order, trajectory, number).kind in {"release", "token"}
        if number and not is_leaving:
            assert text == token(trajectory, number)

    def check_effects(self, trajectory: int, effects: Counter[str]) -> None:
        for call, count in effects.items():
            assert call.startswith(f"{trajectory}-"), f"{call} ran in the slot of {trajectory}"
            assert call in self.requested, f"{call} ran, and nobody knows of it"
            planned = plan_of(self.order, call)
            assert count == 1 or planned.effect == "idempotent", f"{call} is irreversible and ran {count} times"

    def check_looks(self) -> None:
        """Leavers are emptied, so they look before they go."""
        for (trajectory, number), result in self.told.results.items():
            if plan(self.order, trajectory, number).kind == "look" and result.output:
                self.check_effects(trajectory, Counter(result.output.split()))

    def check_counter(self, trajectory: int, workspace: Path) -> None:
        """The shell kept its variable over all lives: it grew with every call that succeeded, at most once."""
        runs = Counter(lines(workspace / "counter"))
        assert set(runs.values()) <= {1}, f"a stateful command ran twice: {runs}"
        succeeded = 0
        for number in range(self.told.done[trajectory]):
            result = self.told.results[trajectory, number]
            if plan(self.order, trajectory, number).kind != "stateful" or not result.success:
                continue
            succeeded += 1
            if result.output:
                assert succeeded <= int(result.output) <= len(runs)

    # What happened at all

    def happened(self) -> Counter[str]:
        """Count in which ways calls without an outcome were brought to one."""
        ways: Counter[str] = Counter()
        ways["in doubt"] = len(self.by_kind["execution-in-doubt"])
        for event in self.by_kind["execution-completed"]:
            data = data_of(event)
            ways["found"] += bool(data.get("was_recovered"))
            ways["found without output"] += "output_lost" in data["metadata"]
        for event in self.by_kind["execution-requested"]:
            if (data := data_of(event))["attempt"] > 1:
                ways[f"{data['effect']} again"] += 1
        ways["reset"] = len(self.by_kind["slot-reset"])
        return ways

    def check_finished(self) -> None:
        """Check what must hold when the last life has ended in good order."""
        assert verify(self.path).findings == ()
        assert not self.slots
        assert not list(Path(self.order.slots).glob("slot_*"))


def plan_of(order: Order, call: str) -> Planned:
    trajectory, _, number = call.partition("-")
    return plan(order, int(trajectory), int(number))
