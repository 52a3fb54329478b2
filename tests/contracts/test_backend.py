"""What every backend of slots owes; run over all of them."""

import asyncio
import base64
import json
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from perdure.actors.slots.errors import StaleLeaseError
from perdure.runtime.sandbox.backend import Backend, ExecutionResult, Unfinished
from perdure.runtime.sandbox.processes import MARKER, is_alive, marked
from tests.support.backends import FACTORIES, Factory, bash, execution, make_root, perform, remove_root, run

SECONDS = 60
"""After which a scenario is stuck; nothing here takes long."""

Scenario = Callable[[Backend], Coroutine[Any, Any, Any]]


class Place:
    """A root on this machine, and the kind of backend over it."""

    def __init__(self, factory: Factory, root: Path) -> None:
        self.factory = factory
        self.root = root

    def run(self, scenario: Scenario) -> Any:
        """Run a scenario with a backend whose slots 0 and 1 are acquired with lease 1."""

        async def acquired(backend: Backend) -> Any:
            for slot in ("slot_0", "slot_1"):
                await backend.acquire(slot, 1)
            return await scenario(backend)

        return self.run_without_slots(acquired)

    def run_without_slots(self, scenario: Scenario) -> Any:
        """Run a scenario with a backend, in one life."""

        async def whole() -> Any:
            async with asyncio.timeout(SECONDS), self.factory(self.root) as backend:
                return await scenario(backend)

        return run(whole)

    def commands_left(self, slot: str = "slot_0") -> int:
        """How many processes still carry the slot's mark."""
        mark = self.factory.local(self.root).folder(slot).mark
        return sum(map(is_alive, marked(MARKER, mark)))


@pytest.fixture(params=sorted(FACTORIES))
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    root = make_root()
    yield Place(FACTORIES[request.param], root)
    remove_root(root)


# What a command says


@pytest.mark.row("A1-51")
def test_stderr_follows_stdout_under_a_heading(place: Place) -> None:
    result = place.run(lambda backend: bash(backend, "echo hi; echo err >&2"))

    assert result.output == "hi\n\n[stderr]\nerr"
    assert (result.success, result.error) == (True, "")
    assert result.metadata == {"exit_code": 0, "sandboxed": place.factory.is_sandbox, "network_isolated": False}


@pytest.mark.parametrize(
    ("command", "output"), [("echo hi", "hi"), ("echo err >&2", "err"), ("true", ""), ("printf '\\xff'", "\ufffd")]
)
def test_what_is_alone_stands_alone(place: Place, command: str, output: str) -> None:
    assert place.run(lambda backend: bash(backend, command)).output == output


def test_dev_stderr_and_dev_stdout_can_be_opened_again(place: Place) -> None:
    result = place.run(lambda backend: bash(backend, "echo a; echo b >/dev/stdout; echo c; echo d >/dev/stderr"))

    assert result.output == "a\nb\nc\n\n[stderr]\nd"


@pytest.mark.row("A1-52")
def test_an_exit_code_is_a_failure_that_names_it(place: Place) -> None:
    result = place.run(lambda backend: bash(backend, "exit 3"))

    assert (result.success, result.error, result.metadata["exit_code"]) == (False, "Exit code: 3", 3)


def test_a_command_that_dies_of_a_signal_has_128_and_its_number(place: Place) -> None:
    result = place.run(lambda backend: bash(backend, "kill -9 $$"))

    assert (result.error, result.metadata["exit_code"]) == ("Exit code: 137", 137)


@pytest.mark.row("A1-55")
def test_output_over_50_000_characters_is_cut_and_says_so(place: Place) -> None:
    result = place.run(lambda backend: bash(backend, "head -c 50001 /dev/zero | tr '\\0' é | sed 's/^/x/'"))
    exact = place.run(lambda backend: bash(backend, "head -c 50000 /dev/zero | tr '\\0' y"))

    assert len(result.output) == 50_000 + len("\n... (output truncated)")
    assert result.output.endswith("\n... (output truncated)")
    assert exact.output == "y" * 50_000


def test_an_unknown_tool_is_a_failure(place: Place) -> None:
    results = place.run(lambda backend: perform(backend, execution(tool="nope")))

    assert (results[0].success, results[0].error) == (False, "Unknown tool: nope")


@pytest.mark.parametrize("arguments", [{}, {"command": 7}, {"command": None}, {"command": "true", "allow_network": 3}])
def test_arguments_that_cannot_be_are_a_failure(place: Place, arguments: dict[str, Any]) -> None:
    result = place.run(lambda backend: perform(backend, execution(**arguments)))[0]

    assert not result.success
    assert result.error


def test_a_command_that_no_process_can_be_given_is_a_failure(place: Place) -> None:
    async def scenario(backend: Backend) -> list[ExecutionResult]:
        return await perform(
            backend,
            execution("echo \0"),
            execution("echo " + "x" * 200_000),
            execution("echo \ud800"),
            execution("echo on"),
        )

    results = place.run(scenario)

    assert [result.success for result in results] == [False, False, False, True]
    assert all(result.error for result in results[:3])


@pytest.mark.row("A1-62")
def test_a_command_sees_none_of_our_environment(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERDURE_TEST_SECRET", "s3cret")

    result = place.run(lambda backend: bash(backend, "echo -$PERDURE_TEST_SECRET-; cat /proc/self/environ; env"))

    assert result.output.startswith("--")
    assert "s3cret" not in result.output


def test_nothing_waits_for_a_person(place: Place) -> None:
    result = place.run(lambda backend: bash(backend, "cat; read x; tty; echo $PAGER $EDITOR"))

    assert result.output.splitlines() == ["not a tty", "cat true"]


# Time


@pytest.mark.row("A1-53")
def test_a_timeout_ends_the_command_and_all_it_started(place: Place) -> None:
    async def scenario(backend: Backend) -> tuple[ExecutionResult, int, ExecutionResult]:
        result = await bash(backend, "echo begun; sleep 300 & (setsid sleep 300 &) ; sleep 300", timeout=0.5)
        left = place.commands_left() if place.factory.is_sandbox else 0
        return result, left, await bash(backend, "echo on")

    result, left, after = place.run(scenario)

    assert (result.success, result.error) == (False, "Command timed out after 0.5s")
    assert result.metadata == {"exit_code": -1, "timeout": True, "sandboxed": place.factory.is_sandbox}
    assert left == 0
    assert after.output == "on"


def test_a_command_that_times_out_is_asked_to_end_first(place: Place) -> None:
    async def scenario(backend: Backend) -> str:
        await bash(backend, "trap 'echo asked >note; exit' TERM; while :; do sleep 0.05; done", timeout=1)
        return (await bash(backend, "cat note")).output

    assert place.run(scenario) == "asked"


def test_a_command_that_will_not_hear_is_killed(place: Place) -> None:
    result = place.run(lambda backend: bash(backend, "trap '' TERM; while :; do sleep 1; done", timeout=0.5))

    assert result.metadata["timeout"] is True
    assert place.commands_left() == 0


def test_what_stays_in_the_background_holds_nothing_up_and_ends_with_its_command(place: Place) -> None:
    async def scenario(backend: Backend) -> tuple[str, int]:
        result = await bash(backend, "sleep 300 & echo done")
        return result.output, place.commands_left()

    assert place.run(scenario) == ("done", 0)


# Order


@pytest.mark.row("A1-54")
def test_one_slot_is_in_order_and_two_slots_overlap(place: Place) -> None:
    stamp = "date +%s%N; sleep 0.5; date +%s%N"
    batch = [execution(stamp), execution(stamp), execution(stamp, slot="slot_1")]

    results = place.run(lambda backend: perform(backend, *batch))
    (first_begun, first_ended), (second_begun, _), (other_begun, other_ended) = [
        map(int, result.output.split()) for result in results
    ]

    assert first_ended <= second_begun
    assert other_begun < first_ended
    assert first_begun < other_ended


def test_two_batches_on_one_slot_do_not_overlap(place: Place) -> None:
    command = "[ ! -e busy ] || echo overlap; touch busy; sleep 0.2; rm busy"

    async def scenario(backend: Backend) -> list[str]:
        batches = await asyncio.gather(*(perform(backend, execution(command), execution(command)) for _ in range(2)))
        return [result.output for results in batches for result in results]

    assert place.run(scenario) == [""] * 4


def test_a_result_is_there_before_the_others_of_its_batch(place: Place) -> None:
    async def scenario(backend: Backend) -> list[str]:
        waits = execution("while [ ! -e go ]; do sleep 0.02; done; echo slow")
        order: list[str] = []
        async for result in backend.execute_batch([waits, execution("echo quick", slot="slot_1")]):
            order.append(result.output)
            if result.output == "quick":
                await perform_file(backend)
        return order

    async def perform_file(backend: Backend) -> None:
        (place.factory.local(place.root).folder("slot_0").workspace / "go").touch()

    assert place.run(scenario) == ["quick", "slow"]


# Once


def test_the_same_id_is_executed_once(place: Place) -> None:
    once = execution("echo x >>count; wc -l <count", id="the same")

    async def scenario(backend: Backend) -> list[ExecutionResult]:
        return [*await perform(backend, once), *await perform(backend, once)]

    first, second = place.run(scenario)

    assert first.output == "1"
    assert second == first


def test_the_outcome_of_a_former_life_is_remembered_until_forgotten(place: Place) -> None:
    once = execution("echo x >>count; wc -l <count", id="a/../\n\u00e9")

    async def first_life(backend: Backend) -> ExecutionResult:
        return (await perform(backend, once))[0]

    async def second_life(backend: Backend) -> list[Any]:
        remembered = await backend.outcome("slot_0", once.execution_id)
        again = (await perform(backend, once))[0]
        await backend.forget("slot_0", [once.execution_id, "unknown"])
        return [remembered, again, await backend.outcome("slot_0", once.execution_id)]

    result = place.run(first_life)

    assert place.run(second_life) == [result, result, None]


def test_an_execution_that_was_never_begun_has_no_outcome(place: Place) -> None:
    assert place.run(lambda backend: backend.outcome("slot_0", "never")) is None


def test_an_execution_that_died_with_its_owner_is_unfinished_and_not_run_again(place: Place) -> None:
    lost = execution("echo x >>count", id="lost")

    async def scenario(backend: Backend) -> tuple[Any, ExecutionResult, str]:
        folder = place.factory.local(place.root).folder("slot_0")
        outcome_folder(folder.calls, "lost").mkdir()
        outcome = await backend.outcome("slot_0", "lost")
        result = (await perform(backend, lost))[0]
        return outcome, result, (await bash(backend, "ls")).output

    outcome, result, files = place.run(scenario)

    assert isinstance(outcome, Unfinished)
    assert (result.success, result.metadata["unfinished"]) == (False, True)
    assert files == ""


def outcome_folder(calls: Path, execution_id: str) -> Path:
    from hashlib import sha256  # noqa: PLC0415 - the layout of the disk, told here once

    return calls / sha256(execution_id.encode()).hexdigest()[:40]


# Cancelling


def test_a_cancelled_execution_ends_and_says_so(place: Place) -> None:
    async def scenario(backend: Backend) -> tuple[ExecutionResult, ExecutionResult, Any]:
        running, queued = execution("touch begun; sleep 300", id="running"), execution("touch ran", id="queued")
        batch = asyncio.create_task(perform(backend, running, queued))
        await appears(place, "begun")
        await backend.cancel("slot_0", "queued")
        await backend.cancel("slot_0", "running")
        await backend.cancel("slot_0", "unknown")
        first, second = await batch
        return first, second, (await bash(backend, "ls")).output

    first, second, files = place.run(scenario)

    assert (first.success, first.metadata["cancelled"]) == (False, True)
    assert (second.success, second.metadata["cancelled"]) == (False, True)
    assert files == "begun"


def test_closing_a_batch_ends_what_runs(place: Place) -> None:
    async def scenario(backend: Backend) -> tuple[int, str]:
        batch = asyncio.create_task(perform(backend, execution("touch begun; sleep 300"), execution("touch after")))
        await appears(place, "begun")
        batch.cancel()
        await asyncio.wait([batch])
        return place.commands_left(), (await bash(backend, "ls")).output

    assert place.run(scenario) == (0, "begun")


async def appears(place: Place, name: str, slot: str = "slot_0") -> None:
    file = place.factory.local(place.root).folder(slot).workspace / name
    while not file.exists():  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.01)  # the command is on the other side of a file system


# Leases


def test_an_old_lease_is_refused_everywhere_and_after_a_restart(place: Place) -> None:
    async def first_life(backend: Backend) -> list[Any]:
        await backend.acquire("slot_0", 5)
        return [await refused(backend.acquire("slot_0", 4)), (await bash(backend, "touch done", lease=4)).success]

    async def refused(call: Coroutine[Any, Any, Any]) -> Any:
        with pytest.raises(StaleLeaseError) as raised:
            await call
        return raised.value.current

    async def second_life(backend: Backend) -> list[Any]:
        calls = [backend.release, backend.reset, backend.recover]
        return [
            *[await refused(call("slot_0", 4)) for call in calls],
            (await bash(backend, "ls", lease=5)).output,
        ]

    assert place.run_without_slots(first_life) == [5, False]
    assert place.run_without_slots(second_life) == [5, 5, 5, ""]


# Release, reset, recover, remove


def test_a_release_ends_processes_and_keeps_files(place: Place) -> None:
    async def scenario(backend: Backend) -> tuple[int, str]:
        batch = asyncio.create_task(perform(backend, execution("touch kept; sleep 300")))
        await appears(place, "kept")
        await backend.release("slot_0", 1)
        left = place.commands_left()
        await batch
        await backend.acquire("slot_0", 2)
        return left, (await bash(backend, "ls", lease=2)).output

    assert place.run(scenario) == (0, "kept")


@pytest.mark.row("A1-64")
def test_a_reset_leaves_nothing_of_the_holder(place: Place) -> None:
    once = execution("date >f; mkdir -p d/e; touch d/e/.g /tmp/t; cd d; X=1", id="once", tool="bash_stateful")

    async def scenario(backend: Backend) -> list[Any]:
        await perform(backend, once)
        await backend.reset("slot_0", 1)
        shell = (await perform(backend, execution("pwd; echo -$X-; ls -A . ~", tool="bash_stateful")))[0]
        return [await backend.outcome("slot_0", "once"), shell.output, (await bash(backend, "pwd")).output]

    outcome, shell, home = place.run(scenario)

    assert outcome is None
    assert shell == f"{home}\n--\n.:\n\n{home}:"


@pytest.mark.row("A1-64")
def test_an_unknown_slot_is_refused(place: Place) -> None:
    async def scenario(backend: Backend) -> list[Any]:
        with pytest.raises(Exception, match="elsewhere"):
            await backend.reset("elsewhere/../../etc", 1)
        result = await bash(backend, "true", slot="elsewhere/../../etc")
        return [result.success, "elsewhere" in result.error]

    assert place.run(scenario) == [False, True]


def test_a_reset_survives_what_a_command_leaves_behind(place: Place) -> None:
    hostile = r"""
        mkdir locked && touch locked/file && chmod 000 locked
        touch -- -rf '*' "$(printf 'new\nline')" "$(printf '\377')" ' '
        ln -s / root; ln -s /etc/passwd passwd; ln -s loop loop; mkfifo pipe
        touch readonly && chmod 000 readonly; mkdir sealed && touch sealed/x && chmod 555 sealed
        deep=$(printf 'd/%.0s' $(seq 900)); mkdir -p $deep && cd $deep && mkdir -p $deep && cd $deep && touch deep
        chmod 000 ~
    """

    async def scenario(backend: Backend) -> tuple[ExecutionResult, str]:
        result = await bash(backend, hostile)
        await backend.reset("slot_0", 1)
        return result, (await bash(backend, "ls -A; touch works; ls")).output

    result, files = place.run(scenario)

    assert result.success, result.error + result.output
    assert files == "works"
    assert Path("/etc/passwd").exists()


def test_recovering_ends_commands_of_a_former_life_and_keeps_files(place: Place) -> None:
    async def scenario(backend: Backend) -> tuple[int, str]:
        await bash(backend, "touch kept")
        await backend.recover("slot_0", 1)
        return place.commands_left(), (await bash(backend, "ls")).output

    assert place.run(scenario) == (0, "kept")


def test_a_removed_slot_leaves_no_folder_and_can_be_made_again(place: Place) -> None:
    async def scenario(backend: Backend) -> tuple[bool, str]:
        await bash(backend, "touch old")
        await backend.remove("slot_0")
        is_gone = not place.factory.local(place.root).folder("slot_0").path.exists()
        await backend.remove("slot_0")
        await backend.acquire("slot_0", 1)
        return is_gone, (await bash(backend, "ls")).output

    assert place.run(scenario) == (True, "")


def test_slots_have_names_that_last_and_are_well(place: Place) -> None:
    async def scenario(backend: Backend) -> list[Any]:
        return [
            backend.slot_name(0),
            backend.slot_name(12),
            await backend.health("slot_0"),
            await backend.health("slot_9"),
        ]

    assert place.run(scenario) == ["slot_0", "slot_12", None, None]


def test_stopping_ends_commands(place: Place) -> None:
    async def scenario(backend: Backend) -> None:
        batch = asyncio.create_task(perform(backend, execution("touch begun; sleep 300", id="stopped")))
        await appears(place, "begun")
        await backend.stop()
        await asyncio.wait([batch])

    place.run(scenario)

    assert place.commands_left() == 0


# Files


def test_file_tools_and_commands_see_the_same_files(place: Place) -> None:
    async def scenario(backend: Backend) -> list[ExecutionResult]:
        return await perform(
            backend,
            execution(tool="write_file", path="a/b.txt", content="text é\n"),
            execution("cat a/b.txt; echo more >>a/b.txt"),
            execution(tool="read_file", path="a/b.txt"),
            execution(tool="read_file", path="../x"),
        )

    _, shown, read, outside = place.run(scenario)

    assert shown.output == "text é"
    assert read.output == "text é\nmore\n"
    assert (outside.success, outside.error) == (False, "Access denied: path outside workspace")


def test_artifacts_are_read_listed_and_packed(place: Place) -> None:
    async def scenario(backend: Backend) -> list[dict[str, Any]]:
        await bash(backend, "mkdir d; printf 123456 >d/f")
        return [
            await backend.read_artifact("slot_0", "d/f", max_bytes=3),
            await backend.list_artifacts("slot_0", recursive=True),
            await backend.archive_artifacts("slot_0", "d"),
            await backend.read_artifact("slot_0", "nothing"),
            await backend.read_artifact("slot_9", "d/f"),
        ]

    read, listed, packed, missing, unknown = place.run(scenario)

    assert (read["content"], read["truncated"], read["file_size"], read["http_status"]) == ("123", True, 6, 200)
    assert [entry["path"] for entry in listed["entries"]] == ["d", "d/f"]
    assert base64.b64decode(packed["content"])[:2] == b"\x1f\x8b"
    assert (missing["success"], missing["http_status"]) == (False, 404)
    assert (unknown["success"], unknown["http_status"]) == (False, 404)
    assert json.dumps([read, listed, packed, missing, unknown])
