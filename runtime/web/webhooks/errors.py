"""What can go wrong with a webhook that goes out, by what its sender does about it."""

from perdure.actors.tools.errors import ToolError


class WebhookError(ToolError):
    """Base of the errors of webhooks that go out; the URL, which may let in by itself, is not in them."""

    host: str
    detail: str


class WebhookNotDeliveredError(WebhookError):
    """The receiver was not reached, did not answer, or cannot take it now (408, 425, 429, 5xx): it is sent again."""

    message = "{host} did not take the webhook: {detail}"
    retry_after: str | None
    """What the receiver asks for, as it said it."""


class WebhookRefusedError(WebhookError):
    """The receiver does not want it (3xx, any other 4xx): sent again it would be refused again."""

    message = "{host} refused the webhook: {detail}"
    status: int
