"""The workflow of the history `entered`, whose runs come in by an entry point: never changed.

As in `code.py`, what is new gets a new workflow and a new history.
"""

from perdure import Context, EntryPoint, Retry, tool, workflow
from tests.histories.steering import HAPPENED


@tool(retry=Retry(attempts=1))
async def knock(name: str) -> str:
    if name == "second" and "run-retried" not in HAPPENED:
        raise ConnectionError("nobody opens")
    return f"{name} is in"


@workflow
async def entered(ctx: Context, name: str, is_again: bool = False) -> str:
    """A run that waits for its turn, fails, is tried again, and goes on as another one."""
    await ctx.sleep(5)
    answer = await ctx.call(knock, name)
    if not is_again:
        ctx.continue_as_new(name, is_again=True)
    return answer


DOOR = EntryPoint("door", entered, "api", max_concurrent=1, isolation="isolated")
