"""What can go wrong between two programs, by what a caller does about it."""

from perdure.store.errors import PerdureError


class ServingError(PerdureError):
    """Base of the errors of requests to other servers."""

    server: str
    detail: str


class NotReachedError(ServingError):
    """The request did not reach the server: nothing was done, and it may be made again."""

    message = "{server} was not reached: {detail}"


class NoAnswerError(ServingError):
    """The request may have reached the server, and no answer came: whether it was done is not known."""

    message = "{server} did not answer: {detail}"


class UnusableReplyError(ServingError):
    """The server answered with something else than was asked for."""

    message = "{server} sent no usable reply: {detail}"
    status: int
