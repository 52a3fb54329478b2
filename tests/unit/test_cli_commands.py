"""The commands, called in this process on real logs: what they print, and how they exit."""

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest

from perdure.store.codec import BLOB_THRESHOLD_BYTES
from perdure.store.sqlite import SqliteEventLog
from tests.support.cli import Here
from tests.support.logs import run as run_async


@pytest.fixture
def here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Here:
    """A folder with an application."""
    return Here(tmp_path, capsys)


def objects(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


# run and resume


def test_a_run_prints_its_result_alone_on_stdout_and_its_id_first_on_stderr(here: Here) -> None:
    ended = here.run("total", "--input", '{"items": 4}')

    assert (ended.code, ended.out) == (0, '{"total":14}\n')
    assert ended.err.splitlines()[0] == "run r1"
    assert "application prints numbers" in ended.err


def test_a_run_in_json_prints_its_id_first_and_its_result_last(here: Here) -> None:
    ended = here.run("total", "--json")

    started, result = objects(ended.out)
    assert started == {"run": "r1", "workflow": "total", "status": "started"}
    assert result == {"run": "r1", "workflow": "total", "status": "completed", "result": {"total": 5}}


def test_the_same_id_again_is_the_same_run(here: Here) -> None:
    first = here.run("total")

    again = here.run("total")

    assert (again.code, again.out) == (0, first.out)
    assert "application prints" not in again.err


def test_the_same_id_with_other_input_is_refused(here: Here) -> None:
    here.run("total")

    ended = here.run("total", "--input", '{"items": 9}')

    assert ended.code == 2
    assert "with other input: choose another id" in ended.err


def test_a_run_that_fails_says_why_in_one_line(here: Here) -> None:
    ended = here.run("fails")

    assert (ended.code, ended.out) == (4, "")
    assert ended.err.splitlines()[-1].startswith("error: run r1 failed: StepFailedError: step broken#1 failed")
    assert "Traceback" not in ended.err


def test_where_in_the_application_a_run_failed_is_told(here: Here) -> None:
    lines = here.file.read_text(encoding="utf-8").splitlines()
    raised, called = (
        lines.index(f"    {line}") + 1
        for line in ('raise ConnectionError(f"no route to {n}")', "return await ctx.call(broken, 7)")
    )

    ended = here.run("fails")
    shown = here("show", "r1", "--db", here.db).out

    assert ended.err.splitlines()[-1].endswith(f", at flows.py:{called} in fails")
    assert f", at flows.py:{raised} in broken" in ended.err
    assert f"ConnectionError: no route to 7, at flows.py:{raised} in broken" in shown
    assert shown.splitlines()[-1].endswith(f", at flows.py:{called} in fails")


def test_a_run_that_fails_says_so_in_json(here: Here) -> None:
    ended = here.run("fails", "--json")

    assert ended.code == 4
    assert objects(ended.out)[1]["status"] == "failed"


def test_a_retry_is_told_while_it_is_waited_for(here: Here) -> None:
    ended = here.run("fails")

    assert "broken#1 attempt 1 failed: ConnectionError: no route to 7; again in" in ended.err


def test_a_detached_run_has_not_run_and_is_brought_back_by_resume(here: Here) -> None:
    detached = here.run("total", "--detach")
    listed = objects(here("ps", "--db", here.db, "--json").out)

    resumed = here("resume", here.file, "--db", here.db, "--json")

    assert (detached.code, detached.out) == (0, "r1\n")
    assert f"perdure resume {here.file} --db {here.db}" in detached.err
    assert [(run["status"], run["steps_done"]) for run in listed] == [("queued", 0)]
    assert (resumed.code, objects(resumed.out)[0]["status"]) == (0, "completed")


def test_resume_leaves_sleepers_asleep_and_says_until_when(here: Here) -> None:
    here.run("nap", "--input", '{"seconds": 3600}', "--detach")

    ended = here("resume", here.file, "--db", here.db)

    assert ended.code == 5
    assert "1 run brought back (1 nap)" in ended.err
    assert "sleeping" in ended.out
    assert "until " in ended.out


def test_resume_says_which_code_is_missing(here: Here) -> None:
    here.run("total", "--detach")
    other = here.folder / "other_flows.py"
    other.write_text("from perdure import workflow\n@workflow\nasync def unrelated(ctx): ...\n", encoding="utf-8")

    ended = here("resume", other, "--db", here.db)

    assert ended.code == 5
    assert f"its code: {other} has no workflow total" in ended.out


def test_resume_with_nothing_open_does_nothing(here: Here) -> None:
    here.run("total")
    before = here("log", "--db", here.db).out

    ended = here("resume", here.file, "--db", here.db)

    assert (ended.code, ended.out) == (0, "")
    assert here("log", "--db", here.db).out == before


def test_a_cancelled_run_takes_itself_down_when_it_is_resumed(here: Here) -> None:
    here.run("nap", "--input", '{"seconds": 3600}', "--detach")

    here("resume", here.file, "--db", here.db)  # it sleeps now
    asleep = objects(here("ps", "--db", here.db, "--json").out)

    asked = here("cancel", "r1", "--db", here.db, "--reason", "not needed")
    between = objects(here("ps", "--db", here.db, "--json").out)
    here("resume", here.file, "--db", here.db)
    after = objects(here("ps", "--all", "--db", here.db, "--json").out)
    again = here("cancel", "r1", "--db", here.db)

    assert (asked.code, again.code) == (0, 4)
    assert [run["status"] for run in [*asleep, *between]] == ["sleeping", "cancelling"]
    assert [(run["status"], run["waits_for"]) for run in after] == [("cancelled", "not needed")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "{file}:nope", "--db", "{db}"), "has no workflow 'nope'; there are: buy, fails, nap, shipment, total"),
        (("run", "{file}", "--db", "{db}"), "several workflows, say which"),
        (("run", "none.py", "--db", "{db}"), "there is no file none.py"),
        (("run", "{file}:buy", "--db", "{db}"), "missing required field `amount`"),
        (("run", "{file}:buy", "--db", "{db}", "--input", '{"amount": "1"}'), "Expected `int`, got `str`"),
        (("run", "{file}:buy", "--db", "{db}", "--input", '{"amount": 1,}'), "at line 1, column"),
        (("resume", "{file}", "--db", "{db}"), "there is no log at"),
        (("settle", "r1", "pay#1", "--db", "{db}", "--not-done"), "there is no log at"),
        (("cancel", "r1", "--db", "{db}"), "there is no log at"),
        (("ps", "--db", "{db}"), "there is no log at"),
        (("tail", "--db", "{db}"), "there is no log at"),
        (("verify", "{db}"), "there is no log at"),
        (("verify",), "say which log"),
        (("ps",), "Missing option '--db'"),
        (("log", "--db", "{db}", "--since", "noon"), "'noon' is not a time"),
        (("nope",), "No such command 'nope'"),
    ],
)
def test_a_wrong_request_is_one_clear_line_and_creates_nothing(
    here: Here, arguments: tuple[str, ...], message: str
) -> None:
    ended = here(*(argument.replace("{file}", str(here.file)).replace("{db}", str(here.db)) for argument in arguments))

    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1
    assert message in ended.err
    assert not here.db.exists()


@pytest.mark.parametrize("command", ["ps", "log", "tail", "show r1", "cancel r1", "run"])
def test_a_file_that_is_no_log_is_refused_and_left_alone(here: Here, command: str) -> None:
    here.db.write_bytes(b"something else\n" * 500)
    arguments = command.split() if command != "run" else ["run", f"{here.file}:total"]

    ended = here(*arguments, "--db", here.db)

    assert ended.code == 2
    assert "is not a log of Perdure" in ended.err
    assert here.db.read_bytes() == b"something else\n" * 500


def test_the_log_may_be_named_in_the_environment(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    here.run("total")
    monkeypatch.setenv("PERDURE_DB", str(here.db))

    assert here("ps", "--all").code == 0
    assert here("verify").code == 0


def test_a_log_with_an_owner_is_not_started_on_and_the_owner_is_named(here: Here) -> None:
    here.run("nap", "--input", '{"seconds": 3600}', "--detach")

    async def while_owned() -> list[tuple[int, str]]:
        log = await SqliteEventLog.open(here.db)
        try:
            # In a thread of its own a command would find its own loop; the lock refuses a second one all the same.
            return await run_in_thread(here)
        finally:
            await log.close()

    ends = run_async(while_owned)

    assert [code for code, _ in ends] == [3, 3, 3]
    assert all("is owned by process" in err for _, err in ends)
    assert "ask it in its application" in ends[1][1]


async def run_in_thread(here: Here) -> list[tuple[int, str]]:
    import asyncio  # noqa: PLC0415 - of use here alone

    def calls() -> list[tuple[int, str]]:
        commands = (
            ("run", f"{here.file}:total", "--db", here.db),
            ("settle", "r1", "sleep#1", "--db", here.db, "--not-done"),
            ("cancel", "r1", "--db", here.db),
        )
        return [(ended.code, ended.err) for ended in (here(*command) for command in commands)]

    return await asyncio.to_thread(calls)


# ps and show


def test_ps_lists_open_runs_only_unless_asked_for_all(here: Here) -> None:
    here.run("total", id="done")
    here.run("nap", "--input", '{"seconds": 3600}', "--detach", id="open")

    listed = here("ps", "--db", here.db)
    everything = here("ps", "--db", here.db, "--all")

    assert listed.out.splitlines()[0].split() == ["RUN", "WORKFLOW", "STATUS", "STEPS", "AGE", "WAITS", "FOR"]
    assert [line.split()[0] for line in listed.out.splitlines()[1:]] == ["open"]
    assert [line.split()[0] for line in everything.out.splitlines()[1:]] == ["open", "done"]


def test_ps_lists_no_more_than_the_limit_the_newest_first_whatever_their_ids(here: Here) -> None:
    for name in "bca":
        here.run("total", "--detach", id=name)
    here.run("total", id="0")

    everything = objects(here("ps", "--db", here.db, "--json", "--all", "--limit", "3").out)
    assert [run["run"] for run in everything] == ["0", "a", "c"]

    listed = objects(here("ps", "--db", here.db, "--json", "--limit", "2").out)
    cut, whole = (here("ps", "--db", here.db, "--limit", limit) for limit in ("2", "4"))

    assert [run["run"] for run in listed] == ["a", "c"]
    assert "stopped at --limit 2: there may be more" in cut.err
    assert whole.err == ""


def test_show_draws_steps_with_their_branches_indented(here: Here) -> None:
    here.run("total")

    lines = here("show", "r1", "--db", here.db).out.splitlines()

    body = [line[14:] for line in lines[lines.index("") + 2 : -2]]
    assert [line.split("  ")[0] if not line.startswith(" ") else line.split("  ")[1] for line in body] == [
        "search#1",
        "map#1",
        "[0] square#1",
        "[1] square#1",
        "[2] square#1",
    ]
    assert lines[-1] == 'result    {"total":5}'


def test_show_draws_only_what_is_notable_of_many_branches(here: Here) -> None:
    here.run("total", "--input", '{"items": 20}')

    short = here("show", "r1", "--db", here.db).out
    whole = here("show", "r1", "--db", here.db, "--all").out

    assert short.count("square#1") == 8
    assert "… 12 more branches, nothing notable: --all" in short
    assert whole.count("square#1") == 20


def test_show_tells_of_attempts_and_the_end(here: Here) -> None:
    here.run("fails")

    text = here("show", "r1", "--db", here.db).out

    assert "↳ attempt 1 failed: ConnectionError: no route to 7; again in" in text
    assert text.splitlines()[-1].startswith("failed    StepFailedError: step broken#1 failed")


def test_show_in_json_is_one_object_with_the_timeline(here: Here) -> None:
    here.run("total")

    (run,) = objects(here("show", "r1", "--db", here.db, "--json").out)

    assert (run["status"], run["input"], run["result"]) == ("completed", {}, {"total": 5})
    timeline = cast("list[dict[str, object]]", run["timeline"])
    assert [step["step"] for step in timeline] == [
        "search#1", "map#1", "map#1.0/square#1", "map#1.1/square#1", "map#1.2/square#1",
    ]  # fmt: skip


@pytest.mark.parametrize("wanted", ["first-run", "first", "t-run", "run/first-run"])
def test_a_run_is_found_by_its_id_or_either_end_of_it(here: Here, wanted: str) -> None:
    here.run("total", id="first-run")
    here.run("total", id="second")

    assert here("show", wanted, "--db", here.db).out.startswith("run       first-run\n")


def test_an_id_that_fits_several_runs_is_refused_with_their_names(here: Here) -> None:
    here.run("total", id="run-a")
    here.run("total", id="run-b")

    ended = here("show", "run-", "--db", here.db)

    assert ended.code == 2
    assert "fits several: run-a, run-b" in ended.err


def test_a_run_that_is_not_there_is_refused(here: Here) -> None:
    here.run("total")

    ended = here("show", "other", "--db", here.db)

    assert (ended.code, ended.err) == (2, "error: there is no run 'other' in this log\n")


# log and tail


def types(here: Here, *arguments: str) -> list[object]:
    ended = here("log", "--db", here.db, "--json", *arguments)
    assert ended.code == 0, ended.err
    return [event["type"] for event in objects(ended.out)]


def test_the_log_is_printed_in_order_one_object_a_line(here: Here) -> None:
    here.run("total")

    events = objects(here("log", "--db", here.db, "--json").out)

    assert [event["position"] for event in events] == list(range(1, len(events) + 1))
    assert events[1]["type"] == "run-started"
    assert isinstance(events[1]["data"], dict)
    assert events[1]["data"]["workflow"] == "total"


def test_events_are_filtered_by_type_stream_and_tool(here: Here) -> None:
    here.run("total")

    assert types(here, "--type", "run-started", "--type", "run-completed") == ["run-started", "run-completed"]
    assert set(types(here, "--stream", "tool/*")) == {"call-succeeded"}
    assert types(here, "--stream", "tool/search") == ["call-succeeded"]
    assert types(here, "--tool", "search") == ["step-started", "call-succeeded"]
    assert types(here, "--stream", "nothing/*") == []


def test_events_of_a_run_are_its_own_and_those_of_its_tools_in_the_order_of_the_log(here: Here) -> None:
    here.run("total", "--input", '{"items": 0}', id="a")
    here.run("total", "--input", '{"items": 1}', id="b")

    found = types(here, "--run", "a")

    assert found == [
        "run-started", "step-started", "step-completed", "call-succeeded", "branches-opened", "run-completed",
    ]  # fmt: skip
    assert types(here, "--run", "a", "--last", "2") == found[-2:]
    assert types(here, "--run", "a", "--stream", "tool/*") == ["call-succeeded"]
    assert types(here, "--run", "a", "--stream", "run/a", "--last", "1") == ["run-completed"]


def test_events_are_filtered_by_position(here: Here) -> None:
    here.run("total")
    everything = types(here)

    assert types(here, "--after", "2", "--to", "4") == everything[2:4]
    assert types(here, "--last", "3") == everything[-3:]


def test_events_are_filtered_by_time(here: Here) -> None:
    here.run("total")
    everything = types(here)

    assert types(here, "--since", "1h") == everything
    assert types(here, "--until", "1h") == []
    assert types(here, "--since", "2000-01-01", "--until", "2000-01-02T10:00:00+02:00") == []


def test_a_line_of_the_log_leaves_out_digests(here: Here) -> None:
    here.run("total")

    lines = here("log", "--db", here.db, "--type", "run-started").out.splitlines()

    assert len(lines) == 1
    assert lines[0].endswith("run/r1        run-started      workflow=total input={}")


def test_a_query_prints_a_table_or_objects(here: Here) -> None:
    here.run("total")
    query = "SELECT type, count(*) AS n, x'00ff' AS raw FROM log WHERE kind = 'tool' GROUP BY type"

    table = here("log", "--db", here.db, "--sql", query)
    rows = here("log", "--db", here.db, "--sql", query, "--json")

    assert [line.split() for line in table.out.splitlines()] == [["type", "n", "raw"], ["call-succeeded", "4", "00ff"]]
    assert objects(rows.out) == [{"type": "call-succeeded", "n": 4, "raw": "00ff"}]


@pytest.mark.parametrize(
    "query", ["DELETE FROM events", "PRAGMA journal_mode=DELETE", "SELECT * FROM nowhere", "SELEC"]
)
def test_a_query_that_does_more_than_read_is_refused(here: Here, query: str) -> None:
    here.run("total")
    before = types(here)

    ended = here("log", "--db", here.db, "--sql", query)

    assert (ended.code, ended.out) == (2, "")
    assert types(here) == before


def test_a_query_stands_alone(here: Here) -> None:
    here.run("total")

    ended = here("log", "--db", here.db, "--sql", "SELECT 1", "--run", "r1")

    assert ended.code == 2
    assert "put what --run says into the query" in ended.err


def test_events_are_filtered_by_what_led_to_them(here: Here) -> None:
    here.run("total")
    here.run("total", id="r2")

    events = objects(here("log", "--db", here.db, "--json", "--correlation", "r1").out)

    assert [event["type"] for event in events if event["stream"] == "run/r1"] == types(here, "--stream", "run/r1")
    assert {event["stream"] for event in events} == {"run/r1", "tool/search", "tool/square"}


def test_a_run_and_a_correlation_are_not_asked_for_together(here: Here) -> None:
    here.run("total")

    ended = here("log", "--db", here.db, "--run", "r1", "--correlation", "r2")

    assert (ended.code, "give one of them" in ended.err) == (2, True)


def test_a_large_value_is_printed_as_it_is_by_its_hash(here: Here) -> None:
    text = "ä" * BLOB_THRESHOLD_BYTES
    echo = "\n\n@workflow\nasync def echo(ctx: Context, text: str) -> int:\n    return len(text)\n"
    here.file.write_text(here.file.read_text(encoding="utf-8") + echo, encoding="utf-8")
    here.run("echo", "--input", json.dumps({"text": text}))

    [started] = objects(here("log", "--db", here.db, "--json", "--type", "run-started").out)

    blobs = started["blobs"]
    assert isinstance(blobs, dict)
    printed = here("log", "--db", here.db, "--blob", blobs["input"])
    assert (printed.code, json.loads(printed.out)) == (0, {"text": text})
    assert hashlib.sha256(printed.out.encode()).hexdigest() == blobs["input"]


def test_a_value_that_is_not_in_the_log_is_a_usage_error(here: Here) -> None:
    here.run("total")

    ended = here("log", "--db", here.db, "--blob", "f" * 64)

    assert (ended.code, ended.out) == (2, "")
    assert f"no value of the hash {'f' * 64}" in ended.err


@pytest.mark.parametrize("more", [("--json",), ("--run", "r1"), ("--sql", "SELECT 1")])
def test_a_large_value_stands_alone(here: Here, more: tuple[str, ...]) -> None:
    here.run("total")

    ended = here("log", "--db", here.db, "--blob", "f" * 64, *more)

    assert (ended.code, "--blob stands alone" in ended.err) == (2, True)


def test_tail_begins_with_the_last_events_and_ends_after_a_count(here: Here) -> None:
    here.run("total")
    everything = types(here)

    def tailed(*arguments: str) -> list[object]:
        ended = here("tail", "--db", here.db, "--json", *arguments)
        return [event["type"] for event in objects(ended.out)]

    assert tailed("--last", "2", "--count", "2") == everything[-2:]
    assert tailed("--after", "0", "--count", "3") == everything[:3]
    assert tailed("--run", "r1", "--last", "1", "--count", "1") == ["run-completed"]


# verify and doctor


def test_a_sound_log_is_verified(here: Here) -> None:
    here.run("total")

    text = here("verify", here.db)
    (report,) = objects(here("verify", "--db", here.db, "--json").out)

    assert (text.code, text.out.splitlines()[0]) == (0, f"{here.db} is sound")
    assert (report["is_sound"], report["first_position"], report["findings"]) == (True, None, [])


def test_a_changed_event_is_found_at_its_position(here: Here) -> None:
    here.run("total")
    with closing(sqlite3.connect(here.db)) as connection, connection:
        connection.execute("UPDATE events SET data = replace(data, 'price', 'PRICE') || ' ' WHERE position IN (4, 6)")

    text = here("verify", here.db)
    report = objects(here("verify", here.db, "--json").out)[0]

    assert (text.code, text.out.splitlines()[0]) == (1, f"{here.db} is damaged, first at position 4")
    assert report["first_position"] == 4


def test_a_file_that_is_no_database_is_damage_and_no_exception(here: Here) -> None:
    here.db.write_bytes(b"\0\1\2\3" * 2000)

    verified = here("verify", here.db)
    examined = here("doctor", here.db)

    assert (verified.code, examined.code) == (1, 1)
    assert verified.out.startswith(f"{here.db} is damaged, but in no event\n")
    assert "problem" in examined.out


def test_the_doctor_tells_of_sqlite_the_owner_and_open_work(here: Here) -> None:
    here.run("nap", "--input", '{"seconds": 3600}', "--detach")

    ended = here("doctor", here.db)
    (facts,) = objects(here("doctor", here.db, "--json").out)

    assert ended.code == 0
    assert f"version {sqlite3.sqlite_version}" in ended.out
    assert ("can corrupt a file" in ended.out) == facts["has_wal_reset_bug"]
    assert "1 run open, of which 0 sleep; nobody is at work on it" in ended.out
    assert (facts["is_owned"], facts["open_streams"], facts["need_a_person"]) == (False, 1, [])


@pytest.mark.parametrize(("free", "judgement"), [(1 << 30, "ok"), (1 << 20, "warning")])
def test_the_doctor_warns_of_a_disk_that_is_nearly_full(
    here: Here, monkeypatch: pytest.MonkeyPatch, free: int, judgement: str
) -> None:
    here.run("nap", "--input", '{"seconds": 3600}', "--detach")
    monkeypatch.setattr("perdure.store.doctor._free", lambda _: free)

    ended = here("doctor", here.db)

    (told,) = [line for line in ended.out.splitlines() if line.startswith("disk")]
    assert judgement in told
    assert ended.code == 0


# help


def test_the_help_lists_every_command_and_every_exit_code(here: Here) -> None:
    ended = here("--help")

    for word in ("run", "resume", "ps", "show", "log", "tail", "settle", "cancel", "verify", "doctor", "130"):
        assert f"\n  {word}" in ended.out.replace("    ", "  ")


@pytest.mark.parametrize(
    "command", ["run", "resume", "ps", "show", "log", "tail", "settle", "cancel", "verify", "doctor"]
)
def test_every_command_speaks_json(here: Here, command: str) -> None:
    assert "--json" in here(command, "--help").out
