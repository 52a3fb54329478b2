"""How an error that nobody waits for is told in a line of the log.

Not here: who is told of it. Invariant: an account has the places in the code and what the error says, and no value of
a variable. Structlog's console renderer, where it is given the error itself, prints the variables of every frame:
arguments and results as the code has them, passwords too.
"""

import traceback


def account_of(error: BaseException) -> str:
    """Return the traceback of *error* as text, for `_log.error(…, exception=account_of(error))`."""
    return "".join(traceback.format_exception(error)).rstrip("\n")
