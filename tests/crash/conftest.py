"""Asserts in what the crash tests share explain themselves as those in tests do."""

import pytest

pytest.register_assert_rewrite("tests.crash.oracle", "tests.crash.naive_breaker")
