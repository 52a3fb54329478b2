"""Questions to a run that goes on as another one: they are asked again of the one that it is now.

Only what the run says is for its successor is passed on. Invariant: the answer is the one of the run that gave it, and
as durable as that.
"""

from collections.abc import Callable
from typing import Any

from perdure.actors.kernel.answer import Answer
from perdure.actors.workflows.errors import RunContinuedError

Ask = Callable[[str], Answer[Any]]
"""Asks the run of that id."""


def ask_following(ask: Ask, run: str) -> Answer[Any]:
    """Ask a run, and while it says that it goes on as another one, that one."""
    outer: Answer[Any] = Answer()

    def pass_on(inner: Answer[Any]) -> None:
        try:
            value = inner.get()
        except RunContinuedError as error:
            _then(ask(error.following), pass_on)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the asker's
            outer.set_error(error)
        else:
            outer.set(value)

    _then(ask(run), pass_on)
    return outer


def _then(answer: Answer[Any], callback: Callable[[Answer[Any]], None]) -> None:
    answer.on_settled(lambda: callback(answer))
