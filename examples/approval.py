"""A payment that a person approves from the command line, while the program that asks may be there or not.

    python examples/approval.py            # asks and, once nobody answers for a while, ends: the run waits in the log
    perdure questions --db payments.db
    perdure answer invoice-7:approve#1 --approve --db payments.db      # or --edit '{…}', or --reject 'too much'
    python examples/approval.py            # goes on where it was: pays, or says why not

Answered while the program is there, it goes on at once.
"""

import asyncio
import sys
from datetime import timedelta

from perdure import Context, Runtime, tool, workflow

DB = "payments.db"
PATIENCE_SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0


@tool(effect="irreversible")
async def pay(to: str, amount: int) -> str:
    """Pay; here it only says so."""
    return f"paid {amount} to {to}"


@workflow
async def settle_invoice(ctx: Context, to: str, amount: int) -> str:
    """Pay an invoice that somebody approved within a month."""
    approval = await ctx.approval(to="finance", timeout=timedelta(days=30)).of(pay, to, amount=amount)
    if not approval.is_approved:
        return f"not paid: {approval.outcome} {approval.reason}".strip()
    return f"{await ctx.call_approved(approval)}, approved by {', '.join(approval.by)}"


async def main() -> None:
    """Start the run, or find it, and wait for its end as long as there is patience."""
    async with Runtime(DB, tools=[pay], workflows=[settle_invoice]) as rt:
        run = await rt.with_options(id="invoice-7").start(settle_invoice, "ada", 250)
        try:
            print(await asyncio.wait_for(run.result(), PATIENCE_SECONDS))
        except TimeoutError:
            for question in await rt.questions():
                print(f"waits for {', '.join(question.to)}: perdure answer {question.id} --approve --db {DB}")


if __name__ == "__main__":
    asyncio.run(main())
