"""The commands by name: in which module each is, and what it does in a line.

A module is loaded when its command is called, so that a look at a log does not wait for the runtime to load, nor
`--help` for anything. Invariant: the line is what the command itself says of it.
"""

import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import click

COMMANDS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "run": ("runs", "Start a run and print its result."),
        "start": ("starting", "Record a run, to be run by the log's owner or by resume."),
        "resume": ("runs", "Bring back open runs and wait for them, or let a paused run go on."),
        "serve": ("serving", "Serve an application: entry points, schedules, webhooks and the HTTP API."),
        "ps": ("reading", "List open runs and what they wait for."),
        "show": ("reading", "Show the timeline of a run."),
        "log": ("logs", "Print events, the result of a query, or a large value."),
        "tail": ("logs", "Follow the log."),
        "signal": ("people", "Send a signal to a run."),
        "trigger": ("entries", "Start a run by an entry point."),
        "publish": ("publishing", "Publish an event, for the runs that wait for its type."),
        "questions": ("people", "List the questions that runs ask people."),
        "answer": ("people", "Answer a question of a run, or approve or reject a call."),
        "settle": ("verdicts", "Say what became of a step, or of a call in a slot, that is in doubt."),
        "cancel": ("verdicts", "Ask for a run to be cancelled."),
        "pause": ("steering", "Stop a run where it is, until it is resumed."),
        "retry": ("steering", "Try a failed or blocked run again."),
        "fork": ("steering", "Start a run that begins where another one was before a step."),
        "checkpoints": ("conversations", "List the places of a run from which another one can begin."),
        "conversations": ("conversations", "Show the conversations, or the runs and artifacts of one."),
        "entries": ("entries", "List the entry points."),
        "queues": ("queues", "Show the queues that runs wait in."),
        "subscriptions": ("subscriptions", "Show the durable subscriptions and how far they are."),
        "dead-letters": ("subscriptions", "Show the events that handlers failed at for good."),
        "redrive": ("subscriptions", "Have a dead letter delivered once more."),
        "schedules": ("schedules", "Show the schedules; pause, resume or fire one."),
        "state": ("state", "Show the values that runs share."),
        "goals": ("goals", "List goals and how far they are."),
        "goal": ("goals", "Show how far a goal is, and why."),
        "tools": ("tools", "List tools: their circuits, calls and times."),
        "breakers": ("breakers", "List circuits; open, close, disable or simulate them."),
        "slots": ("slots", "List slots; look into one, empty it, take it out of use."),
        "artifacts": ("artifacts", "List and get files of a trajectory's workspace."),
        "check": ("checking", "Say which open runs new code fits, and change nothing."),
        "verify": ("upkeep", "Recompute everything that a log claims."),
        "doctor": ("upkeep", "Say how a log and this machine are."),
        "tool-server": ("servers", "Serve the tools of a file to executors elsewhere."),
        "executor-server": ("servers", "Serve slots and tools to trajectories elsewhere."),
        "sandbox-server": ("servers", "Serve slots to executors elsewhere."),
    }
)
"""Module and line, in the order in which they are used."""


class Commands(click.Group):
    """Has every command, and loads the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of their use."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, loaded; None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        module = importlib.import_module(f"perdure.runtime.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the names and their lines."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


def unloaded() -> dict[str, click.Command]:
    """Return placeholders for the commands, from which click suggests a name for a mistyped one."""
    return {name: click.Command(name, short_help=line) for name, (_, line) in COMMANDS.items()}
