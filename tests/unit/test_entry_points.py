"""Entry points: what is refused when they are registered, what a trigger starts, how many run, opening and closing."""

import asyncio
import socket
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from perdure import (
    AgentRuntimeConfig,
    Context,
    EntryPoint,
    InvalidArgumentsError,
    LogEvent,
    Manual,
    OnEvent,
    Query,
    Queue,
    Recorded,
    RunConflictError,
    Runtime,
    Schedule,
    Secret,
    Settings,
    Step,
    TriggerRefusedError,
    UsageError,
    Webhook,
    WebhookRoute,
    Workflow,
    WorkflowDefinition,
    tool,
    workflow,
)
from perdure.actors.triggers.kinds import in_words
from perdure.runtime.entries.triggering import fired_id
from perdure.store.records import stream_id
from perdure.testing import MemoryDisk, TestClock
from tests.support.runs import Box, box_with, data, events, facts, play

STARTED: list[str] = []


class Gate:
    """Counts who is inside at the same time."""

    def __init__(self) -> None:
        self.now = self.most = 0

    async def __aenter__(self) -> None:
        self.now += 1
        self.most = max(self.most, self.now)

    async def __aexit__(self, *_: object) -> None:
        self.now -= 1


GATE = Gate()


@pytest.fixture(autouse=True)
def nothing_yet() -> None:
    STARTED.clear()
    GATE.__init__()  # type: ignore[misc]


@workflow
async def job(ctx: Context, name: str = "job") -> str:
    STARTED.append(name)
    async with GATE:
        await ctx.sleep(1)
    return f"done {name}"


@workflow
async def heard(ctx: Context, event: dict[str, Any]) -> str:
    STARTED.append(str(event["type"]))
    return str(event["data"])


@tool(effect="read")
async def say(text: str) -> dict[str, str]:
    return {"said": text}


def saying(id: str, then: str | None = None) -> Step:
    return Step(id=id, tool="say", arguments={"text": id}, next=then)


def on_event(config: dict[str, Any]) -> EntryPoint:
    spec = {"id": "a", "trigger_type": "event", "trigger_config": {"event_types": ["custom"], **config}}
    return EntryPoint.from_spec(spec, job)


def entries(*points: EntryPoint, **options: Any) -> Box:
    return box_with(job, heard, entry_points=points, **options)


def runtime(*points: EntryPoint, **options: Any) -> Runtime:
    return Runtime("memory", log=MemoryDisk().open, clock=TestClock(), workflows=[job], entry_points=points, **options)


async def gate_of(rt: Runtime, entry: str) -> list[Recorded]:
    return await rt.read(Query(stream=stream_id(f"entry-point/{entry}")))


# Declaring


@pytest.mark.row("A3-01")
def test_the_configuration_of_document_003_has_its_defaults_and_becomes_settings() -> None:
    config = AgentRuntimeConfig()

    assert [getattr(config, name) for name in config.__struct_fields__] == [
        100, 60.0, 0.1, 1000, 1000, None, "127.0.0.1", 8080, [],
    ]  # fmt: skip
    assert config.settings() == Settings()
    assert AgentRuntimeConfig(max_concurrent_executions=7).settings().max_concurrent_executions == 7
    hook = {"source_id": "ci", "path": "/ci", "secret": "s"}
    assert AgentRuntimeConfig(webhook_routes=[hook]).routes() == (WebhookRoute(source="ci", path="/ci", secret="s"),)
    with pytest.raises(UsageError, match="source_id"):
        AgentRuntimeConfig(webhook_routes=[{"path": "/ci"}]).routes()


@pytest.mark.row("A3-02")
def test_an_id_twice_a_missing_step_and_a_change_while_running_are_errors() -> None:
    steps = WorkflowDefinition(id="route", pattern="conditional", steps=(saying("a"),))
    made = Runtime("memory", tools=[say], workflows=[job, steps], entry_points=[EntryPoint("one", job)])

    with pytest.raises(ValueError, match="'one' is already registered"):
        made.entry_points.register(EntryPoint("one", job))
    with pytest.raises(ValueError, match="step 'x' of entry point two not found in graph route"):
        made.entry_points.register(EntryPoint("two", "route", node="x"))
    with pytest.raises(ValueError, match="workflow 'nothing' of entry point two not found"):
        made.entry_points.register(EntryPoint("two", "nothing"))

    async def scenario() -> None:
        async with entries(EntryPoint("one", job)) as box:
            rt = await box.open()
            with pytest.raises(RuntimeError, match="running"):
                rt.entry_points.register(EntryPoint("two", job))
            with pytest.raises(RuntimeError, match="running"):
                rt.entry_points.unregister("one")

    play(scenario)


@workflow
async def takes_more(ctx: Context, event: dict[str, Any], order: str) -> None: ...


@pytest.mark.parametrize(
    ("target", "trigger", "fault"),
    [
        (heard, OnEvent("news", where={"zz": 1}), r"the trigger of entry point one: .*'zz' is not an operator"),
        (heard, Webhook("/x/{", secret="s"), "a parameter in the path of a webhook"),
        (heard, Webhook("/x", methods=("NO SUCH",), secret="s"), "the methods of webhook /x"),
        (job, OnEvent("news"), "one is started by its event with one argument, 'event', which workflow job"),
        (job, Webhook("/x", secret="s"), "one is started by its webhook"),
        (job, Schedule(every=timedelta(hours=1)), "one is started by its schedule"),
        (takes_more, OnEvent("news"), "which workflow takes_more has to take, and no other"),
    ],
)
def test_a_trigger_that_could_start_nothing_is_an_error_when_it_is_registered(
    target: Workflow[..., Any], trigger: Any, fault: str
) -> None:
    made = runtime()

    with pytest.raises(UsageError, match=fault):
        made.entry_points.register(EntryPoint("one", target, trigger))

    assert made.entry_points.list() == ()


def test_an_entry_point_is_taken_out_before_the_runtime_opens() -> None:
    made = runtime(EntryPoint("one", job), EntryPoint("two", "job"))

    assert made.entry_points.unregister("one") is True
    assert made.entry_points.unregister("one") is False
    assert [each.id for each in made.entry_points.list()] == ["two"]
    assert made.entry_points.get("one") is None


@pytest.mark.row("A3-03")
def test_an_unknown_isolation_or_trigger_is_an_error_when_it_is_declared() -> None:
    wrong: Any = "somehow"

    with pytest.raises(ValueError, match="isolated, shared or synchronized, not 'somehow'"):
        EntryPoint("one", job, isolation=wrong)
    with pytest.raises(ValueError, match="not 'somehow'"):
        EntryPoint("one", job, wrong)
    with pytest.raises(ValueError, match="the trigger type of entry point one is manual, api, event, timer, webhook"):
        EntryPoint.from_spec({"id": "one", "trigger_type": "somehow"}, job)
    with pytest.raises(ValueError, match="isolation of entry point one"):
        EntryPoint.from_spec({"id": "one", "isolation_level": "somehow"}, job)


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda: EntryPoint("a b", job), "the id of an entry point is"),
        (lambda: EntryPoint("a", job, max_concurrent=0), "at least 1 run"),
        (lambda: EntryPoint("a", job, priority=10**9), "a priority is"),
        (lambda: EntryPoint("a", 7), "a workflow or its name"),  # type: ignore[arg-type] # the point
        (lambda: OnEvent(("",)), "OnEvent"),
        (lambda: OnEvent("a", after="then"), "'now', 'start' or a position"),  # type: ignore[arg-type] # the point
        (lambda: Webhook("github"), "begins with /"),
        (lambda: Webhook("/x", methods=()), "methods="),
        (lambda: Webhook("/x", secret=""), "is empty"),
        (lambda: Webhook("/x", scheme="github"), "no secret"),
        (Schedule, "one of the two"),
        (lambda: EntryPoint("a", job, name=7), "the name of entry point a is a text"),  # type: ignore[arg-type] # the point
        (lambda: EntryPoint("a", job, description=None), "the description of"),  # type: ignore[arg-type] # the point
        (lambda: OnEvent(7), "OnEvent"),  # type: ignore[arg-type] # the point
        (lambda: Webhook(7), "begins with /"),  # type: ignore[arg-type] # the point
        (lambda: Webhook("/x", methods=("POST", 7)), "methods="),  # type: ignore[arg-type] # the point
        (lambda: Schedule(every=60), r"every=…\) is such as timedelta\(minutes=5\), not 60"),  # type: ignore[arg-type] # the point
        (lambda: Schedule(cron=5), "cron="),  # type: ignore[arg-type] # the point
        (lambda: Schedule(cron="0 3 * * *", time_zone=1), "time_zone="),  # type: ignore[arg-type] # the point
        (lambda: Schedule(every=timedelta(1), jitter=5), "jitter="),  # type: ignore[arg-type] # the point
        (lambda: Schedule(every=timedelta(1), misfire_limit=True), "misfire_limit="),
        (lambda: Schedule(every=timedelta(1), paused="no"), "paused="),  # type: ignore[arg-type] # the point
        (lambda: Schedule(every=timedelta(1), misfire="never"), "'one', 'skip', 'all', not 'never'"),  # type: ignore[arg-type] # the point
        (lambda: Schedule(every=timedelta(1), overlap=None), "'queue', 'skip', 'cancel_previous'"),  # type: ignore[arg-type] # the point
        (lambda: Schedule(every=timedelta(0)), "more than 0"),
        (lambda: Schedule(cron="0 3 * * *", time_zone="Mars/Base"), "no time zone 'Mars/Base'"),
        (lambda: Schedule(every=timedelta(1), misfire_limit=0), "1 or more"),
        (lambda: EntryPoint.from_spec({"id": "a", "colour": 1}, job), "has no colour"),
        (lambda: EntryPoint.from_spec({"id": "a", "trigger_config": {"cron": "x"}}, job), "knows no cron"),
        (lambda: on_event({"filter_graph": "g"}), "with filter_stream"),
        (lambda: on_event({"event_types": 7}), "event_types of entry point a is a list of texts, not 7"),
        (lambda: on_event({"event_types": ["a", None]}), "is a list of texts"),
    ],
)
def test_what_cannot_be_an_entry_point_says_so_when_it_is_made(make: Any, fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        make()


def test_the_words_of_document_003_become_triggers() -> None:
    spec = {
        "id": "on-done", "name": "On done", "trigger_type": "event", "isolation_level": "isolated", "priority": 3,
        "max_concurrent": 2, "trigger_config": {"event_types": ["custom"], "filter_stream": "s", "filter_node": "n"},
    }  # fmt: skip

    found = EntryPoint.from_spec(spec, job)

    trigger = OnEvent(("custom",), stream="s", node="n")
    assert found == EntryPoint("on-done", job, trigger, "On done", None, "isolated", 2, 3)
    timer: dict[str, Any] = {"id": "t", "trigger_type": "timer", "trigger_config": {"interval_minutes": 5}}
    assert EntryPoint.from_spec(timer, job).trigger == Schedule(every=timedelta(minutes=5))
    hook: dict[str, Any] = {"id": "t", "trigger_type": "webhook", "trigger_config": {"path": "/x", "secret": "s"}}
    assert EntryPoint.from_spec(hook, job).trigger == Webhook("/x", secret="s", scheme="github")
    assert EntryPoint.from_spec({"id": "t"}, job).trigger == Manual()
    assert on_event({"event_types": "custom"}).trigger == OnEvent(("custom",))
    assert on_event({"filter_graph": None, "exclude_own_graph": False}).trigger == OnEvent(("custom",))


@pytest.mark.parametrize("config", [{}, {"interval_minutes": 0}, {"interval_minutes": "x"}, {"cron": "often"}])
def test_a_timer_that_cannot_be_right_is_passed_over_with_a_warning(
    config: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    found = EntryPoint.from_spec({"id": "t", "trigger_type": "timer", "trigger_config": config}, job)

    assert found.trigger == Manual()
    assert "a timer cannot be set up" in capsys.readouterr().out


def test_a_trigger_is_told_in_words_without_its_secret() -> None:
    secret = "do not tell"

    assert in_words(Webhook("/x", ("post", "put"), secret)) == "POST PUT /x"
    assert secret not in repr(Webhook("/x", secret=secret))
    assert secret not in repr(EntryPoint("a", job, Webhook("/x", secret=Secret(secret))))
    assert in_words(OnEvent(("a", "b"), stream="s")) == "on a, b of s"
    assert in_words(Schedule(cron="0 3 * * *")) == "at 0 3 * * * UTC"
    assert in_words(Schedule(every=timedelta(hours=1))) == "every 1:00:00"


def test_a_queue_cannot_be_called_as_that_of_an_entry_point() -> None:
    with pytest.raises(UsageError, match="entry:one"):
        runtime(EntryPoint("one", job), queues=[Queue("entry:one")])


# Triggering


@pytest.mark.row("A3-04")
def test_a_trigger_before_the_start_or_of_an_unknown_entry_point_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="not running"):
        asyncio.run(runtime(EntryPoint("one", job)).trigger("one"))

    async def scenario() -> None:
        async with entries(EntryPoint("one", job)) as box:
            rt = await box.open()
            with pytest.raises(ValueError, match="entry point 'two' not found"):
                await rt.trigger("two")

    play(scenario)


@pytest.mark.row("A3-05")
def test_a_trigger_returns_the_id_of_a_durable_run_before_its_code_begins() -> None:
    async def scenario() -> None:
        async with entries(EntryPoint("one", job)) as box:
            rt = await box.open()

            run = await rt.trigger("one", {"name": "a"}, who="ada")

            assert STARTED == []
            assert [event.type for event in await rt.run(run).history()] == ["run-started"]
            other = await rt.trigger("one", {"name": "b"}, correlation_id="order-7")
            await box.clock.advance(2)
            results = [await rt.get_execution_result("one", each) for each in (run, other)]
            assert [one and (one.output, one.correlation) for one in results] == [
                ("done a", run), ("done b", "order-7"),
            ]  # fmt: skip
            assert (await rt.run(run).history())[0].principal == "ada"

    play(scenario)


def test_a_trigger_and_its_run_are_one_unit_that_says_how_the_run_came_in() -> None:
    async def scenario() -> None:
        async with entries(EntryPoint("one", job, "api", isolation="isolated")) as box:
            rt = await box.open()

            run = await rt.trigger("one")

            gate = [event for event in await gate_of(rt, "one") if event.type == "entry-triggered"]
            began = (await rt.run(run).history())[0]
            assert data(gate[0])["run"] == run
            assert began.position == gate[0].position + 1
            assert began.at == gate[0].at
            assert data(began)["entrance"] == {"entry": "one", "kind": "api", "isolation": "isolated"}

    play(scenario)


def test_the_same_id_is_the_same_run_and_with_other_data_or_by_another_way_an_error() -> None:
    async def scenario() -> None:
        async with entries(EntryPoint("one", job), EntryPoint("two", job)) as box:
            rt = await box.open()

            assert await rt.trigger("one", {"name": "a"}, id="r") == "r"
            assert await rt.trigger("one", {"name": "a"}, id="r") == "r"
            with pytest.raises(RunConflictError, match="other input"):
                await rt.trigger("one", {"name": "b"}, id="r")
            with pytest.raises(RunConflictError, match="entry point one behind it"):
                await rt.trigger("two", {"name": "a"}, id="r")
            await rt.with_options(id="plain").start(job)
            with pytest.raises(RunConflictError, match="no entry point behind it"):
                await rt.trigger("one", id="plain")

            await box.clock.advance(2)
            assert (await rt.entry_points.statistics())["one"]["total_executions"] == 1

    play(scenario)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"id": "a b"}, "a run's id"),
        ({"correlation_id": ""}, "correlation"),
        ({"conversation": "a b"}, "conversation"),
        ({"priority": 10**9}, "priority"),
        ({"who": ""}, "principal"),
        ({"id": 7}, "id is a text or None, not 7"),
        ({"correlation_id": 7}, "correlation"),
        ({"conversation": 7}, "conversation"),
        ({"who": 7}, "who is a text or None, not 7"),
    ],
)
def test_what_a_trigger_cannot_say_is_an_error_and_nothing_is_recorded(options: Any, fault: str) -> None:
    async def scenario() -> None:
        async with entries(EntryPoint("one", job)) as box:
            rt = await box.open()
            with pytest.raises(UsageError, match=fault):
                await rt.trigger("one", **options)
            with pytest.raises(InvalidArgumentsError):
                await rt.trigger("one", {"nonsense": 1})
            assert (await rt.entry_points.statistics())["one"]["total_executions"] == 0

    play(scenario)


def test_what_is_fired_with_a_key_starts_one_run_whatever_its_data() -> None:
    async def scenario() -> None:
        async with entries(EntryPoint("one", job)) as box:
            rt = await box.open()
            both = [rt.entry_points.fire("one", {"name": n}, kind="webhook", key="d1", cause=7) for n in "ab"]

            assert await asyncio.gather(*both) == ["one:d1", "one:d1"]

            rt = await box.crash_and_reopen()
            assert await rt.entry_points.fire("one", {"name": "c"}, kind="webhook", key="d1") == "one:d1"
            await box.clock.advance(2)
            assert STARTED == ["a"]
            assert [event for event in await facts(rt, "one:d1") if event == "run-started"] == ["run-started"]
            assert (await rt.entry_points.statistics())["one"]["total_executions"] == 1

    play(scenario)


def test_a_key_that_is_no_part_of_an_id_is_shortened_and_two_keys_are_never_one_run() -> None:
    keys = ["x", "ä", "a b", "a_b", "long" * 100, "long" * 99, ""]

    ids = [fired_id("one", key) for key in keys]

    assert ids[0] == "one:x"
    assert len(set(ids)) == len(keys)
    assert all(len(id) <= 128 and id.isascii() and " " not in id for id in ids)


def test_a_trigger_that_too_many_runs_led_to_is_refused_and_recorded_once() -> None:
    async def scenario() -> None:
        async with entries(EntryPoint("one", job), settings=Settings(max_trigger_depth=3)) as box:
            rt = await box.open()
            await rt.entry_points.fire("one", {}, kind="event", key="1", depth=3)
            for _ in range(2):
                with pytest.raises(TriggerRefusedError, match="4 runs led to it"):
                    await rt.entry_points.fire("one", {}, kind="event", key="2", depth=4, cause=9)

            refused = [event for event in await gate_of(rt, "one") if event.type == "trigger-refused"]
            assert [data(event)["run"] for event in refused] == ["one:2"]
            assert (await rt.entry_points.statistics())["one"]["refused_triggers"] == 1

    play(scenario)


@pytest.mark.row("A3-06")
def test_two_entry_points_begin_at_steps_of_one_definition_that_no_way_connects() -> None:
    graph = WorkflowDefinition(
        id="graph",
        pattern="conditional",
        start="a",
        entry_steps=("b",),
        steps=(saying("a", "a2"), saying("a2"), saying("b", "b2"), saying("b2")),
    )
    points = [EntryPoint("first", "graph", node="a"), EntryPoint("second", "graph", node="b")]

    async def scenario() -> list[Any]:
        async with Box(None, TestClock(), tools=[say], workflows=[graph], entry_points=points) as box:
            rt = await box.open()
            runs = [(entry, await rt.trigger(entry)) for entry in ("first", "second")]
            await box.clock.advance(1)
            results = [await rt.get_execution_result(entry, run) for entry, run in runs]
            assert [one and one.success for one in results] == [True, True]
            return [[one["step"] for one in await events(rt, run, "step-completed")] for _, run in runs]

    assert play(scenario) == [["a", "a2"], ["b", "b2"]]


def test_a_sequence_begins_at_the_step_that_is_named_and_a_function_or_another_pattern_does_not() -> None:
    line = WorkflowDefinition(id="line", steps=(saying("a"), saying("b"), saying("c")))
    beside = WorkflowDefinition(id="beside", pattern="parallel", steps=(saying("a"), saying("b")))
    made = Runtime("memory", tools=[say], workflows=[line, beside, job])
    with pytest.raises(UsageError, match="only conditional and sequential"):
        made.entry_points.register(EntryPoint("x", "beside", node="b"))
    with pytest.raises(UsageError, match="is a function"):
        made.entry_points.register(EntryPoint("x", job, node="b"))

    async def scenario() -> list[str]:
        points = [EntryPoint("late", "line", node="b")]
        async with Box(None, TestClock(), tools=[say], workflows=[line], entry_points=points) as box:
            rt = await box.open()
            run = await rt.trigger("late", {"x": 1})
            await box.clock.advance(1)
            return [one["step"] for one in await events(rt, run, "step-completed")]

    assert play(scenario) == ["b", "c"]


# How many run


async def to_the_end(box: Box, rounds: int = 8) -> None:
    for _ in range(rounds):
        await box.clock.advance(1.1)


@pytest.mark.row("A3-07")
def test_no_more_runs_of_an_entry_point_are_at_work_than_it_allows() -> None:
    async def scenario() -> None:
        async with entries(EntryPoint("one", job, max_concurrent=1)) as box:
            rt = await box.open()
            runs = [await rt.trigger("one", {"name": name}) for name in "ab"]

            await box.clock.advance(0.5)
            assert [(await rt.run(run).status()).status for run in runs] == ["running", "queued"]
            await to_the_end(box)
            assert [(await rt.run(run).status()).status for run in runs] == ["completed", "completed"]
            assert STARTED == ["a", "b"]
            assert GATE.most == 1

    play(scenario)


@pytest.mark.row("A3-08")
def test_no_more_runs_of_all_entry_points_are_at_work_than_the_runtime_allows() -> None:
    async def scenario() -> None:
        settings = Settings(max_concurrent_executions=1)
        async with entries(EntryPoint("one", job), EntryPoint("two", job), settings=settings) as box:
            rt = await box.open()
            for name in "abc":
                await rt.trigger("one", {"name": f"one {name}"})
                await rt.trigger("two", {"name": f"two {name}"})
            await rt.start(job, "beside")  # what comes in by no entry point is not counted

            await box.clock.advance(0.5)
            assert sorted(STARTED) == ["beside", "one a"]
            await box.clock.advance(1)
            GATE.most = 0
            await to_the_end(box)
            assert STARTED[2:] == ["two a", "one b", "two b", "one c", "two c"]
            assert GATE.most == 1

    play(scenario)


@pytest.mark.row("A3-09")
def test_runs_that_wait_come_by_priority_across_entry_points_and_then_in_the_order_of_triggering() -> None:
    async def scenario() -> None:
        settings = Settings(max_concurrent_executions=1)
        points = (EntryPoint("one", job), EntryPoint("two", job, priority=3))
        async with entries(*points, settings=settings) as box:
            rt = await box.open()
            await rt.trigger("one", {"name": "first"})
            await box.clock.advance(0.1)
            for priority in (0, 5, 1):
                await rt.trigger("one", {"name": str(priority)}, priority=priority)
            await rt.trigger("two", {"name": "two"})
            await to_the_end(box)

    play(scenario)

    assert STARTED == ["first", "5", "two", "1", "0"]


# Opening and closing


@pytest.mark.row("A3-16")
def test_closing_ends_the_code_of_every_run_and_leaves_no_task_and_closing_again_does_nothing() -> None:
    async def scenario() -> None:
        before = asyncio.all_tasks()
        disk, clock = MemoryDisk(), TestClock()
        point = EntryPoint("one", job)
        rt = await Runtime("memory", log=disk.open, clock=clock, workflows=[job], entry_points=[point]).open()
        runs = [await rt.trigger("one", {"name": name}) for name in "abc"]
        waiter = asyncio.ensure_future(rt.entry_points.wait("one", runs[0]))
        await clock.advance(0.5)
        assert GATE.now == 3

        await rt.close()

        assert (rt.is_running, GATE.now) == (False, 0)
        with pytest.raises(RuntimeError, match="was closed"):
            await waiter
        assert asyncio.all_tasks() == before
        await rt.close()
        async with Runtime("memory", log=disk.open, clock=clock, workflows=[job], entry_points=[point]) as again:
            await clock.advance(2)
            assert [(await again.run(run).status()).status for run in runs] == ["completed"] * 3

    play(scenario)


@pytest.mark.row("A3-17")
def test_opening_twice_at_the_same_time_opens_once_and_one_event_starts_one_run() -> None:
    async def scenario() -> None:
        disk, clock = MemoryDisk(), TestClock()
        point = EntryPoint("one", heard, OnEvent("news"))
        rt = Runtime("memory", log=disk.open, clock=clock, workflows=[heard], entry_points=[point])

        first, second = await asyncio.gather(rt.open(), rt.open())
        assert (first, second) == (rt, rt)
        assert await rt.open() is rt
        await rt.publish("news", 1)
        await clock.advance(1)

        opened = [event for event in await gate_of(rt, "one") if event.type == "entry-opened"]
        assert (STARTED, len(opened)) == (["news"], 1)
        await rt.close()

    play(scenario)


@pytest.mark.row("A3-18")
def test_what_fails_to_open_leaves_nothing_behind_and_opens_later() -> None:
    async def scenario() -> None:
        before = asyncio.all_tasks()
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            settings = Settings(webhook_port=taken.getsockname()[1])
            rt = Runtime(
                "memory",
                log=MemoryDisk().open,
                clock=TestClock(),
                workflows=[job, heard],
                entry_points=[EntryPoint("one", job), EntryPoint("two", heard, OnEvent("news"))],
                webhooks=[WebhookRoute(source="s", path="/s")],
                settings=settings,
            )
            with pytest.raises(UsageError, match="already in use"):
                await rt.open()
            assert (rt.is_running,) == (False,)
            assert asyncio.all_tasks() == before
            with pytest.raises(RuntimeError, match="not running"):
                await rt.trigger("one")

        await rt.open()
        assert rt.is_running
        await rt.trigger("one")
        await rt.close()
        assert asyncio.all_tasks() == before

    play(scenario)


@pytest.mark.row("A3-18")
def test_an_event_type_that_can_be_none_is_refused_before_the_opening_and_leaves_nothing_behind() -> None:
    async def scenario() -> None:
        before = asyncio.all_tasks()
        rt = runtime()

        with pytest.raises(UsageError, match="the trigger of entry point one: the type of an event is"):
            rt.entry_points.register(EntryPoint("one", heard, OnEvent("no type!")))

        assert (rt.entry_points.list(), rt.is_running, asyncio.all_tasks()) == ((), False, before)
        rt.entry_points.register(EntryPoint("one", heard, OnEvent("a.type")))
        await rt.open()
        assert rt.is_running
        await rt.close()

    play(scenario)


@pytest.mark.parametrize("how", ["closed", "cancelled"])
def test_an_opening_that_is_cut_short_at_any_turn_of_the_loop_leaves_nothing_behind(how: str) -> None:
    async def scenario() -> None:
        before, clock, disk = asyncio.all_tasks(), TestClock(), MemoryDisk()
        points = [EntryPoint("one", job), EntryPoint("two", heard, OnEvent("news"))]
        for turns in range(60):
            rt = Runtime("memory", log=disk.open, clock=clock, workflows=[job, heard], entry_points=points)
            opening = asyncio.create_task(rt.open())
            for _ in range(turns):
                await asyncio.sleep(0)

            if how == "cancelled":
                opening.cancel()
                await asyncio.wait([opening])
            else:
                await rt.close()
                await opening
            await rt.close()

            assert (rt.is_running, asyncio.all_tasks(), clock.pending) == (False, before, ()), turns

    play(scenario)


def test_the_data_of_a_trigger_are_arguments_by_name() -> None:
    async def scenario() -> None:
        async with entries(EntryPoint("one", job)) as box:
            rt = await box.open()
            wrong: Any = ["o-1"]

            with pytest.raises(UsageError, match="data is a mapping such as a dict or None, not"):
                await rt.trigger("one", wrong)

            assert (await rt.entry_points.statistics())["one"]["total_executions"] == 0

    play(scenario)


def test_a_close_that_is_cancelled_at_any_turn_of_the_loop_leaves_nothing_behind() -> None:
    async def scenario() -> None:
        before, clock, disk, points = asyncio.all_tasks(), TestClock(), MemoryDisk(), [EntryPoint("one", job)]
        gate = asyncio.Event()

        async def wait_for_it(_: LogEvent) -> None:
            await gate.wait()

        for turns in range(60):
            rt = Runtime("memory", log=disk.open, clock=clock, workflows=[job], entry_points=points)
            rt.subscribe(wait_for_it, "news", name="slow")
            await rt.open()
            await rt.trigger("one")
            await rt.publish("news", turns)

            closing = asyncio.create_task(rt.close())
            for _ in range(turns):
                await asyncio.sleep(0)
            closing.cancel()
            await asyncio.wait([closing])
            await rt.close()

            assert (rt.is_running, asyncio.all_tasks(), clock.pending) == (False, before, ()), turns

    play(scenario)


@pytest.mark.row("A3-103")
def test_the_times_that_an_application_is_told_are_aware_and_utc() -> None:
    async def scenario() -> None:
        async with entries(EntryPoint("one", job)) as box:
            rt = await box.open()
            began = datetime.fromtimestamp(box.clock.moment().now / 1_000_000, UTC)
            run = await rt.trigger("one")
            await rt.publish("news", 1)
            await box.clock.advance(2)

            found = await rt.get_execution_result("one", run)
            published = (await rt.events.history("news"))[0]

            assert found is not None
            assert [found.started_at, found.ended_at] == [began, began + timedelta(seconds=1)]
            for at in (found.started_at, found.ended_at, published.at):
                assert at is not None
                assert at.tzinfo is UTC
            assert str(published.to_dict()["timestamp"]).endswith("+00:00")

    play(scenario)


@pytest.mark.row("A3-104")
def test_the_figures_have_the_keys_of_document_003_and_count_every_execution_ever() -> None:
    async def scenario() -> None:
        async with entries(EntryPoint("one", job, name="One", max_concurrent=2), EntryPoint("two", job)) as box:
            rt = await box.open()
            for name in "abc":
                await rt.trigger("one", {"name": name})
            await rt.cancel_execution("one", await rt.trigger("one", {"name": "never"}))
            await box.clock.advance(0.5)
            before = (await rt.get_stats())["streams"]["one"]
            rt = await box.crash_and_reopen()
            await to_the_end(box)
            await rt.trigger("one", {"name": "d"})
            await box.clock.advance(0.1)

            stats = msgspec.structs.asdict(await rt.statistics())

            names = {
                "running", "entry_points", "streams", "goal_id", "outcome_aggregator", "event_bus", "state_manager",
            }  # fmt: skip
            assert {name: stats[name] for name in names} == {
                name: value for name, value in (await rt.get_stats()).items() if name in names
            }
            assert stats["outcome_aggregator"].keys() == {
                "total_decisions", "successful_outcomes", "failed_outcomes", "constraint_violations",
                "criteria_tracked", "streams_seen",
            }  # fmt: skip
            assert stats["event_bus"].keys() >= {"total_events", "subscriptions"}
            assert stats["state_manager"].keys() == {
                "global_keys", "stream_count", "execution_count", "total_changes", "version",
            }  # fmt: skip
            assert (stats["running"], stats["entry_points"], stats["goal_id"]) == (True, 2, None)
            assert before["status_counts"] == {
                "pending": 1, "running": 2, "waiting": 0, "paused": 0, "completed": 0, "failed": 0, "cancelled": 1,
            }  # fmt: skip
            assert stats["streams"]["one"] == {
                "stream_id": "one", "entry_point": "One", "running": True, "total_executions": 5,
                "active_executions": 1, "completed_executions": 4, "refused_triggers": 0, "max_concurrent": 2,
                "status_counts": {
                    "pending": 0, "running": 1, "waiting": 0, "paused": 0, "completed": 3, "failed": 0, "cancelled": 1,
                },
                "available_slots": 1,
            }  # fmt: skip
            assert stats["streams"]["two"]["total_executions"] == 0

    play(scenario)


def test_a_runtime_without_entry_points_records_nothing_of_them() -> None:
    async def scenario() -> None:
        async with box_with(job) as box:
            rt = await box.open()
            handle = await rt.start(job, "a")
            await box.clock.advance(2)
            assert await facts(rt, handle.id) == ["run-started", "timer-set", "timer-fired", "run-completed"]
            assert rt.entry_points.shared() is None

    play(scenario)
