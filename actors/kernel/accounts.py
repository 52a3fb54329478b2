"""How an error is told where nobody can catch it: in a line of the log, or in an event.

Not here: who is told of it. Invariant: an account has the places in the code and what the error says, and no value of
a variable. Structlog's console renderer, where it is given the error itself, prints the variables of every frame:
arguments and results as the code has them, passwords too.
"""

import sys
import traceback
from pathlib import PurePath


def account_of(error: BaseException) -> str:
    """Return the traceback of *error* as text, for `_log.error(…, exception=account_of(error))`."""
    return "".join(traceback.format_exception(error)).rstrip("\n")


def place_of(error: BaseException) -> str:
    """Return the innermost line of the application's code that *error* went through, as `shop.py:12 in pay`.

    The application's code is what is neither Perdure nor the standard library nor an installed package. Of the file
    only the name is told: where it lies differs from machine to machine. Empty if no such line had to do with it.
    """
    frames = error.__traceback__
    found = ""
    while frames is not None:
        code = frames.tb_frame.f_code
        if _is_of_the_application(str(frames.tb_frame.f_globals.get("__name__", "")), code.co_filename):
            found = f"{PurePath(code.co_filename).name}:{frames.tb_lineno} in {code.co_qualname}"
        frames = frames.tb_next
    return found


def _is_of_the_application(module: str, file: str) -> bool:
    package = module.partition(".")[0]
    return package != "perdure" and package not in sys.stdlib_module_names and "site-packages" not in file
