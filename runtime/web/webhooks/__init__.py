"""Webhooks: deliveries that come in over HTTP and are recorded before they are answered, and those that go out."""
