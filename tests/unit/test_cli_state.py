"""`perdure state`: the scopes that hold values, the values of one, and its changes."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from perdure import Context, Runtime, workflow
from perdure.runtime.cli import main


@workflow
async def shares(ctx: Context, wait: bool) -> None:
    await ctx.state.update("n", lambda n: n + 1, default=0, scope="global")
    await ctx.state.write("who", ctx.run_id, "stream")
    await ctx.state.write("mine", {"deep": [1, 2]})
    await ctx.state.delete("gone") if wait else None
    if wait:
        await ctx.signal("go", of=int)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("state") / "test.db"

    async def fill() -> None:
        async with Runtime(path, workflows=[shares]) as rt:
            await (await rt.with_options(id="first-run").start(shares, False)).result()
            await rt.with_options(id="second-run").start(shares, True)
            await rt.until_idle()
            await rt.state.view(conversation="c", who="ada").write_batch({"large": "x" * 70_000, "text": "ü"})
            await rt.state.view(stream="dropped").write("k", 1)
            await rt.state.drop(stream="dropped")

    asyncio.run(fill())
    return path


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    code, said = ended.value.code, capsys.readouterr()
    assert isinstance(code, int)
    return code, said.out, said.err


def lines(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict[str, Any]]:
    code, out, _ = call(capsys, *arguments, "--json")
    assert code == 0
    return [json.loads(line) for line in out.splitlines()]


def test_the_scopes_that_hold_values_are_listed(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = lines(capsys, "state", "--db", log)

    assert {one["scope"]: one["keys"] for one in found} == {
        "execution/second-run": 1, "conversation/c": 2, "global": 1, "stream/shares": 1,
    }  # fmt: skip
    code, out, _ = call(capsys, "state", "--db", log)
    assert (code, "stream/shares" in out, "dropped" in out) == (0, True, False)


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("global", {"n": (2, "second-run")}),
        ("stream/shares", {"who": ("second-run", "second-run")}),
        ("execution/second", {"mine": ({"deep": [1, 2]}, "second-run")}),
        ("execution/first-run", {}),
        ("stream/unheard-of", {}),
    ],
)
def test_the_values_of_a_scope_are_shown_with_who_set_them(
    scope: str, expected: dict[str, Any], log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = lines(capsys, "state", scope, "--db", log)

    assert {one["key"]: (one["value"], one["run"]) for one in found} == expected


def test_a_large_value_is_shown_by_its_hash_and_a_principal_by_name(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large, text = lines(capsys, "state", "conversation/c", "--db", log)

    assert (len(large["value"]["$blob"]), large["who"], text["value"]) == (64, "ada", "ü")
    _, out, _ = call(capsys, "state", "conversation/c", "--db", log)
    assert "ada" in out


def test_the_changes_of_a_scope_are_shown_the_newest_first(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = lines(capsys, "state", "global", "--changes", 5, "--db", log)

    assert [(one.get("old"), one["new"], one["run"]) for one in found] == [(1, 2, "second-run"), (None, 1, "first-run")]
    code, out, _ = call(capsys, "state", "global", "--changes", 1, "--db", log)
    assert (code, "run second-r" in out, "first" in out) == (0, True, False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["session/c"], "a scope is global, stream/ENTRY"),
        (["global/x"], "a scope is global, stream/ENTRY"),
        (["execution/unheard-of"], "there is no run"),
        (["--changes", "3"], "of one scope"),
    ],
)
def test_what_names_no_scope_is_a_wrong_use(
    arguments: list[str], said: str, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(capsys, "state", *arguments, "--db", log)

    assert (code, said in err) == (2, True)


def test_the_timeline_of_a_run_says_what_it_read_and_wrote(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(capsys, "show", "second-run", "--db", log)

    assert "updated n to 2 (global)" in out
    assert "set mine (execution)" in out
    assert "gone was not there to delete (execution)" in out
