"""`ctx.state`: what runs share, by the isolation of the entry point that they came by; live, replayed and in forks."""

from datetime import timedelta
from typing import Any

import pytest

from perdure import (
    MISSING,
    Context,
    LogEvent,
    PerdureError,
    Query,
    RunFailedError,
    StateFullError,
    StatePermissionError,
    workflow,
)
from perdure.actors.workflows.entrance import Isolation
from perdure.runtime.entries.entry_points import EntryPoint
from tests.support.runs import box_with, facts, play
from tests.support.sharing import KEEP, box_of, does, other, result_of

# Isolation


@pytest.mark.row("A3-33")
def test_an_isolated_run_writes_nowhere_but_to_itself() -> None:
    async def scenario() -> None:
        async with box_of("isolated") as box:
            rt = await box.open()
            await rt.state.write("known to all", 1)

            first = await result_of(
                rt, "orders", ["write", "k", 1, "global"], ["read", "k"], ["read", "known to all"], id="a"
            )
            second = await result_of(rt, "orders", ["read", "k"], ["has", "k"])

            assert first == [None, 1, None]
            assert second == [None, False]
            assert not await rt.state.has("k")
            (change,) = [one for one in await rt.state.recent_changes() if one.key == "k"]
            assert (change.scope, change.place) == ("execution", "execution/a")

    play(scenario)


@pytest.mark.row("A3-34")
def test_a_shared_run_finds_its_own_value_then_that_of_its_entry_point_then_that_of_all() -> None:
    async def scenario() -> None:
        async with box_of() as box:
            rt = await box.open()

            found = await result_of(
                rt,
                "orders",
                ["write", "k", "g", "global"],
                ["write", "only", "all", "global"],
                ["read", "k"],
                ["write", "k", "s", "stream"],
                ["read", "k"],
                ["write", "k", "e", "execution"],
                ["read", "k"],
                ["read_all"],
                ["delete", "k"],
                ["read", "k"],
                ["delete", "k", "stream"],
                ["read_all"],
            )

            reads = [one for one in found if one not in (None, True)]
            assert reads == ["g", "s", "e", {"k": "e", "only": "all"}, "s", {"k": "g", "only": "all"}]

    play(scenario)


@pytest.mark.row("A3-35")
def test_what_an_entry_point_shares_is_not_seen_by_another_one() -> None:
    async def scenario() -> None:
        async with box_of() as box:
            rt = await box.open()
            await result_of(
                rt, "orders", ["write", "s", 1, "stream"], ["write", "g", 2, "global"], ["write", "e", 3, "execution"]
            )

            same = await result_of(rt, "orders", ["read", "s"], ["read", "g"], ["read", "e"])
            another = await result_of(rt, "returns", ["read", "s"], ["read", "g"], ["read_all"])

            assert same == [1, 2, None]
            assert another == [None, 2, {"g": 2}]

    play(scenario)


@pytest.mark.row("A3-36")
def test_two_synchronized_runs_that_update_a_value_in_turns_lose_nothing() -> None:
    async def scenario() -> None:
        async with box_of("synchronized", settings=KEEP) as box:
            rt = await box.open()
            turns = [["add", "n", "global", 1], ["sleep", 1]] * 50
            runs = [await rt.trigger("orders", {"calls": turns}) for _ in range(2)]
            await box.clock.advance(60)

            found = [await rt.run(run, does).result() for run in runs]

            assert await rt.state.read("n") == 100
            assert sorted(found[0] + found[1]) == list(range(1, 101))
            assert all(max(one) - min(one) > 90 for one in found), "they took turns"

    play(scenario)


@pytest.mark.row("A3-37")
def test_two_runs_of_a_shared_entry_point_see_what_the_other_wrote_and_two_of_an_isolated_one_do_not() -> None:
    async def found_by(isolation: Isolation) -> list[Any]:
        async with box_of(isolation) as box:
            rt = await box.open()
            await rt.trigger("orders", {"calls": [["write", "who", "first", "stream"], ["wait"]]}, id="first")
            await box.clock.settle()
            second = await result_of(rt, "orders", ["read", "who"], ["write", "seen by", "second", "stream"])
            await rt.run("first").signal("go", 1)
            await rt.run("first").result()
            third = await result_of(rt, "orders", ["read_all"])
            return [second[0], third[0]]

    async def scenario() -> None:
        assert await found_by("shared") == ["first", {"who": "first", "seen by": "second"}]
        assert await found_by("synchronized") == ["first", {"who": "first", "seen by": "second"}]
        assert await found_by("isolated") == [None, {}]

    play(scenario)


def test_a_run_that_came_by_no_entry_point_shares_with_those_of_its_workflow() -> None:
    async def scenario() -> None:
        async with box_of() as box:
            rt = await box.open()
            await (await rt.start(does, [["write", "k", 1, "stream"]])).result()

            same = await (await rt.start(does, [["read", "k"]])).result()
            another = await (await rt.start(other, [["read", "k"]])).result()

            assert (same, another) == ([1], [None])

    play(scenario)


@workflow
async def asks_its_child(ctx: Context) -> Any:
    await ctx.state.write("k", "of the entry point", "stream")
    await ctx.state.write("own", "of the parent")
    return await ctx.run(does, [["read", "k"], ["read", "own"]])


def test_a_child_sees_what_its_parents_entry_point_shares_and_not_what_is_the_parents_own() -> None:
    async def scenario() -> None:
        entry = EntryPoint("orders", asks_its_child)
        async with box_with(does, asks_its_child, entry_points=[entry]) as box:
            rt = await box.open()

            run = await rt.trigger("orders", {})

            assert await rt.run(run).result() == ["of the entry point", None]

    play(scenario)


def test_runs_of_one_conversation_share_its_values() -> None:
    async def scenario() -> None:
        async with box_of() as box:
            rt = await box.open()
            talk = rt.with_options(conversation="c-1")
            await (await talk.start(does, [["write", "k", 1, "conversation"], ["write", "k", 9, "global"]])).result()

            same = await (await talk.start(other, [["read", "k"]])).result()
            another = await (await rt.with_options(conversation="c-2").start(other, [["read", "k"]])).result()

            assert (same, another) == ([1], [9])
            assert await rt.state.view(conversation="c-1").read("k") == 1

    play(scenario)


def test_a_scope_that_a_run_does_not_have_is_a_usage_error() -> None:
    async def scenario() -> None:
        async with box_of() as box:
            rt = await box.open()

            for scope in ("conversation", "session"):
                run = await rt.start(does, [["write", "k", 1, scope]])
                with pytest.raises(RunFailedError, match="scope") as failed:
                    await run.result()
                assert failed.value.error_type == "UsageError"

            assert await rt.state.recent_changes() == []

    play(scenario)


# Values


@workflow
async def mutates(ctx: Context) -> list[Any]:
    mine = [1]
    await ctx.state.write("k", mine, "global")
    mine.append(2)
    read = await ctx.state.read("k")
    read.append(3)
    (await ctx.state.read_all())["k"].append(4)
    await ctx.state.update("u", lambda held: [*held, held.append(5)], default=mine, scope="global")
    return [await ctx.state.read("k"), mine]


@pytest.mark.row("A3-38")
def test_a_value_is_copied_on_its_way_in_and_on_its_way_out() -> None:
    async def scenario() -> None:
        async with box_with(mutates) as box:
            rt = await box.open()

            assert await (await rt.start(mutates)).result() == [[1], [1, 2]]
            read = await rt.state.read("k")
            read.append(6)
            assert await rt.state.read("k") == [1]

    play(scenario)


def test_null_is_a_value_and_nothing_is_not() -> None:
    async def scenario() -> None:
        async with box_of() as box:
            rt = await box.open()
            calls: list[list[Any]] = [
                ["write", "k", None],
                ["read", "k", "default"],
                ["has", "k"],
                ["read", "no", "default"],
                ["has", "no"],
            ]

            assert await result_of(rt, "orders", *calls) == [None, None, True, "default", False]

    play(scenario)


def test_a_value_under_a_redacted_name_does_not_reach_the_log() -> None:
    async def scenario() -> None:
        async with box_of() as box:
            rt = await box.open()

            found = await result_of(rt, "orders", ["write", "api_key", "s3cr3t"], ["read", "api_key"])

            assert found == [None, "[redacted]"]

    play(scenario)


# Batches and bounds


@workflow
async def writes_two(ctx: Context, second: str) -> Any:
    await ctx.state.write("a", "before", "global")
    values: dict[str, Any] = {"a": 1, "b": 2, "c": 3}
    allowed = ctx.state
    match second:
        case "not allowed":
            allowed = ctx.state.with_permissions(write=["a", "c"])
        case "not JSON":
            values["b"] = object()
        case "too large":
            values["b"] = "x" * (1024 * 1024 + 1)
        case "no key":
            values["\n"] = 2
        case _:
            values.update({f"k{n}": "x" * 1_000_000 for n in range(5)})
    try:
        await allowed.write_batch(values, "global")
    except (PerdureError, TypeError) as error:
        return type(error).__name__
    return "written"


@pytest.mark.row("A3-39")
@pytest.mark.parametrize(
    ("second", "error"),
    [
        ("not allowed", "StatePermissionError"),
        ("not JSON", "UnencodableError"),
        ("too large", "PayloadTooLargeError"),
        ("no key", "UsageError"),
        ("full", "StateFullError"),
    ],
)
def test_a_batch_that_fails_on_a_later_key_changes_none(second: str, error: str) -> None:
    async def scenario() -> None:
        async with box_with(writes_two) as box:
            rt = await box.open()

            assert await (await rt.start(writes_two, second)).result() == error

            assert await rt.state.read_all() == {"a": "before"}

    play(scenario)


@workflow
async def fills(ctx: Context) -> list[str]:
    said: list[str] = []
    for number in range(5):
        try:
            await ctx.state.write(f"k{number}", "x" * 250_000)
        except StateFullError as error:
            said.append(f"{error.place} {error.unit} {error.bound}")
    await ctx.sleep(1)
    return said


def test_a_full_scope_refuses_with_the_same_error_live_and_replayed() -> None:
    async def scenario() -> None:
        async with box_with(fills, settings=KEEP) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(fills)
            await box.clock.settle()
            rt = await box.crash_and_reopen()
            await box.clock.advance(2)

            assert await rt.run("r").result() == ["execution/r bytes 1048576"]
            assert (await facts(rt, "r")).count("state-refused") == 1

    play(scenario)


# Permissions


@workflow
async def narrows(ctx: Context) -> dict[str, Any]:
    await ctx.state.write_batch({"a": 1, "b": 2, "c": 3})
    some = ctx.state.with_permissions(read=["a", "b"], write=["b"])
    wider = some.with_permissions(read=["a", "c"], write=["b", "c"])
    none = ctx.state.with_permissions(read=[], write=[])

    async def refused(work: Any) -> str:
        try:
            await work
        except StatePermissionError as error:
            return f"{error.verb} {error.key}"
        return "allowed"

    return {
        "some": await some.read_all(),
        "wider": await wider.read_all(),
        "none": await none.read_all(),
        "refused": [
            await refused(some.read("c")),
            await refused(wider.read("b")),
            await refused(wider.read("c")),
            await refused(wider.write("c", 1)),
            await refused(wider.write("b", 1)),
            await refused(none.read("a")),
            await refused(none.write("a", 1)),
            await refused(none.has("a")),
            await refused(some.update("b", lambda n: n)),
            await refused(some.update("a", lambda n: n)),
            await refused(ctx.state.with_permissions(write=["b"]).compare_and_set("b", 1, 5)),
            await refused(ctx.state.with_permissions(read=[]).update("b", lambda n: n)),
            await refused(ctx.state.with_permissions(read=["a"]).delete("c")),
        ],
        "changes": [one.key for one in await some.changes(3)],
    }


@pytest.mark.row("A3-40")
def test_permissions_only_narrow_and_an_empty_list_allows_nothing() -> None:
    async def scenario() -> None:
        async with box_with(narrows) as box:
            rt = await box.open()

            found = await (await rt.start(narrows)).result()

            assert found == {
                "some": {"a": 1, "b": 2},
                "wider": {"a": 1},
                "none": {},
                "refused": [
                    "read c", "read b", "read c", "write c", "allowed", "read a", "write a", "read a", "allowed",
                    "write a", "allowed", "read b", "allowed",
                ],
                "changes": ["b", "b", "b"],
            }  # fmt: skip

    play(scenario)


# Changes


@pytest.mark.row("A3-41")
def test_every_write_is_an_event_that_says_what_was_there_and_who_changed_it() -> None:
    async def scenario() -> None:
        async with box_of() as box:
            rt = await box.open()
            await rt.state.view(stream="orders", who="ada").write("k", 0, "stream")
            await result_of(
                rt,
                "orders",
                ["write", "k", 1, "stream"],
                ["write", "k", 2],
                ["write_batch", {"k": 3, "l": 4}, "global"],
                ["add", "k", "global", 1],
                ["compare_and_set", "l", 4, 5, "global"],
                ["delete", "l", "global"],
                ["delete", "l", "global"],
                id="r",
            )

            changes = list(reversed(await rt.state.recent_changes(100)))

            assert [(one.key, one.old, one.new, one.place, one.run, one.entry, one.who) for one in changes] == [
                ("k", MISSING, 0, "stream/orders", None, None, "ada"),
                ("k", 0, 1, "stream/orders", "r", "orders", None),
                ("k", MISSING, 2, "execution/r", "r", "orders", None),
                ("k", MISSING, 3, "global", "r", "orders", None),
                ("l", MISSING, 4, "global", "r", "orders", None),
                ("k", 3, 4, "global", "r", "orders", None),
                ("l", 4, 5, "global", "r", "orders", None),
                ("l", 5, MISSING, "global", "r", "orders", None),
            ]
            assert all(one.at.utcoffset() == timedelta(0) for one in changes)
            assert [one.position for one in changes] == sorted(one.position for one in changes)
            assert len(await rt.read(Query(types=("state-changed",)))) == 8

    play(scenario)


@pytest.mark.row("A3-41")
def test_every_write_is_told_to_those_who_subscribe_to_changes_of_the_state() -> None:
    told: list[dict[str, Any]] = []

    async def keep(event: LogEvent) -> None:
        told.append(event.to_dict())

    async def scenario() -> None:
        async with box_of() as box:
            rt = await box.open()
            rt.subscribe_to_events(["state_changed"], keep)
            await rt.state.write("k", 0)
            await result_of(
                rt, "orders", ["write", "k", 1], ["write_batch", {"k": 2, "l": 3}, "global"], ["delete", "l", "global"],
                id="r",
            )  # fmt: skip
            await box.clock.settle()

        changes = [(each["stream_id"], each["execution_id"], each["node_id"], *each["data"].values()) for each in told]
        assert changes == [
            (None, None, None, "k", None, 0, "global"),
            ("orders", "r", "state.write#1", "k", None, 1, "execution"),
            ("orders", "r", "state.write_batch#1", "k", 0, 2, "global"),
            ("orders", "r", "state.write_batch#1", "l", None, 3, "global"),
            ("orders", "r", "state.delete#1", "l", 3, None, "global"),
        ]
        assert {each["type"] for each in told} == {"state_changed"}
        assert set(told[0]["data"]) == {"key", "old_value", "new_value", "scope"}

    play(scenario)


@workflow
async def looks_back(ctx: Context) -> list[Any]:
    await ctx.state.write("a", 1, "global")
    before = [(one.key, one.new) for one in await ctx.state.changes()]
    await ctx.sleep(1)
    return [before, [one.key for one in await ctx.state.changes(2)]]


def test_the_changes_that_a_run_looked_at_are_the_same_when_it_is_replayed() -> None:
    async def scenario() -> None:
        async with box_with(looks_back, settings=KEEP) as box:
            rt = await box.open()
            await rt.with_options(id="r").start(looks_back)
            await box.clock.settle()
            await rt.state.write_batch({"x": 1, "y": 2})
            rt = await box.crash_and_reopen()
            await box.clock.advance(2)

            assert await rt.run("r").result() == [[["a", 1]], ["y", "x"]]

    play(scenario)
