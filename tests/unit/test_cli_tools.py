"""tools and breakers: what is told of circuits, what an operator may do, what another policy would have made of it."""

import asyncio
import getpass
import json
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from perdure import CircuitOpenError, PerdureError, RateLimit, Runtime, tool
from perdure.runtime.cli.fleet import Fleet
from perdure.store.reader import LogReader
from perdure.store.sqlite import SqliteEventLog
from tests.support.cli import Here
from tests.support.logs import run as run_async

OFFERS = '''
import os
from perdure import tool

@tool(effect="read", toolset="shop", requires_env=["SHOP_KEY"], failure_threshold=2, reset_timeout=3600)
async def price(item: str) -> int:
    """Ask the shop what an item costs.

    In cents.
    """
    return len(item)

@tool(check=lambda: print("asked") or False)
def never(x: int) -> int:
    return x
'''


@tool(effect="read", failure_threshold=2, reset_timeout=3600)
async def price(item: str) -> int:
    if item == "bad":
        raise ConnectionError("the shop does not answer")
    return len(item)


@tool(scope="conversation", failure_threshold=1, reset_timeout=3600)
async def chat(text: str) -> str:
    if text == "bad":
        raise ValueError("no such word")
    return text


@tool(rate=RateLimit(calls=1, per=timedelta(hours=1), max_wait=timedelta(0)))
async def limited(n: int) -> int:
    return n


@pytest.fixture
def here(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    """A folder."""
    monkeypatch.delenv("SHOP_KEY", raising=False)
    return Here(tmp_path, capsys)


def call(here: Here, *calls: tuple[Any, Any] | tuple[Any, Any, str]) -> None:
    """Make calls in a runtime on the log; what comes of them is in the log."""

    async def make() -> None:
        async with Runtime(here.db, tools=[price, chat, limited]) as rt:
            for called, argument, *conversation in calls:
                options = rt.with_options(conversation=conversation[0] if conversation else None)
                try:
                    await options.call(called, argument)
                except PerdureError:
                    continue

    asyncio.run(make())


def broken_price(here: Here) -> None:
    """One success, two failures that open the circuit, one refused call."""
    call(here, (price, "tea"), (price, "bad"), (price, "bad"), (price, "tea"))


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def sql(here: Here, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{here.db}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


# Tools


def test_tools_tells_the_figures_of_every_tool_without_its_code(here: Here) -> None:
    broken_price(here)
    call(here, (limited, 1), (limited, 2))

    limits, prices = objects(here("tools", "--db", here.db, "--json").out)

    assert (limits["tool"], limits["state"], limits["calls"], limits["rejected"]) == ("limited", "closed", 1, 1)
    assert {name: prices[name] for name in ("tool", "state", "failures", "successes", "calls", "rejected")} == {
        "tool": "price", "state": "open", "failures": 2, "successes": 1, "calls": 3, "rejected": 1,
    }  # fmt: skip
    assert prices["last_error"] == "ConnectionError: the shop does not answer"
    assert prices["avg_time"] > 0


def test_tools_tells_why_a_circuit_is_open_and_when_it_was_told_to_let_a_probe_through(here: Here) -> None:
    broken_price(here)

    lines = here("tools", "--db", here.db).out.splitlines()

    assert lines[1].split()[:6] == ["price", "open", "3", "1", "2", "1"]
    assert lines[2].startswith("  ↳ since ")
    assert ", position 5: 2 of 2 calls failed, last ConnectionError; a probe in " in lines[2]
    assert lines[3] == "  ↳ last error ConnectionError: the shop does not answer"


def test_without_code_and_without_a_refused_call_it_is_not_known_when_a_probe_comes(here: Here) -> None:
    call(here, (price, "bad"), (price, "bad"))

    (alone,) = objects(here("tools", "--db", here.db, "--json").out)
    here.file.write_text(OFFERS, encoding="utf-8")
    with_code = objects(here("tools", here.file, "--db", here.db, "--json").out)[1]

    assert (alone["state"], alone["retry_after_seconds"]) == ("open", None)
    assert 3000 < with_code["retry_after_seconds"] <= 3600


def test_a_tool_with_circuits_by_conversation_is_one_row_with_their_sum(here: Here) -> None:
    call(here, (chat, "hi", "a"), (chat, "bad", "a"), (chat, "hi", "b"), (chat, "hi", "c"))

    (one,) = objects(here("tools", "--db", here.db, "--json").out)
    row = here("tools", "--db", here.db).out.splitlines()[1]

    assert (one["calls"], one["successes"], one["circuits"], one["circuits_not_closed"]) == (4, 3, 3, 1)
    assert row.startswith("chat  open 1/3")


def test_the_figures_come_from_a_snapshot_and_what_followed_it(here: Here) -> None:
    call(here, *[(price, "tea")] * 450)

    (one,) = objects(here("tools", "--db", here.db, "--json").out)

    assert sql(here, "SELECT count(*) FROM snapshots") == [(1,)]
    assert (one["calls"], one["successes"]) == (450, 450)


def test_tools_of_a_file_are_listed_with_what_they_lack(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    here.file.write_text(OFFERS, encoding="utf-8")

    without = here("tools", here.file)
    monkeypatch.setenv("SHOP_KEY", "x")
    with_key = here("tools", here.file)

    never, prices = (line.split(maxsplit=3) for line in without.out.splitlines()[1:])
    assert never == ["never", "idempotent", "no:", "its check says no"]
    assert prices == ["price", "read", "shop", "no: needs SHOP_KEY     Ask the shop what an item costs."]
    assert with_key.out.splitlines()[2].split(maxsplit=4)[3] == "yes"
    assert "asked" in without.err


def test_tools_of_a_file_in_json_have_the_definition_that_a_model_is_given(here: Here) -> None:
    here.file.write_text(OFFERS, encoding="utf-8")

    never, prices = objects(here("tools", here.file, "--json").out)

    assert (never["is_available"], never["lacks"], never["effect"]) == (False, "its check says no", "idempotent")
    function = prices["definition"]["function"]
    assert (function["name"], function["parameters"]["required"]) == ("price", ["item"])
    assert "calls" not in prices


def test_an_event_that_this_version_does_not_know_is_passed_over(here: Here) -> None:
    broken_price(here)
    with closing(sqlite3.connect(here.db)) as connection, connection:
        connection.execute("UPDATE events SET type = 'call-dreamt' WHERE type = 'call-refused'")

    (one,) = objects(here("tools", "--db", here.db, "--json").out)

    assert (one["calls"], one["rejected"]) == (3, 0)


# Circuits


def test_breakers_lists_since_when_and_why_circuits_are_open(here: Here) -> None:
    broken_price(here)

    (one,) = objects(here("breakers", "--db", here.db, "--json").out)
    row = here("breakers", "--db", here.db).out.splitlines()[1]

    assert (one["circuit"], one["state"], one["position"], one["failures"]) == ("price", "open", 5, 2)
    assert one["reason"] == "2 of 2 calls failed, last ConnectionError"
    assert 3000 < one["retry_after_seconds"] <= 3600
    assert row.endswith("2 of 2 calls failed, last ConnectionError")


def test_closed_circuits_of_conversations_are_only_counted_unless_all_are_asked_for(here: Here) -> None:
    call(here, (chat, "bad", "a"), (chat, "hi", "b"), (chat, "hi", "c"), (limited, 1))

    listed = here("breakers", "--db", here.db)
    everything = objects(here("breakers", "--db", here.db, "--all", "--json").out)

    assert [line.split()[:2] for line in listed.out.splitlines()[1:]] == [["chat@a", "open"], ["limited", "closed"]]
    assert listed.err == "2 circuits of conversations closed: --all\n"
    assert [one["circuit"] for one in everything] == ["chat@a", "chat@b", "chat@c", "limited"]


def test_a_circuit_whose_time_has_come_is_half_open_though_nobody_has_called(here: Here) -> None:
    call(here, (price, "bad"), (price, "bad"))
    ((opened_at,),) = sql(here, "SELECT data->>'$.at' FROM log WHERE type = 'circuit-opened'")

    def seen(micros_later: int) -> tuple[str, bool]:
        with LogReader.open(here.db) as reader:
            (one,) = Fleet(reader, {"price": price.breaker}, opened_at + micros_later).standings()
        return one.state, one.is_due

    assert seen(3600 * 1_000_000) == ("open", False)
    assert seen(3600 * 1_000_000 + 1) == ("half_open", True)


@pytest.mark.parametrize(("word", "state"), [("open", "forced open"), ("close", "closed"), ("disable", "disabled")])
def test_an_operator_takes_a_circuit_over_with_a_name_and_a_reason(here: Here, word: str, state: str) -> None:
    broken_price(here)

    said = here("breakers", word, "price", "--db", here.db, "--because", "the vendor said so", "--who", "ada")

    assert said.code == 0
    assert f"the circuit of price is {state} from position " in said.out
    assert said.out.endswith("on, by ada: the vendor said so\n")
    last = objects(here("breakers", "history", "price", "--db", here.db, "--json").out)[-1]
    assert (last["state"], last["principal"], last["reason"]) == (state, "ada", "the vendor said so")
    row = here("breakers", "--db", here.db).out.splitlines()[1]
    assert row.removeprefix("price    ").startswith(state)
    assert row.endswith("ada: the vendor said so")


def test_a_circuit_that_is_held_open_refuses_and_one_given_back_does_not(here: Here) -> None:
    call(here, (price, "tea"))

    async def ask() -> object:
        async with Runtime(here.db, tools=[price]) as rt:
            try:
                return await rt.call(price, "tea")
            except CircuitOpenError as error:
                return error.reason

    here("breakers", "open", "price", "--db", here.db, "--because", "maintenance")
    held = asyncio.run(ask())
    here("breakers", "auto", "price", "--db", here.db, "--because", "it is over")
    given_back = asyncio.run(ask())

    assert "an operator opened it: maintenance" in str(held)
    assert given_back == 3


def test_the_operator_is_the_login_name_unless_another_is_said(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    call(here, (price, "tea"))
    monkeypatch.setattr(getpass, "getuser", lambda: "grace")

    here("breakers", "open", "price", "--db", here.db, "--because", "maintenance")

    assert sql(here, "SELECT tool, state, forced, principal, reason FROM breaker_changes") == [
        ("price", "open", "open", "grace", "maintenance")
    ]


def test_a_word_that_changes_nothing_records_nothing(here: Here) -> None:
    call(here, (price, "tea"))

    said = objects(here("breakers", "auto", "price", "--db", here.db, "--because", "x", "--json").out)

    assert said == [{"circuit": "price", "to": "auto", "changed": False, "position": None}]
    assert sql(here, "SELECT count(*) FROM breaker_changes") == [(0,)]


def test_one_conversations_circuit_is_opened_and_no_other(here: Here) -> None:
    call(here, (chat, "hi", "a"), (chat, "hi", "b"))

    here("breakers", "open", "chat@a", "--db", here.db, "--because", "it loops")

    listed = objects(here("breakers", "--all", "--db", here.db, "--json").out)
    states = {one["circuit"]: one["forced"] for one in listed}
    assert states == {"chat@a": "open", "chat@b": ""}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("open", "prize", "--because", "x"), "knows no tool 'prize'; it knows: price"),
        (("open", "price", "--because", " "), "--because is empty"),
        (("open", "price"), "Missing option '--because'"),
        (("history", "prize"), "knows no tool 'prize'"),
        (("simulate", "--tool", "prize"), "holds no calls of prize"),
        (("simulate", "--tool", "price", "--threshold", "0"), "at least 1"),
        (("simulate", "--tool", "price", "--slow", "1"), "slow_call and slow_call_rate go together"),
    ],
)
def test_a_wrong_word_is_one_clear_line_and_records_nothing(
    here: Here, arguments: tuple[str, ...], message: str
) -> None:
    call(here, (price, "tea"))
    before = sql(here, "SELECT count(*) FROM events")

    ended = here("breakers", *arguments, "--db", here.db)

    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert message in ended.err
    assert sql(here, "SELECT count(*) FROM events") == before


def test_a_tool_that_was_never_called_is_forced_only_on_purpose(here: Here) -> None:
    call(here, (price, "tea"))

    said = here("breakers", "open", "new", "--db", here.db, "--because", "not yet", "--never-called")

    assert said.code == 0
    assert sql(here, "SELECT tool, forced FROM breaker_changes") == [("new", "open")]


def test_a_circuit_of_a_log_with_an_owner_is_not_moved_and_the_owner_is_named(here: Here) -> None:
    call(here, (price, "tea"))

    async def while_owned() -> tuple[int, str]:
        log = await SqliteEventLog.open(here.db)
        try:
            words = ("breakers", "open", "price", "--db", here.db, "--because", "x")
            ended = await asyncio.to_thread(here, *words)
            return ended.code, ended.err
        finally:
            await log.close()

    code, said = run_async(while_owned)

    assert code == 3
    assert "is owned by process" in said
    assert "it alone may move its circuits: ask it in its application" in said


def test_the_history_of_a_circuit_is_all_that_it_did_in_order(here: Here) -> None:
    broken_price(here)
    here("breakers", "close", "price", "--db", here.db, "--because", "try it", "--who", "ada")

    told = objects(here("breakers", "history", "price", "--db", here.db, "--json").out)
    lines = here("breakers", "history", "price", "--db", here.db).out.splitlines()

    assert [(one["generation"], one["type"], one["state"], one["principal"]) for one in told] == [
        (1, "circuit-opened", "open", None),
        (2, "circuit-forced", "closed", "ada"),
    ]
    assert lines[0].split() == ["POSITION", "TIME", "GEN", "STATE", "WHO", "WHY"]
    assert lines[2].endswith("closed  ada  closed: try it")


def test_the_history_of_a_tool_is_that_of_all_its_conversations(here: Here) -> None:
    call(here, (chat, "bad", "a"), (chat, "hi", "b"), (chat, "bad", "c"))

    told = [one["circuit"] for one in objects(here("breakers", "history", "chat", "--db", here.db, "--json").out)]
    one = objects(here("breakers", "history", "chat@c", "--db", here.db, "--json").out)
    none = here("breakers", "history", "chat@b", "--db", here.db)

    assert told == ["chat@a", "chat@c"]
    assert [turn["circuit"] for turn in one] == ["chat@c"]
    assert (none.code, none.out, none.err) == (0, "", "the circuit of chat@b never moved: it is closed\n")


def test_another_policy_is_replayed_beside_what_happened(here: Here) -> None:
    call(here, (price, "bad"), (price, "tea"), (price, "bad"), (price, "tea"), (price, "tea"), (price, "bad"))

    policy = ("--threshold", "1", "--reset", "3600")
    (told,) = objects(here("breakers", "simulate", "--tool", "price", *policy, "--db", here.db, "--json").out)

    assert told["calls"] == 6
    assert told["recorded"] == {"opened_at": [], "refused": 0, "failed": 3}
    simulated = told["simulated"]
    assert (len(simulated["opened_at"]), simulated["refused"], simulated["saved"], simulated["lost"]) == (1, 5, 2, 3)


def test_a_simulation_tells_people_what_would_have_been_saved_and_lost(here: Here) -> None:
    broken_price(here)

    text = here("breakers", "simulate", "--tool", "price", "--threshold", "1", "--reset", "60", "--db", here.db).out

    rows = {line[:33].strip(): line[33:].split() for line in text.splitlines()}
    assert "policy: opens after 1 failure in a row; stays open for 60 s" in text
    assert (rows["times opened"], rows["calls made"], rows["calls refused"]) == (["1", "1"], ["3", "2"], ["1", "1"])
    assert rows["saved: they failed when made"][0] == "1,"
    assert rows["lost: they succeeded when made"] == ["0"]
    assert "the 1 call refused at the time cannot be replayed" in text
    assert text.splitlines()[-2] == "would have opened"


def test_a_simulation_judges_rates_over_a_window(here: Here) -> None:
    call(here, *[(price, item) for item in ("tea", "bad", "tea", "bad", "tea", "tea")])

    def opened(*arguments: str) -> int:
        policy = ("--threshold", "9", *arguments)
        told = here("breakers", "simulate", "--tool", "price", *policy, "--db", here.db, "--json")
        return len(objects(told.out)[0]["simulated"]["opened_at"])

    assert opened("--failure-rate", "0.5", "--window", "4") == 1
    assert opened("--failure-rate", "0.6", "--window", "4") == 0
    assert opened("--failure-rate", "0.5", "--window", "4", "--exclude", "ConnectionError") == 0


# Other commands


def test_lost_irreversible_calls_outside_of_runs_are_told_with_what_needs_attention(here: Here) -> None:
    async def lose() -> None:
        begun = asyncio.Event()

        @tool(effect="irreversible")
        async def pay(amount: int) -> str:
            begun.set()
            await asyncio.Event().wait()
            return f"receipt {amount}"

        async with Runtime(here.db, tools=[pay]) as rt:
            calling = asyncio.create_task(rt.call(pay, 5))
            await begun.wait()
            await rt.abandon()
            await asyncio.gather(calling, return_exceptions=True)

    asyncio.run(lose())
    call(here)  # the next life finds the call lost

    asked = here("ps", "--attention", "--db", here.db)
    plain = here("ps", "--db", here.db)

    assert "1 irreversible call outside of runs got lost with the process, last of pay (" in asked.err
    assert plain.err == ""


def test_a_line_of_the_log_names_who_and_shows_times_as_times(here: Here) -> None:
    call(here, (limited, 1))
    here("breakers", "open", "limited", "--db", here.db, "--because", "why not", "--who", "ada")

    forced = here("log", "--db", here.db, "--type", "circuit-forced").out
    token = here("log", "--db", here.db, "--type", "token-taken").out

    assert forced.rstrip().endswith('circuit-forced   to=open because="why not" by=ada')
    assert token.rpartition(" full_at=")[2].count(":") == 2


def test_the_views_tell_tools_and_conversations_apart_and_who_refused(here: Here) -> None:
    call(here, (chat, "bad", "a"), (chat, "hi", "a"), (limited, 1), (limited, 2))

    calls = sql(here, "SELECT tool, conversation, outcome, refused_by FROM tool_calls ORDER BY position")

    assert calls == [
        ("chat", "a", "failed", None),
        ("chat", "a", "refused", "circuit"),
        ("limited", None, "succeeded", None),
        ("limited", None, "refused", "rate"),
    ]
    assert sql(here, "SELECT tool, conversation, state FROM breaker_changes") == [("chat", "a", "open")]
