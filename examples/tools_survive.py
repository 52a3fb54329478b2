"""What a tool's protection is worth when the process dies: a child is killed, and everything stands where it stood.

    python examples/tools_survive.py

A child process gets three tools into trouble, and is killed with SIGKILL. This process opens the same file and goes on:

* `weather` failed three times in a row: its circuit breaker is open, and spares it further calls for four seconds.
* `upload` failed once: its next attempt is due after a backoff of four seconds.
* `mail` may be called four times in ten minutes: two of the four are used up.

It exits with 1 when one of its claims does not hold.
"""

import asyncio
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from perdure import Context, Query, RateLimit, Recorded, Retry, Runtime, ToolContext, tool, workflow

HERE = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp(prefix="perdure-"))
CALLS = HERE / "calls.txt"  # one line a call that really reached a tool, whatever the log says
REPAIRED = HERE / "repaired"

FOUR_SECONDS = timedelta(seconds=4)
FAILURES = 3
MAILS = 4


def note(call: str) -> None:
    with CALLS.open("a", encoding="utf-8") as file:
        file.write(f"{call}\n")


@tool(failure_threshold=FAILURES, reset_timeout=FOUR_SECONDS.total_seconds())
async def weather(city: str) -> str:
    note("weather")
    if not REPAIRED.exists():
        raise ConnectionError("the weather service is down")
    return f"sunny in {city}"


@tool(retry=Retry(attempts=2, backoff=FOUR_SECONDS, jitter=False))
async def upload(context: ToolContext, name: str) -> str:
    note(f"upload, attempt {context.attempt}")
    if context.attempt == 1:
        raise ConnectionError("connection reset")
    return f"{name} is up"


@tool(rate=RateLimit(calls=MAILS, per=timedelta(minutes=10), max_wait=timedelta(0)))
async def mail(to: str) -> str:
    note("mail")
    return f"sent to {to}"


@workflow
async def publish(ctx: Context, name: str) -> str:
    return await ctx.call(upload, name)


def runtime() -> Runtime:
    return Runtime(HERE / "tools.db", tools=[weather, upload, mail], workflows=[publish])


# What the child does


async def get_into_trouble() -> None:
    async with runtime() as rt:
        await rt.with_options(id="report").start(publish, "report.pdf")
        for _ in range(FAILURES):
            await rt.dispatch("weather", {"city": "Oslo"})
        for name in ("ada", "bob"):
            await rt.dispatch("mail", {"to": name})
        async for event in rt.tail():  # what it yields is on disk
            if event.type == "attempt-failed":
                break
        await asyncio.sleep(1)  # so that a part of both waits is over
        print("in trouble", flush=True)
        await asyncio.sleep(60)


def kill_a_child() -> int:
    command = [sys.executable, __file__, str(HERE), "child"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:  # noqa: S603 - its own words
        assert child.stdout is not None  # noqa: S101 - it was asked for
        child.stdout.readline()
        child.kill()
    return child.returncode


# What is found afterwards


class Story:
    def __init__(self, rt: Runtime) -> None:
        self.rt = rt
        self.is_true = True

    def claim(self, text: str, holds: bool) -> None:  # noqa: FBT001
        self.is_true &= holds
        print(f"   {'yes' if holds else 'NO '}  {text}")

    async def fact(self, kind: str) -> tuple[Recorded, dict[str, int]]:
        """Return the first event of this kind, and what is in it that can be told by a number."""
        [event] = await self.rt.read(Query(types=(kind,), limit=1))
        return event, msgspec.json.decode(event.data or "{}")

    async def until(self, moment: int) -> None:
        await asyncio.sleep(max(0.0, moment / 1e6 - datetime.now(UTC).timestamp()))

    async def circuit(self) -> None:
        event, opened = await self.fact("circuit-opened")
        deadline = opened["at"] + FOUR_SECONDS // timedelta(microseconds=1)
        figures = (await self.rt.statistics()).tools["weather"]
        told = await self.rt.dispatch("weather", {"city": "Oslo"})
        print(f"\nweather: the circuit was opened by event {event.position}. A model that calls it is told:\n   {told}")
        self.claim("it has been open since the same moment", figures.opened_at == opened["at"] / 1e6)
        self.claim("the call did not reach the tool", calls().count("weather") == FAILURES)
        REPAIRED.touch()
        await self.until(deadline + 50_000)
        told = await self.rt.dispatch("weather", {"city": "Oslo"})
        print(f"   four seconds after it opened, one call is let through: {told}")
        half_opened, _ = await self.fact("circuit-half-opened")
        self.claim("not a moment earlier", half_opened.at > deadline)
        self.claim(
            "it succeeded: the circuit is closed", (await self.rt.statistics()).tools["weather"].state == "closed"
        )

    async def bucket(self) -> None:
        told = [await self.rt.dispatch("mail", {"to": name}) for name in ("eve", "dan", "kim")]
        print("\nmail: three more are tried:")
        for one in told:
            print(f"   {one}")
        self.claim("two go, the third is refused", ["rate_limited" in one for one in told] == [False, False, True])
        self.claim("the tool was called four times in both lives", calls().count("mail") == MAILS)

    async def backoff(self) -> None:
        result = await self.rt.run("report", publish).result()
        _, failed = await self.fact("attempt-failed")
        second, _ = await self.fact("attempt-started")
        late = (second.at - failed["retry_at"]) / 1e6
        print(f"\nupload: {result}; the second attempt began {late:.3f} s after it was due")
        self.claim("not before it was due", second.at >= failed["retry_at"])
        self.claim("each attempt was made once", uploads() == ["upload, attempt 1", "upload, attempt 2"])


def calls() -> list[str]:
    return CALLS.read_text(encoding="utf-8").splitlines()


def uploads() -> list[str]:
    return [call for call in calls() if call.startswith("upload")]


async def look() -> bool:
    async with runtime() as rt:
        story = Story(rt)
        await story.bucket()
        await story.circuit()
        await story.backoff()
        return story.is_true


def main() -> None:
    if sys.argv[2:] == ["child"]:
        asyncio.run(get_into_trouble())
        return
    print(f"A process uses three tools, and is killed in the middle. Its log is {HERE / 'tools.db'}")
    print(f"   it ended with {kill_a_child()} (-9: SIGKILL), after these calls: {', '.join(calls())}")
    print("\nAnother process opens the log.")
    if not asyncio.run(look()):
        sys.exit("\nSomething above does not hold.")
    print("\nEverything stood where it stood. To see it in the log: perdure log --db", HERE / "tools.db")


if __name__ == "__main__":
    main()
