"""The SQL of the views that a runtime makes a part of the file: a public contract, see docs/log.md."""

from importlib import resources


def views() -> str:
    """Return the `CREATE VIEW` statements."""
    return resources.files("perdure.runtime").joinpath("views.sql").read_text(encoding="utf-8")
