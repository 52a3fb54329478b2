"""In whose name what comes over HTTP is recorded: the token's, and nobody is two people."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from perdure import Context, workflow
from perdure.runtime.web.api.roles import Tokens
from tests.support.api import ADMIN, OPERATE, TOKENS, Opened, asks, bearer, listens, opened, pay

EVE = "operate-of-eve-0123456789"
NAMELESS = "operate-of-nobody-0123456789"
SEVERAL = Tokens.of(
    [f"operate:otto:{OPERATE}", f"operate:eve:{EVE}", f"admin:ada:{ADMIN}", f"operate:Otto:{OPERATE}-new"]
)


@workflow
async def spends(ctx: Context) -> Any:
    approval = await ctx.approval(several=2).of(pay, 3)
    return [*approval.by, await ctx.call_approved(approval) if approval.is_approved else approval.outcome]


@workflow
async def polls(ctx: Context) -> Any:
    return await ctx.ask("which?", of=str, several=2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


def served(path: Path, scenario: Callable[[Opened], Awaitable[Any]], tokens: Tokens | None = SEVERAL) -> Any:
    async def main() -> Any:
        async with opened(path, tokens, workflows=[spends, polls, asks, listens]) as api:
            if tokens is not None:
                api.client.headers.update(bearer(tokens_first(tokens)))
            return await scenario(api)

    return asyncio.run(main())


def tokens_first(tokens: Tokens) -> str:
    return OPERATE if tokens is SEVERAL or tokens is TOKENS else NAMELESS


async def begun(api: Opened, name: str) -> str:
    """Start a run that asks, and return the path of its question."""
    await api.post("/v1/runs", {"workflow": name, "id": "a"})
    await api.rt.until_idle()
    (asked,) = (await api.get("/v1/questions"))["questions"]
    return f"/v1/runs/a/questions/{quote(asked['id'], safe='')}"


async def said(api: Opened, path: str, body: dict[str, Any], token: str = OPERATE) -> tuple[int, str]:
    reply = await api.client.post(path, json=body, headers=bearer(token))
    return reply.status_code, reply.json().get("detail", "")


async def facts(api: Opened, *types: str) -> list[tuple[Any, ...]]:
    events = (await api.get("/v1/events", types=list(types)))["events"]
    return [(one["principal"], one["data"].get("by"), one["data"].get("on_behalf")) for one in events]


def test_one_token_approves_once_whatever_names_it_gives(path: Path) -> None:
    async def scenario(api: Opened) -> Any:
        question = f"{await begun(api, 'spends')}/approve"
        tried = [
            await said(api, question, {"who": "otto"}),
            await said(api, question, {"who": "bob"}),
            await said(api, question, {}),
            await said(api, question, {"who": " OTTO "}),
            await said(api, question, {}, f"{OPERATE}-new"),
            await said(api, question, {"who": "eve"}, EVE),
        ]
        return tried, (await api.get("/v1/runs/a/result", wait=60))["result"], await facts(api, "call-approved")

    tried, result, approved = served(path, scenario)

    assert [status for status, _ in tried] == [200, 403, 422, 422, 422, 200]
    assert "this token is otto's" in tried[1][1]
    assert "otto has said so already" in tried[2][1]
    assert result == ["otto", "eve", "receipt 3"]
    assert approved == [("otto", "otto", ""), ("eve", "eve", "")]


def test_an_admin_passes_on_what_another_says_and_both_have_had_their_word(path: Path) -> None:
    async def scenario(api: Opened) -> Any:
        question = f"{await begun(api, 'spends')}/approve"
        tried = [
            await said(api, question, {"who": "Otto"}, ADMIN),
            await said(api, question, {"who": "bob"}, ADMIN),
            await said(api, question, {}),
            await said(api, question, {}, EVE),
        ]
        return tried, await facts(api, "call-approved")

    tried, approved = served(path, scenario)

    assert [status for status, _ in tried] == [200, 422, 422, 200]
    assert approved == [("ada", "ada", "Otto"), ("eve", "eve", "")]


@pytest.mark.parametrize(("endpoint", "body"), [("answer", {"value": "x"}), ("approve", {}), ("reject", {})])
def test_nobody_answers_in_the_name_of_another(path: Path, endpoint: str, body: dict[str, Any]) -> None:
    async def scenario(api: Opened) -> Any:
        question = await begun(api, "asks" if endpoint == "answer" else "spends")
        refused = await said(api, f"{question}/{endpoint}", {**body, "who": "eve"})
        types = ("question-answered", "call-approved", "call-rejected")
        nothing = await facts(api, *types)
        taken = await said(api, f"{question}/{endpoint}", {**body, "who": "eve"}, ADMIN)
        return refused[0], nothing, taken[0], await facts(api, *types)

    assert served(path, scenario) == (403, [], 200, [("ada", "ada", "eve")])


def test_what_is_said_by_the_id_of_a_run_is_said_in_the_tokens_name(path: Path) -> None:
    async def scenario(api: Opened) -> Any:
        await begun(api, "polls")
        body = {"target": "a", "content": "x"}
        tried = [
            await said(api, "/v1/inputs", {**body, "who": "eve"}),
            await said(api, "/v1/inputs", body),
            await said(api, "/v1/inputs", {**body, "who": "bob"}, ADMIN),
        ]
        return [status for status, _ in tried], await facts(api, "question-answered")

    assert served(path, scenario) == ([403, 200, 200], [("otto", "otto", ""), ("ada", "ada", "bob")])


def test_signals_cancels_and_settlements_are_the_tokens(path: Path) -> None:
    async def scenario(api: Opened) -> Any:
        await api.post("/v1/runs", {"workflow": "listens", "id": "r"})
        await api.rt.until_idle()
        await api.post("/v1/runs/r/signals", {"name": "other"})
        await api.post("/v1/runs/r/cancel")
        events = (await api.get("/v1/events", types=["signal-received", "run-cancel-requested"]))["events"]
        return [one["principal"] for one in events]

    assert served(path, scenario) == ["otto", "otto"]


def test_without_a_name_the_token_says_no_more_than_what_the_body_says(path: Path) -> None:
    async def scenario(api: Opened) -> Any:
        question = f"{await begun(api, 'spends')}/approve"
        tried = [(await said(api, question, {"who": who}, NAMELESS))[0] for who in ("bob", "Bob ", "cleo")]
        return tried, await facts(api, "call-approved")

    tokens = Tokens.of([f"operate:{NAMELESS}"])

    assert served(path, scenario, tokens) == (
        [200, 422, 200],
        [("bob via api-operate", "bob via api-operate", ""), ("cleo via api-operate", "cleo via api-operate", "")],
    )
