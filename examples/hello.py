from perdure import BlockingRuntime, Context, tool, workflow


@tool
def shout(word: str) -> str:
    return word.upper()


@workflow
async def greet(ctx: Context, names: list[str]) -> list[str]:
    return await ctx.map(shout, names)


if __name__ == "__main__":
    with BlockingRuntime("hello.db", workflows=[greet]) as rt:
        print(rt.start(greet, ["Ada", "Grace"]).result())
