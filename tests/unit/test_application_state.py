"""`rt.state`: shared state as an application reads and writes it beside the runs; what is kept, counted and refused."""

from typing import Any

import pytest

from perdure import (
    MISSING,
    PayloadTooLargeError,
    RunClosedError,
    Runtime,
    StateConflictError,
    StateFullError,
    StatePermissionError,
    UnencodableError,
    UnknownRunError,
    UsageError,
)
from perdure.actors.state.scopes import Sight, stream_of
from tests.support.runs import box_with, play
from tests.support.sharing import KEEP, box_of, does, result_of


def test_an_application_shares_values_with_runs_in_both_directions() -> None:
    async def scenario() -> None:
        async with box_of() as box:
            rt = await box.open()
            await rt.state.write_batch({"a": 1, "b": [2]})

            found = await result_of(rt, "orders", ["read_all"], ["write", "a", 5, "global"])

            assert found == [{"a": 1, "b": [2]}, None]
            assert await rt.state.read("a") == 5
            assert await rt.state.update("a", lambda n: n + 1) == 6
            assert await rt.state.compare_and_set("a", 6, 7)
            assert not await rt.state.compare_and_set("a", 6, 8)
            assert await rt.state.compare_and_set("new", MISSING, None)
            assert await rt.state.compare_and_set("new", None, MISSING)
            assert await rt.state.delete("b")
            assert not await rt.state.delete("b")
            assert await rt.state.read_all() == {"a": 7}

    play(scenario)


def test_what_an_application_wrote_is_there_after_a_crash_at_once() -> None:
    async def scenario() -> None:
        async with box_with() as box:
            rt = await box.open()
            await rt.state.write("k", {"deep": [1, None, "ü"]})
            rt = await box.crash_and_reopen()

            assert await rt.state.read("k") == {"deep": [1, None, "ü"]}

    play(scenario)


def test_a_view_of_a_run_sees_what_the_run_sees_and_writes_as_it_would() -> None:
    async def scenario() -> None:
        async with box_of("isolated", settings=KEEP) as box:
            rt = await box.open()
            await rt.state.write("g", 1)
            calls = [["write", "own", 1], ["wait"], ["read_all"]]
            await rt.trigger("orders", {"calls": calls}, id="r")
            await box.clock.settle()
            view = rt.state.view(run="r", who="ada")

            seen = await view.read_all()
            await view.write("told", "by ada", "global")
            wider = await rt.state.view(run="r", isolation="shared").read_all()
            await rt.run("r").signal("go", 1)

            assert seen == {"own": 1}
            assert wider == {"own": 1, "told": "by ada", "g": 1}
            assert (await rt.run("r").result())[-1] == {"own": 1, "told": "by ada"}
            (change,) = [one for one in await rt.state.recent_changes() if one.key == "told"]
            assert (change.place, change.run, change.who) == ("execution/r", None, "ada")

    play(scenario)


def test_values_that_a_run_is_given_while_it_sleeps_leave_it_asleep() -> None:
    async def scenario() -> None:
        async with box_of() as box:
            rt = await box.open()
            await rt.with_options(id="r").start(does, [["sleep", 3600], ["read", "k"]])
            await box.clock.settle()

            await rt.state.view(run="r").write("k", 1, "execution")
            await box.clock.settle()

            assert (await rt.run("r").status()).status == "waiting"
            await box.clock.advance(3600)
            assert await rt.run("r").result() == [1]

    play(scenario)


def test_the_values_of_a_run_that_has_ended_cannot_be_brought_back() -> None:
    async def scenario() -> None:
        async with box_of() as box:
            rt = await box.open()
            await result_of(rt, "orders", ["write", "k", 1], id="r")

            with pytest.raises(RunClosedError):
                await rt.state.view(run="r").write("k", 2)
            with pytest.raises(UnknownRunError):
                await rt.state.view(run="nobody").read("k")

            assert await rt.state.view(run="r").read("k") is None
            assert (await rt.state.statistics())["execution_count"] == 0

    play(scenario)


def test_a_synchronized_view_refuses_to_overwrite_what_it_has_not_seen() -> None:
    async def scenario() -> None:
        async with box_of() as box:
            rt = await box.open()
            view = rt.state.view(stream="orders", isolation="synchronized")
            await view.read("k")
            await result_of(rt, "orders", ["write", "k", 1, "stream"], id="r")

            with pytest.raises(StateConflictError, match="changed by r since") as conflict:
                await view.write("k", 2)
            await view.read("k")
            await view.write("k", 3)

            assert (conflict.value.key, conflict.value.place, conflict.value.by) == ("k", "stream/orders", "r")
            assert await rt.state.view(stream="orders").read("k") == 3

    play(scenario)


def test_a_view_without_a_run_writes_to_its_innermost_scope() -> None:
    async def scenario() -> None:
        async with box_with() as box:
            rt = await box.open()
            await rt.state.view(stream="s", conversation="c").write("k", 1)
            await rt.state.view(stream="s").write("k", 2)
            await rt.state.write("k", 3)

            assert [one.place for one in await rt.state.recent_changes()] == ["global", "stream/s", "conversation/c"]
            assert await rt.state.view(stream="s", conversation="c").read_all() == {"k": 1}

    play(scenario)


def test_dropping_a_scope_takes_all_its_values_away() -> None:
    async def scenario() -> None:
        async with box_with() as box:
            rt = await box.open()
            await rt.state.view(stream="s").write_batch({"a": 1, "b": 2})
            await rt.state.view(conversation="c").write("a", 1)

            dropped = [await rt.state.drop(stream="s", who="ada"), await rt.state.drop(stream="s")]

            assert dropped == [2, 0]
            assert await rt.state.view(stream="s").read_all() == {}
            assert await rt.state.drop(conversation="c") == 1
            with pytest.raises(UsageError, match="either"):
                await rt.state.drop()

    play(scenario)


# What is refused


async def _writes(rt: Runtime, value: Any, error: type[BaseException]) -> None:
    with pytest.raises(error):
        await rt.state.write("k", value)


def test_what_cannot_be_recorded_is_refused_and_changes_nothing() -> None:
    async def scenario() -> None:
        async with box_with() as box:
            rt = await box.open()
            await rt.state.write("k", "before")

            await _writes(rt, object(), UnencodableError)
            await _writes(rt, float("nan"), UnencodableError)
            await _writes(rt, "\ud800", UnencodableError)
            await _writes(rt, "x" * 1024 * 1024, PayloadTooLargeError)
            with pytest.raises(ZeroDivisionError):
                await rt.state.update("k", lambda _: 1 // 0)

            assert await rt.state.read("k") == "before"
            assert len(await rt.state.recent_changes()) == 1

    play(scenario)


def test_a_scope_that_is_full_takes_what_makes_it_smaller() -> None:
    async def scenario() -> None:
        async with box_with() as box:
            rt = await box.open()
            for number in range(10):
                await rt.state.write_batch({f"{number}-{n}": n for n in range(1000)})

            with pytest.raises(StateFullError, match="10001 keys, the bound is 10000") as full:
                await rt.state.write("one more", 1)
            await rt.state.write("0-0", "another")
            await rt.state.delete("0-1")
            await rt.state.write("one more", 1)

            assert (full.value.place, full.value.unit, full.value.bound) == ("global", "keys", 10_000)
            assert (await rt.state.statistics())["global_keys"] == 10_000

    play(scenario)


def test_bytes_are_bounded_too() -> None:
    async def scenario() -> None:
        async with box_with() as box:
            rt = await box.open()
            for number in range(4):
                await rt.state.write(f"k{number}", "x" * 1_000_000)

            with pytest.raises(StateFullError, match="bytes"):
                await rt.state.write("k4", "x" * 1_000_000)
            rt = await box.crash_and_reopen()

            assert sorted(await rt.state.read_all()) == ["k0", "k1", "k2", "k3"]
            assert [len(one.new) for one in await rt.state.recent_changes(2)] == [1_000_000] * 2

    play(scenario)


@pytest.mark.parametrize("key", ["", "x" * 201, "a\nb", 7])
def test_what_can_be_no_key_is_refused_in_every_call(key: Any) -> None:
    async def scenario() -> None:
        async with box_with() as box:
            rt = await box.open()

            for name, *args in (("read",), ("has",), ("write", 1), ("delete",), ("compare_and_set", 1, 2)):
                with pytest.raises(UsageError, match=r"a key of the state|key is a text"):
                    await getattr(rt.state, name)(key, *args)

    play(scenario)


def test_wrong_uses_are_told_apart() -> None:
    async def scenario() -> None:
        async with box_with() as box:
            rt = await box.open()

            with pytest.raises(UsageError, match="isolation is one of"):
                rt.state.view(isolation="none")  # type: ignore[arg-type]
            with pytest.raises(UsageError, match="say which"):
                await rt.state.view(isolation="isolated").write("k", 1)
            with pytest.raises(UsageError, match="there is no scope 'stream' here"):
                await rt.state.write("k", 1, "stream")
            with pytest.raises(UsageError, match="read is a list or None, not 'k'"):
                rt.state.with_permissions(read="k")
            with pytest.raises(UsageError, match="limit"):
                await rt.state.changes(0)
            with pytest.raises(UsageError, match="at most 1000 keys"):
                await rt.state.write_batch({str(n): n for n in range(1001)})
        with pytest.raises(UsageError, match="not open"):
            await rt.state.read("k")

    play(scenario)


def test_figures_that_are_asked_for_again_read_only_what_has_come_since() -> None:
    async def scenario() -> None:
        async with box_with() as box:
            rt = await box.open()
            await rt.state.write("k", 1)
            for number in range(5):
                await rt.publish("news", number)
            before = await rt.state.statistics()
            assert rt.state._figures._after == rt._log.position
            assert await rt.state.statistics() == before
            await rt.state.write("l", 2)

            assert (await rt.state.statistics())["global_keys"] == before["global_keys"] + 1 == 2

    play(scenario)


WAYS_ROUND = {"view", "through", "drop", "recent_changes", "recent_changes_json", "statistics"}
"""What only the state of all has: it says, or changes, what a narrowed view may not."""


@pytest.mark.row("A3-40")
def test_a_narrowed_view_of_an_application_stays_narrow() -> None:
    async def scenario() -> None:
        async with box_with() as box:
            rt = await box.open()
            await rt.state.write_batch({"a": 1, "b": 2})
            narrow = rt.state.with_permissions(read=["a"], write=[])

            with pytest.raises(StatePermissionError, match="may not read 'b'"):
                await narrow.with_permissions(read=["a", "b"]).read("b")
            with pytest.raises(PermissionError, match="may not write 'a'"):
                await narrow.with_permissions(write=["a"]).write_batch({"a": 1})

            assert await narrow.read_all() == {"a": 1}
            assert [one.key for one in await narrow.changes()] == ["a"]
            assert not WAYS_ROUND & set(dir(narrow))

    play(scenario)


# Names of scopes


def test_scopes_of_any_id_have_streams_of_their_own() -> None:
    ids = ["orders", "a b", "a%20b", "ü", "x" * 500, "x" * 501, "a/b"]

    streams = [stream_of("stream", id) for id in ids]

    assert len(set(streams)) == len(ids)
    assert streams[:2] == ["state/stream/orders", "state/stream/a%20b"]


def test_an_isolated_eye_sees_the_run_alone() -> None:
    sight = Sight("r", "c", "s", "isolated")

    assert [place.name for place in sight.places] == ["execution/r"]
    assert sight.place("global").name == "execution/r"
    assert [place.name for place in Sight("r", "c", "s").places] == [
        "execution/r", "conversation/c", "stream/s", "global",
    ]  # fmt: skip
