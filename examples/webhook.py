"""An issue is opened on GitHub, is looked into, and gets a comment once a maintainer has approved it.

    python examples/webhook.py             # sends itself a signed delivery; the run waits for a person, in the log
    perdure questions --db issues.db
    perdure answer issues:72d3162e-0001:approve#1 --approve --db issues.db     # or --reject 'not now'
    python examples/webhook.py             # GitHub delivers again: a duplicate; the run goes on and posts

Here the program plays GitHub's part, with the request that GitHub makes. For the real one, give the URL of the server
behind a proxy with TLS to the repository's settings, and the secret in GITHUB_SECRET.
"""

import ast
import asyncio
import hashlib
import hmac
import json
import os
import re
import sys
import sysconfig
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2

from perdure import Context, EntryPoint, RunHandle, Runtime, Secret, Settings, Webhook, tool, workflow

DB = "issues.db"
PATIENCE_SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
DELIVERY = "72d3162e-0001"
RUN = f"issues:{DELIVERY}"
BODY = """Parsing an empty file fails.

  File "json/__init__.py", line 293, in load
  File "json/__init__.py", line 346, in loads
  File "json/decoder.py", line 337, in decode
  File "json/nowhere.py", line 1, in lost
JSONDecodeError: Expecting value
"""


@tool(effect="read")
def find_source(frame: tuple[str, str]) -> str:
    """Return what is known of a frame, a file of the standard library and a function."""
    file, function = frame
    path = Path(sysconfig.get_paths()["stdlib"]) / file
    if not path.is_file():
        return f"{file}: the standard library has no such file"
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return f"{file}: {function} has {(node.end_lineno or node.lineno) - node.lineno + 1} lines"
    return f"{file}: {function} is not in it"


@tool(effect="irreversible")
def post_comment(issue: int, text: str) -> str:
    """Post a comment; here into a file."""
    with Path("comments.md").open("a", encoding="utf-8") as comments:
        comments.write(f"## Issue {issue}\n\n{text}\n")
    return f"commented on issue {issue}"


@workflow
async def triage(ctx: Context, event: dict[str, Any]) -> str:
    """Look into an issue and say what was found, if a maintainer approves the words."""
    issue = event["data"]["payload"]["issue"]
    frames = re.findall(r'File "([^"]+)", line \d+, in (\w+)', issue["body"])
    found = await ctx.map(find_source, frames)
    comment = "\n".join(f"- {line}" for line in found)
    approval = await ctx.approval(to="maintainers", timeout=timedelta(days=7)).of(
        post_comment, issue["number"], comment
    )
    if not approval.is_approved:
        return f"nothing was said: {approval.outcome} {approval.reason}".strip()
    return f"{await ctx.call_approved(approval)}, approved by {', '.join(approval.by)}"


ISSUES = EntryPoint("issues", triage, trigger=Webhook("/github", secret=Secret("GITHUB_SECRET")))


async def deliver(url: str, secret: str) -> str:
    """Send what GitHub sends, and return what it is told."""
    body = json.dumps({"action": "opened", "issue": {"number": 7, "title": "Empty files", "body": BODY}}).encode()
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {
        "Content-Type": "application/json",
        "X-GitHub-Event": "issues",
        "X-GitHub-Delivery": DELIVERY,
        "X-Hub-Signature-256": f"sha256={signature}",
    }
    async with httpx2.AsyncClient(trust_env=False) as github:
        answer = await github.post(f"{url}/github", content=body, headers=headers)
    return f"{answer.status_code} {answer.json()}"


async def main() -> None:
    """Take a delivery in, and wait for the end of its run as long as there is patience."""
    secret = os.environ.get("GITHUB_SECRET") or "it is a secret to everybody"
    settings = Settings(webhook_port=0)  # any port that is free; 8080 when left out
    async with Runtime(DB, entry_points=[ISSUES], workflows=[triage], tools=[find_source, post_comment],
                       secrets={"GITHUB_SECRET": secret}, settings=settings) as rt:  # fmt: skip
        assert rt.webhook_server is not None  # noqa: S101 - there is a route
        print("forged:", await deliver(rt.webhook_server.url, "guessed"))
        print("signed:", await deliver(rt.webhook_server.url, secret))
        await rt.events.wait_for("run-started", run=RUN, after="start")
        run: RunHandle[str] = rt.run(RUN, triage)
        try:
            print(await asyncio.wait_for(run.result(), PATIENCE_SECONDS))
        except TimeoutError:
            for question in await rt.questions():
                print(f"waits for {', '.join(question.to)}: perdure answer {question.id} --approve --db {DB}")


if __name__ == "__main__":
    asyncio.run(main())
