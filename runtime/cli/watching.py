"""Showing progress on stderr while runs are watched: a live display on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Final

import click
from rich.console import Group
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from perdure.runtime.cli.output import clock_time, console, duration, is_terminal, now_micros
from perdure.runtime.cli.progress import Progress
from perdure.store.records import Recorded
from perdure.store.wording import printable

REFRESH_SECONDS: Final = 0.2
_PLAIN_EVERY: Final = 5_000_000
"""Microseconds between two lines with figures alone, where there is no terminal."""
_SHOWN: Final = 5


class Watcher:
    """Tells a person of events as they come."""

    def __init__(self, progress: Progress, title: str, live: Live | None) -> None:
        self.progress = progress
        self.title = title
        self._live = live
        self._started = now_micros()
        self._said_at = self._started
        self._spinner = Spinner("dots", style="cyan")

    def add(self, event: Recorded) -> None:
        """Take in an event that concerns what is watched."""
        said = self.progress.add(event)
        if said is not None:
            self.say(said, event.at)

    def say(self, text: str, at: int | None = None) -> None:
        """Say one line."""
        moment = now_micros() if at is None else at
        line = f"{clock_time(moment, now=moment)}  {printable(text)}"
        self._said_at = now_micros()
        if self._live is None:
            click.echo(line, err=True)
        else:
            self._live.console.print(Text(line), soft_wrap=True)

    def refresh(self) -> None:
        """Show how things are now."""
        if self._live is not None:
            self._live.update(self._draw(), refresh=True)
        elif now_micros() - self._said_at >= _PLAIN_EVERY:
            self.say(self.progress.figures())

    def _draw(self) -> Group:
        progress, now = self.progress, now_micros()
        head = f"{self.title}  {progress.figures()}  {duration((now - self._started) // 1_000_000 * 1_000_000)}"
        self._spinner.update(text=Text(printable(head), no_wrap=True, overflow="ellipsis"))
        lines = [
            *(f"circuit of {tool} is {reason}" for tool, reason in list(progress.circuits.items())[:_SHOWN]),
            *self._flights(now),
            *(f"{key[1]} sleeps, {duration(due - now)} left" for key, due in list(progress.sleeps.items())[:_SHOWN]),
            *(
                f"{run} sleeps until {clock_time(wake, now=now)}"
                for run, wake in list(progress.parked.items())[:_SHOWN]
                if wake is not None and wake > now
            ),
        ]
        return Group(
            self._spinner, *(Text(f"  {printable(x)}", "dim", no_wrap=True, overflow="ellipsis") for x in lines)
        )

    def _flights(self, now: int) -> Iterator[str]:
        flights = sorted(self.progress.flights.items(), key=lambda item: item[1].since)
        for (_, step), flight in flights[:_SHOWN]:
            attempt = f", attempt {flight.attempt}" if flight.attempt > 1 else ""
            if flight.due is None:
                yield f"{step}{attempt}, for {duration(now - flight.since)}"
            else:
                yield f"{step}{attempt} in {duration(flight.due - now)}"
        if len(flights) > _SHOWN:
            yield f"… and {len(flights) - _SHOWN} more"


@contextmanager
def watching(progress: Progress, title: str) -> Generator[Watcher]:
    """Show *progress* until the block ends."""
    if not is_terminal(sys.stderr):
        yield Watcher(progress, title, None)
        return
    with Live(console=console(sys.stderr), auto_refresh=False, transient=True) as live:
        yield Watcher(progress, title, live)
