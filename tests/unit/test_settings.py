"""Settings that cannot be are refused where they are made, and not in the midst of a run."""

from datetime import timedelta
from typing import Any

import pytest

from perdure import Settings, UsageError


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"drain": 5}, "Expected `duration`, got `int`"),
        ({"park_after": timedelta(-1)}, "not negative"),
        ({"interrupted": "never"}, "Invalid enum value 'never'"),
        ({"socket": 1}, "Expected `bool`"),
        ({"redacted_keys": "pin"}, "Expected `array`"),
        ({"max_concurrent_executions": 0}, "at least 1"),
        ({"max_trigger_depth": "deep"}, "Expected `int`"),
        ({"execution_result_ttl_seconds": -1}, "not negative"),
        ({"webhook_port": 99_999}, "a port is at most 65535"),
        ({"webhook_port": True}, "got `bool`"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_its_name(given: dict[str, Any], fault: str) -> None:
    with pytest.raises(UsageError, match=rf"Settings\({next(iter(given))}=.*{fault}"):
        Settings(**given)


@pytest.mark.parametrize(
    "given",
    [
        {"park_after": timedelta(0)},
        {"max_active_runs": 0},
        {"webhook_port": None},
        {"execution_result_ttl_seconds": 60},
        {"execution_result_max": 0},
    ],
)
def test_the_ends_of_what_can_be_are_taken(given: dict[str, Any]) -> None:
    settings = Settings(**given)

    assert {name: getattr(settings, name) for name in given} == given
