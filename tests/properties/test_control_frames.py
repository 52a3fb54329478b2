"""Whatever is sent to an owner's socket: it is answered or hung up on, and the runtime goes on for everybody else."""

import asyncio
import struct
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perdure import Context, MailboxFullError, RunCancelledError, RunHandle, Runtime, UsageError, connect, workflow
from perdure.runtime.control import address, messages
from perdure.runtime.control.channel import Channel
from perdure.runtime.control.faults import error_of, fault_of, known_errors
from perdure.runtime.control.meanings import MEANINGS
from tests.support.runs import play

VERBS = [str(kind.__struct_config__.tag) for kind in (*messages.ANSWERS, *MEANINGS)] + ["ask", "withdraw", "eval"]
COMMANDS = [str(kind.__struct_config__.tag) for kind in messages.ASKABLE] + ["note", "start-run"]

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(["run/w", "run/none", "tool/x", "w", "", "a b", "\x00", "../w", "runtime/main"])
commands = st.fixed_dictionaries(
    {"type": st.sampled_from(COMMANDS)},
    optional=dict.fromkeys(("reason", "name", "value", "id", "step", "fact", "question", "answer"), anything),
)
fields = ("command", "options", "input", "arguments", "query", "args", "kwargs", "asked", "data", "who", "because")
requests = st.fixed_dictionaries(
    {"verb": st.sampled_from(VERBS)},
    optional={
        **dict.fromkeys(fields, anything),
        **dict.fromkeys(("stream", "run", "workflow", "tool", "slot", "type", "sha256"), names),
        "command": commands | anything,
        "options": st.just({}),
        "to": st.sampled_from(["open", "auto", "x"]),
        "after": st.integers(),
        "request": st.integers(),
    },
)
envelopes = st.tuples(st.integers(-1, 3), requests | anything).map(lambda pair: msgspec.json.encode(list(pair)))
frames = (envelopes | st.binary(max_size=50)).map(lambda body: struct.pack(">I", len(body)) + body)
streams = st.lists(frames | st.binary(max_size=20), max_size=6).map(b"".join)


@workflow
async def wait(ctx: Context) -> str:
    return await ctx.signal("go", of=str)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(streams, min_size=1, max_size=4))
def test_no_bytes_harm_the_owner_or_another_program(sent: list[bytes]) -> None:
    async def scenario(folder: Path) -> str:
        async with Runtime(folder / "a.db", workflows=[wait]), connect(folder / "a.db") as other:
            await other.with_options(id="untouched").start(wait)
            for data in sent:
                connected = address.connect(folder / "a.db")
                loop = asyncio.get_running_loop()
                try:
                    await loop.sock_sendall(connected, data)
                    await other.questions()  # the owner had its turn
                    await loop.sock_recv(connected, 100)
                except ConnectionError:
                    pass
                finally:
                    connected.close()
            run: RunHandle[str] = other.run("untouched")
            await run.signal("go", "unharmed")
            return await run.result()

    with TemporaryDirectory() as folder:
        assert play(lambda: scenario(Path(folder))) == "unharmed"


@given(st.lists(st.binary(max_size=100), max_size=8), st.lists(st.integers(1, 7), min_size=1, max_size=20))
def test_frames_come_whole_and_in_order_however_they_are_cut(bodies: list[bytes], cuts: list[int]) -> None:
    received: list[bytes] = []
    line = Channel(received.append, _nothing)
    data = b"".join(struct.pack(">I", len(body)) + body for body in bodies)

    while data:
        size = cuts[len(data) % len(cuts)]
        line.data_received(data[:size])
        data = data[size:]

    assert received == bodies


def _nothing() -> None:
    """Take note of nothing."""


@given(st.sampled_from(sorted(known_errors())), st.dictionaries(st.text(max_size=10), anything, max_size=4), st.text())
def test_any_fault_becomes_an_error_with_a_text(kind: str, data: dict[str, object], text: str) -> None:
    error = error_of(messages.Fault(kind, data, text))

    assert isinstance(str(error), str)


@given(st.sampled_from(["cancelled", "failed", "ä\n"]), st.integers())
def test_an_error_arrives_as_the_one_that_was_sent(reason: str, number: int) -> None:
    errors = (
        RunCancelledError(run="r", reason=reason),
        UsageError(reason),
        MailboxFullError(stream="run/r", waiting=number),
    )

    for error in errors:
        arrived = error_of(msgspec.json.decode(msgspec.json.encode(fault_of(error)), type=messages.Fault))
        assert (type(arrived), str(arrived), vars(arrived)) == (type(error), str(error), vars(error))
