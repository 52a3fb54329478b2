"""How things look: pure functions, and tables where there is no terminal."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.runtime.cli.output import (
    Column,
    Span,
    age,
    clock_time,
    count,
    duration,
    fit,
    iso,
    print_table,
    shorten,
    size,
)
from perdure.store.wording import printable

SECOND = 1_000_000


@pytest.mark.parametrize(
    ("micros", "text"),
    [
        (-5, "0 µs"),
        (0, "0 µs"),
        (999, "999 µs"),
        (1_000, "1 ms"),
        (999_499, "999 ms"),
        (999_500, "1 s"),
        (1_940_000, "1.9 s"),
        (59_940_000, "59.9 s"),
        (59_960_000, "1 min"),
        (61 * SECOND, "1 min 1 s"),
        (3_600 * SECOND, "1 h"),
        (3_660 * SECOND, "1 h 1 min"),
        (90_000 * SECOND, "1 d 1 h"),
    ],
)
def test_a_duration_is_told_in_the_units_that_matter(micros: int, text: str) -> None:
    assert duration(micros) == text


@pytest.mark.parametrize(("micros", "text"), [(3, "now"), (1_900_000, "1 s"), (150 * SECOND, "2 min")])
def test_an_age_is_told_in_one_unit(micros: int, text: str) -> None:
    assert age(micros) == text


@pytest.mark.parametrize(
    ("given_bytes", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 * 2**20, "3.0 MiB"), (2**50, "1024.0 TiB")],
)
def test_a_size_is_told_in_binary_units(given_bytes: int, text: str) -> None:
    assert size(given_bytes) == text


@pytest.mark.parametrize(("number", "text"), [(0, "0 runs"), (1, "1 run"), (1200, "1,200 runs")])
def test_a_count_agrees_with_its_noun(number: int, text: str) -> None:
    assert count(number, "run") == text


@given(st.text())
def test_no_control_character_reaches_a_terminal(text: str) -> None:
    shown = printable(text)

    assert not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in shown)


def test_an_escape_sequence_is_made_visible() -> None:
    assert printable("a\x1b[31mred\nnext") == "a\\x1b[31mred ↵ next"


@given(st.integers(0, 4_102_444_800_000_000))
def test_a_time_in_iso_keeps_every_microsecond_and_its_offset(micros: int) -> None:
    text = iso(micros)

    assert text is not None
    assert int(text[20:26]) == micros % SECOND
    assert text[26] in "+-"


def test_a_time_of_today_is_told_without_its_date() -> None:
    assert clock_time(SECOND, now=2 * SECOND) == clock_time(SECOND)[11:]


def test_a_time_of_another_day_is_told_with_its_date() -> None:
    assert clock_time(SECOND, now=SECOND * 86_400 * 3) == clock_time(SECOND)


def test_a_short_text_is_not_cut() -> None:
    assert shorten("abc", 3) == "abc"


def test_a_long_text_is_cut_to_the_width() -> None:
    assert shorten("abcdef", 4) == "abc…"


@given(st.lists(st.tuples(st.integers(1, 200), st.booleans()), min_size=1, max_size=6), st.integers(20, 200))
def test_fixed_columns_keep_their_widths_and_flexible_ones_give_only_what_is_missing(
    columns: list[tuple[int, bool]], available: int
) -> None:
    widths, flexible = [c[0] for c in columns], [c[1] for c in columns]

    fitted = fit(widths, flexible, available)

    assert all(new == old for new, old, gives in zip(fitted, widths, flexible, strict=True) if not gives)
    assert all(min(old, 8) <= new <= old for new, old in zip(fitted, widths, strict=True))
    total = sum(fitted) + 2 * (len(fitted) - 1)
    if fitted != widths:
        at_least = all(new <= 8 or new == old for new, old in zip(fitted, widths, strict=True))
        assert total == available or (total > available and at_least)


def test_a_table_without_a_terminal_is_aligned_and_whole(capsys: pytest.CaptureFixture[str]) -> None:
    columns = (Column("NAME", fixed=False), Column("N", right=True))

    print_table(columns, [("a" * 300, "1"), ("b", "22"), Span("  ", "a remark"), ("c\n[bold]", "3")])

    header, *lines = capsys.readouterr().out.splitlines()
    assert header == "NAME".ljust(300) + "   N"
    assert lines[0] == "a" * 300 + "   1"
    assert lines[1] == "b".ljust(300) + "  22"
    assert lines[2] == "  a remark"
    assert lines[3].startswith("c ↵ [bold]")
    assert [len(one) == len(other) for one, other in pairwise([lines[0], lines[1], lines[3]])] == [True, True]
