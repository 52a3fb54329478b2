"""Questions to a run that goes on as another one: they are asked again of the one that it is now.

Only what the run says is for its successor is passed on. Invariant: the answer is the one of the run that gave it, and
as durable as that.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from perdure.actors.kernel.answer import Answer
from perdure.actors.workflows.errors import RunContinuedError

Ask = Callable[[str], Answer[Any]]
"""Asks the run of that id."""


def ask_following(ask: Ask, run: str) -> Answer[Any]:
    """Ask a run, and while it says that it goes on as another one, that one."""
    answer = _Following(ask)
    answer.ask(run)
    return answer


class _Following(Answer[Any]):
    """The answer of the run that the question is for."""

    # Not two functions that call each other: every question would leave them to the garbage collector.
    __slots__ = ("_ask",)

    def __init__(self, ask: Ask) -> None:
        super().__init__()
        self._ask = ask

    def ask(self, run: str) -> None:
        """Ask a run; what it says is the answer, unless it says to ask another one."""
        answer = self._ask(run)
        answer.on_settled(partial(self._pass_on, answer))

    def _pass_on(self, answer: Answer[Any]) -> None:
        try:
            value = answer.get()
        except RunContinuedError as error:
            self.ask(error.following)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the asker's
            self.set_error(error)
        else:
            self.set(value)
