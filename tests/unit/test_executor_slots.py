"""Files of workspaces, and the figures of slots, as the executor gives them out."""

import base64
import hashlib
from typing import Any

import pytest

from perdure.actors.slots.calls import ToolCall
from perdure.runtime.serving.payloads import ArtifactReadResponsePayload
from tests.support.executing import Bench, on_bench

NO_SLOT = "No active slot for trajectory (run a sandbox tool first)"


@pytest.mark.row("A1-35")
def test_a_file_of_a_trajectory_without_a_slot_cannot_be_had() -> None:
    async def scenario(bench: Bench) -> None:
        reply = await bench.executor.read_artifact("t", "x")

        assert reply == ArtifactReadResponsePayload(success=False, error=NO_SLOT)
        assert (await bench.executor.list_artifacts("t")).error == NO_SLOT
        assert (await bench.executor.archive_artifacts("t")).error == NO_SLOT

    on_bench(scenario)


@pytest.mark.row("A1-36")
def test_what_the_machine_raises_is_in_the_reply() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.run("t")
        bench.machine.artifact = OSError("the disk is gone")

        replies: list[Any] = [
            await bench.executor.read_artifact("t", "x"),
            await bench.executor.list_artifacts("t"),
            await bench.executor.archive_artifacts("t"),
        ]

        assert [(reply.success, reply.error) for reply in replies] == [(False, "the disk is gone")] * 3

    on_bench(scenario)


@pytest.mark.row("A1-37")
def test_the_status_of_a_reply_is_left_out_and_its_error_kept() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.run("t")
        bench.machine.artifact = {"http_status": 404, "success": False, "error": "Not found: x"}

        reply = await bench.executor.read_artifact("t", "x")

        assert reply == ArtifactReadResponsePayload(success=False, error="Not found: x")

    on_bench(scenario)


def test_a_reply_that_cannot_be_understood_is_said_to_be_invalid() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.run("t")
        bench.machine.artifact = {"success": "perhaps"}

        reply = await bench.executor.read_artifact("t", "x")

        assert reply.error.startswith("Invalid artifact read response: ")

    on_bench(scenario)


@pytest.mark.parametrize("content", ["not base64!", "abc", "é"])
def test_an_archive_that_is_no_base64_is_said_to_be_invalid_and_not_recorded(content: str) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.run("t")
        bench.machine.artifact = {"success": True, "content": content}

        reply = await bench.executor.archive_artifacts("t")

        assert (reply.success, reply.content) == (False, "")
        assert reply.error.startswith("Invalid artifact archive response: ")
        assert "file-recorded" not in await bench.types("trajectory/t")

    on_bench(scenario)


def test_a_file_that_leaves_the_workspace_is_recorded_by_its_hash() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.run("t")
        digest = hashlib.sha256(b"abc").hexdigest()
        bench.machine.artifact = {
            "success": True, "content": base64.b64encode(b"abc").decode(), "bytes": 3, "file_size": 3, "sha256": digest
        }  # fmt: skip

        reply = await bench.executor.read_artifact("t", "x")

        assert reply.sha256 is None
        assert (await bench.types("trajectory/t"))[-1] == "file-recorded"

    on_bench(scenario)


def test_a_file_that_is_written_is_recorded() -> None:
    async def scenario(bench: Bench) -> None:
        call = bench.call("t", ToolCall("write_file", {"path": "a.txt", "content": "é"}))
        await bench.advance()
        await call

        assert (await bench.types("trajectory/t"))[-1] == "file-recorded"
        assert (await bench.rt.trajectory("t").view()).files == 1

    on_bench(scenario)


def test_the_figures_tell_how_slots_and_calls_stand() -> None:
    async def scenario(bench: Bench) -> None:
        held = bench.machine.hold("a")
        calls = [bench.submit("a", "hold a"), bench.submit("b"), bench.submit("c")]
        await bench.advance()
        queued = bench.submit("a")
        await bench.clock.settle()

        figures = (await bench.rt.statistics()).slots

        assert figures is not None
        assert figures.slots == {"executing": 1, "acquired": 1}
        assert (figures.queued, figures.running, figures.waiting, figures.batches) == (1, 2, 1, 1)
        assert (figures.requests, figures.errors, figures.trajectories) == (4, 0, 3)
        assert bench.executor.status()["pool"]["acquired_slots"] == 2
        held.set()
        await bench.executor.release_trajectory("b")
        for call in (*calls, queued):
            await call

    on_bench(scenario, max_slots=2)
