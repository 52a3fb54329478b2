"""`perdure serve` as a process: it opens, answers, drains on SIGTERM, is killed and goes on, and says what is wrong."""

import json
import os
import resource
import signal
import sqlite3
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.cli import Process, command, wait_for
from tests.wire.test_servers import Server

APPLICATION = """
import asyncio
import os
from datetime import timedelta
from pathlib import Path

from perdure import Context, EntryPoint, Goal, OnEvent, Schedule, Secret, Webhook, WebhookRoute, tool, workflow

HERE = Path(__file__).parent


@tool(effect="irreversible")
async def pay(amount: int) -> str:
    (HERE / "paying").touch()
    while not (HERE / "go").exists():
        await asyncio.sleep(0.01)
    with (HERE / "paid").open("a") as file:
        file.write(f"{amount}\\n")
    return f"receipt {amount}"


@tool(effect="read")
async def look(n: int) -> int:
    (HERE / "looking").touch()
    while not (HERE / "go").exists():
        await asyncio.sleep(0.01)
    return n


@tool
async def environment() -> list[str]:
    print("application prints")
    return sorted(name for name in os.environ if "TOKEN" in name)


@workflow
async def buy(ctx: Context, amount: int = 3) -> str:
    return await ctx.call(pay, amount)


@workflow
async def see(ctx: Context, n: int = 3) -> int:
    return await ctx.call(look, n)


@workflow
async def names(ctx: Context) -> list[str]:
    return await ctx.call(environment)


@workflow
async def asks(ctx: Context) -> str:
    return await ctx.ask("which?", of=str)


@workflow
async def notes(ctx: Context, event: dict) -> str:
    return event["type"] if "type" in event else event["reason"]


ways = [
    EntryPoint("by-hand", names),
    EntryPoint("hook", notes, Webhook("/hook", secret=Secret("HOOK"), scheme="bearer")),
    EntryPoint("paid", notes, OnEvent("order.paid")),
    EntryPoint("hourly", notes, Schedule(every=timedelta(hours=1), run_immediately=True)),
]
goal = Goal(id="rich", name="Rich")
"""

READ, OPERATE = "read-0123456789abcdef", "operate-0123456789abcdef"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APPLICATION, encoding="utf-8")
    return tmp_path


def serving(folder: Path, *more: str, **env: str) -> Server:
    return Server(folder, "serve", "app.py", "--db", "a.db", *more, env={"HOOK": "hook-secret-0123456789", **env})


def client(server: Server, token: str | None = None) -> httpx2.Client:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return httpx2.Client(base_url=server.url, headers=headers, trust_env=False, timeout=60)


def ended(asked: httpx2.Client, run: str) -> Any:
    return asked.get(f"/v1/runs/{run}/result?wait=60").json()


def test_everything_of_a_file_is_served_on_one_port(folder: Path) -> None:
    with serving(folder) as server, client(server) as asked:
        ready = asked.get("/ready").json()
        run = asked.post("/v1/entry-points/by-hand/trigger", json={}).json()["run"]
        hook = asked.post("/hook", json={"n": 1}, headers={"Authorization": "Bearer hook-secret-0123456789"})
        unsigned = asked.post("/hook", json={"n": 1})
        asked.post("/v1/events", json={"type": "order.paid", "data": {}})
        goals = [goal["id"] for goal in asked.get("/v1/goals").json()["goals"]]
        results = {"by-hand": ended(asked, run)["result"]}
        while len(results) < 4:
            for one in asked.get("/v1/runs?status=completed").json()["runs"]:
                results[one["entry"]] = ended(asked, one["run"])["result"]
        stopped = server.stop()

    assert (ready, hook.status_code, unsigned.status_code, goals) == ({"status": "ready"}, 202, 401, ["rich"])
    assert results == {"by-hand": [], "hook": "webhook_received", "paid": "order.paid", "hourly": "scheduled"}
    assert (stopped.code, stopped.out) == (0, "")


def test_lines_of_its_log_are_json_and_have_no_secret(folder: Path) -> None:
    (folder / "tokens").write_text(f"# who may\nread:{READ}\noperate:otto:{OPERATE}\n", encoding="utf-8")

    with serving(folder, "--token-file", "tokens") as server, client(server, OPERATE) as asked:
        run = asked.post("/v1/runs", json={"workflow": "names", "id": "named-by-me"}).json()["run"]
        result = ended(asked, run)["result"]
        asked.get("/v1/runs?cursor=99&limit=7")
        asked.get("/v1/runs", headers={"Authorization": "Bearer wrong-0123456789abcdef"})
        asked.post("/hook", content=b"x", headers={"Authorization": "Bearer hook-secret-0123456789"})
        stopped = server.stop()

    lines = [json.loads(line) for line in stopped.err.splitlines() if line != "application prints"]
    events = [line["event"] for line in lines]
    log = command(folder, "log", "--db", "a.db", "--json").out
    assert (events[0], events[-2:]) == ("opening", ["draining", "closed"])
    assert {"ready", "request"} <= set(events)
    assert {"method": "GET", "path": "/v1/runs", "status": 401}.items() <= next(
        line for line in lines if line.get("status") == 401
    ).items()
    assert (result, "application prints" in stopped.err) == ([], True)
    for secret in (OPERATE, READ, "wrong-0123456789", "hook-secret"):
        assert secret not in stopped.err + log
    assert '"principal":"otto"' in log


def test_roles_are_told_apart_and_the_token_in_the_environment_is_gone(folder: Path) -> None:
    with serving(folder, PERDURE_TOKENS=f"read:{READ}\noperate:{OPERATE}") as server:
        with client(server, READ) as asked:
            refused = asked.post("/v1/runs", json={"workflow": "names"}).status_code
            seen = asked.get("/v1/runs").status_code
        with client(server, OPERATE) as asked:
            run = asked.post("/v1/runs", json={"workflow": "names"}).json()["run"]
            names = ended(asked, run)["result"]
        with client(server) as asked:
            nobody = asked.get("/v1/runs").status_code, asked.get("/health").status_code
        environment = Path(f"/proc/{server.pid}/cmdline").read_bytes()

    assert (refused, seen, nobody, names) == (403, 200, (401, 200), [])
    assert OPERATE.encode() not in environment


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_lets_steps_in_flight_end_and_leaves_open_runs_open(folder: Path, number: signal.Signals) -> None:
    with serving(folder) as server, client(server) as asked:
        asked.post("/v1/runs", json={"workflow": "asks", "id": "asks"})
        asked.post("/v1/runs", json={"workflow": "buy", "id": "buy"})
        wait_for(folder / "paying")
        server._process.signal(number)
        while asked.get("/ready").json()["status"] == "ready":
            pass
        refused = asked.post("/v1/runs", json={"workflow": "asks", "id": "late"})
        health = asked.get("/health").status_code
        (folder / "go").touch()
        stopped = server._process.end()

    with serving(folder) as server, client(server) as asked:
        bought, asking = ended(asked, "buy"), asked.get("/v1/runs/asks").json()
        late = asked.get("/v1/runs/late").status_code

    assert (refused.status_code, refused.json()["error"], "retry-after" in refused.headers) == (
        503, "ServerDrainingError", True,
    )  # fmt: skip
    assert (health, stopped.code, late) == (200, 0, 404)
    assert (bought["status"], asking["status"]) == ("completed", "waiting")
    assert (folder / "paid").read_text() == "3\n"


def test_a_second_signal_ends_it_at_once(folder: Path) -> None:
    with serving(folder) as server, client(server) as asked:
        asked.post("/v1/runs", json={"workflow": "see", "id": "see"})
        wait_for(folder / "looking")
        server._process.signal(signal.SIGTERM)
        while asked.get("/ready").json()["status"] == "ready":
            pass
        server._process.signal(signal.SIGTERM)
        stopped = server._process.end()
    (folder / "go").touch()

    with serving(folder) as server, client(server) as asked:
        again = ended(asked, "see")

    assert (stopped.code, "stopped at once" in stopped.err) == (143, True)
    assert again["result"] == 3


def test_after_a_kill_the_next_one_goes_on_and_nothing_that_was_answered_is_lost(folder: Path) -> None:
    answered: list[str] = []
    with serving(folder) as server, client(server) as asked:
        for number in range(50):
            asked.post("/v1/runs", json={"workflow": "see", "id": f"r{number}", "input": {"n": number}})
            answered.append(f"r{number}")
        asked.post("/v1/runs", json={"workflow": "buy", "id": "buy"})
        wait_for(folder / "paying")
        os.kill(server.pid, signal.SIGKILL)
        server._process.end()
    (folder / "go").touch()

    with serving(folder) as server, client(server) as asked:
        results = [ended(asked, run)["result"] for run in answered]
        buy = asked.get("/v1/runs/buy").json()
        settled = asked.post("/v1/runs/buy/settle", json={"step": "pay#1", "verdict": "done", "result": "receipt 3"})
        bought = ended(asked, "buy")
        events = [json.loads(line) for line in command(folder, "log", "--db", "a.db", "--json").out.splitlines()]

    starts = [event["stream"] for event in events if event["type"] == "run-started"]
    assert results == list(range(50))
    assert [starts.count(f"run/{run}") for run in answered] == [1] * 50
    assert (buy["in_doubt"], settled.status_code, bought["result"]) == (["pay#1"], 200, "receipt 3")


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux limits another process")
def test_when_the_log_takes_no_more_it_says_so_and_ends_and_what_was_answered_is_there(folder: Path) -> None:
    body = {"type": "tick", "data": "x" * 60_000}
    with serving(folder) as server, client(server) as asked:
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))  # as a full disk
        answered = 0
        while (reply := asked.post("/v1/events", json=body)).status_code == 200:
            answered += 1
        ended = server._process.end()

    with serving(folder) as server, client(server) as asked:
        there = len(asked.get("/v1/events?types=event-published&limit=1000").json()["events"])

    assert reply.status_code == 503
    assert reply.json()["error"] in {"LogWriteError", "ServerDrainingError"}  # whose write was the one that failed
    assert (ended.code, "takes no more writes" in ended.err.splitlines()[-1]) == (1, True)
    assert answered <= there <= answered + 1


def test_a_stream_goes_on_in_the_next_process_where_it_was(folder: Path) -> None:
    def read(asked: httpx2.Client, last: str, wanted: int) -> tuple[list[int], str]:
        seen: list[int] = []
        with asked.stream("GET", "/v1/events/stream?types=event-published", headers={"Last-Event-ID": last}) as reply:
            for line in reply.iter_lines():
                if line.startswith("id: "):
                    last = line[4:]
                if line.startswith("data: "):
                    seen.append(json.loads(line[6:])["data"]["data"])
                if len(seen) == wanted:
                    break
        return seen, last

    with serving(folder) as server, client(server) as asked:
        for number in range(6):
            asked.post("/v1/events", json={"type": "tick", "data": number})
        first, last = read(asked, "0", 4)
        os.kill(server.pid, signal.SIGKILL)
        server._process.end()
    with serving(folder) as server, client(server) as asked:
        asked.post("/v1/events", json={"type": "tick", "data": 6})
        second, _ = read(asked, last, 3)

    assert first + second == list(range(7))


def test_the_command_line_asks_the_runtime_that_is_served(folder: Path) -> None:
    with serving(folder) as server, client(server) as asked:
        asked.post("/v1/runs", json={"workflow": "asks", "id": "r1"})
        while not asked.get("/v1/questions").json()["questions"]:
            pass
        answered = command(folder, "answer", "r1:ask#1", '"that"', "--db", "a.db")
        result = ended(asked, "r1")["result"]

    assert (answered.code, result) == (0, "that")


def test_a_file_may_make_its_runtime_itself(folder: Path) -> None:
    code = """
from perdure import Runtime, Settings

def runtime(db):
    return Runtime(db, workflows=[names], settings=Settings(socket=False, webhook_port=None))
"""
    (folder / "app.py").write_text(APPLICATION + code, encoding="utf-8")

    with serving(folder) as server, client(server) as asked:
        workflows = [one["id"] for one in asked.get("/v1/workflows").json()["workflows"]]
        entries = asked.get("/v1/entry-points").json()["entry_points"]
        has_socket = (folder / "a.db.sock").exists()

    assert (workflows, entries, has_socket) == (["names"], [], False)


@pytest.mark.parametrize(
    ("code", "arguments", "expected", "said"),
    [
        ("", ("--host", "0.0.0.0"), 2, "give it tokens"),  # noqa: S104 - it is refused
        ("", ("--token-file", "nowhere"), 2, "nowhere cannot be read"),
        ("", ("--token-file", "app.py"), 2, "line 2 of the tokens"),
        ("", ("--host", "no.such.host.invalid"), 2, "no.such.host.invalid"),
        ("raise ValueError('broken on purpose')", (), 1, "ValueError: broken on purpose"),
        ("def (", (), 2, "app.py:1"),
        ("def runtime(db): return 7", (), 2, "returns a Runtime that is not open"),
    ],
)
def test_what_cannot_be_served_is_one_line(
    folder: Path, code: str, arguments: tuple[str, ...], expected: int, said: str
) -> None:
    if code:
        (folder / "app.py").write_text(code, encoding="utf-8")

    stopped = command(folder, "serve", "app.py", "--db", "a.db", "--port", "0", *arguments)

    *traced, last = stopped.err.splitlines()
    assert (stopped.code, stopped.out) == (expected, "")
    assert last.startswith("error: ")
    assert said in last
    assert bool(traced) == (expected == 1)  # the traceback of the file's own code


@pytest.mark.parametrize("missing", ["uvicorn", "starlette"])
def test_without_the_extra_one_line_says_how_to_get_it(folder: Path, missing: str) -> None:
    (folder / f"{missing}.py").write_text(f"raise ModuleNotFoundError(name={missing!r})", encoding="utf-8")

    stopped = command(folder, "serve", "app.py", "--db", "a.db", "--port", "0", env={"PYTHONPATH": str(folder)})

    needed = f"error: perdure serve needs {missing}, which is not installed: pip install 'perdure[serve]'"
    assert (stopped.code, stopped.out, stopped.err.splitlines()) == (2, "", [needed])


def test_a_port_in_use_is_one_line_and_the_log_is_left_alone(folder: Path) -> None:
    with serving(folder) as server:
        port = server.url.rpartition(":")[2]
        stopped = command(folder, "serve", "app.py", "--db", "b.db", "--port", port)

    assert (stopped.code, stopped.out, len(stopped.err.splitlines())) == (2, "", 1)
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in stopped.err
    assert not (folder / "b.db").exists()


def test_a_log_that_another_process_owns_is_one_line(folder: Path) -> None:
    with serving(folder):
        stopped = command(folder, "serve", "app.py", "--db", "a.db", "--port", "0")

    assert (stopped.code, stopped.out) == (3, "")
    assert f"{folder / 'a.db'} is owned by process " in stopped.err.splitlines()[-1]


def test_a_file_that_is_no_log_is_one_line(folder: Path) -> None:
    sqlite3.connect(folder / "a.db").executescript("CREATE TABLE mine (x)").connection.close()

    stopped = command(folder, "serve", "app.py", "--db", "a.db", "--port", "0")

    assert stopped.code == 2
    assert "is not a log of Perdure" in stopped.err.splitlines()[-1]


def test_a_webhook_on_a_path_of_the_api_is_refused(folder: Path) -> None:
    code = APPLICATION + "\nroute = WebhookRoute(source='mine', path='/v1/hook', secret='0123456789abcdef')\n"
    (folder / "app.py").write_text(code, encoding="utf-8")

    stopped = command(folder, "serve", "app.py", "--db", "a.db", "--port", "0", env={"HOOK": "hook-secret-0123456789"})

    assert stopped.code == 2
    assert "/v1/hook: that path is the HTTP API's" in stopped.err.splitlines()[-1]


def test_a_person_is_told_the_address_in_words(folder: Path) -> None:
    with Process(folder, "serve", "app.py", "--db", "a.db", "--port", "0", env={"HOOK": "h" * 20}) as process:
        line = process.line()
        process.signal(signal.SIGTERM)
        process.end()

    assert line.startswith("serve listens on http://127.0.0.1:")
