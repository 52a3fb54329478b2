"""What is shown of others' text: nothing that moves a cursor, turns text around or hides; people's writing as it is."""

import json
import pickle
import unicodedata

import pytest

from perdure import PerdureError, UnknownRunError, UsageError
from perdure.store.errors import LogNotFoundError
from perdure.store.wording import brief, harmless, harmless_json, printable, shown

CONTROLS = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"]
TURNING = [chr(code) for code in (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))]
HIDDEN = [chr(code) for code in (
    0xAD, 0x34F, 0x115F, 0x180E, 0x200B, 0x200C, 0x200D, 0x2028, 0x2029, *range(0x2060, 0x2066), *range(0x206A, 0x2070),
    0x3164, 0xFEFF, 0xFFA0, 0xFFF9, 0xFFFB, 0xE0001, 0xE0061, 0xE007F, 0xE0100,
)]  # fmt: skip
SURROGATES = ["\ud800", "\udc80"]


@pytest.mark.parametrize("sign", [*CONTROLS, *TURNING, *HIDDEN, *SURROGATES], ids=lambda sign: f"{ord(sign):04x}")
def test_what_could_not_be_seen_in_a_name_is_made_visible(sign: str) -> None:
    told = printable(f"ad{sign}min") if sign != "\U000e0100" else printable(f"{sign}{sign}")

    assert sign not in told
    assert f"{ord(sign):x}" in told
    assert told.isascii()


@pytest.mark.parametrize(
    "text",
    [
        "👨\u200d👩\u200d👧",
        "👩🏽\u200d💻",
        "❤\ufe0f\u200d🔥",
        "1\ufe0f\u20e3",
        "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
        "می\u200cخواهم",  # noqa: RUF001 - the point
        "क\u094d\u200dष",
        "שלום\u200f!",
        "السلام عليكم",
        "日本語",
        "Grüße, naïve façade",
    ],
)
def test_what_people_write_stays_as_they_wrote_it(text: str) -> None:
    assert printable(text) == text
    assert str(UsageError(f"the text {text}")) == f"the text {text}"


def test_a_second_selector_of_a_variant_is_shown_since_text_can_be_hidden_in_many() -> None:
    assert printable("a\ufe0f\ufe01\ufe02") == "a\ufe0f\\ufe01\\ufe02"


def test_a_tag_that_ends_no_flag_is_shown() -> None:
    assert printable("🏴\U000e0067 x") == "🏴\\U000e0067 x"


def test_lines_stay_lines_where_there_may_be_several() -> None:
    assert printable("a\nb\tc") == "a ↵ b c"
    assert harmless("a\nb\tc\x1b[2J") == "a\nb\tc\\x1b[2J"


def test_no_character_of_the_class_of_formats_comes_through_beside_latin_but_those_that_are_seen() -> None:
    every = (chr(code) for code in range(0x110000))
    formats = [sign for sign in every if unicodedata.category(sign) in ("Cc", "Cf", "Zl", "Zp") and sign not in "\n\t"]

    through = [sign for sign in formats if sign in printable(f"a{sign}b")]

    assert all(0x600 <= ord(sign) <= 0x8E2 or 0x110BD <= ord(sign) <= 0x1343F for sign in through), through


def test_an_id_is_repeated_as_far_as_it_takes_to_know_it() -> None:
    told = str(UnknownRunError(run="x" * 100_000))

    assert len(told) < 200
    assert told.startswith("there is no run 'xxxx")
    assert told.endswith("… in this log")


def test_the_data_of_an_error_are_as_they_were_given() -> None:
    error = UnknownRunError(run="x" * 1_000)

    assert error.run == "x" * 1_000
    assert pickle.loads(pickle.dumps(error)).run == error.run  # noqa: S301 - the test's own


@pytest.mark.parametrize("value", ["y" * 5_000, "it's " * 900, 'a "b" ' * 900, "\x1b[31m" * 900])
def test_a_value_that_a_mistake_repeats_is_cut(value: str) -> None:
    told = str(UsageError(f"a name is 1 to 60 characters, not {value!r}: choose the caller's"))

    assert len(told) < 300
    assert told.endswith(": choose the caller's")


def test_what_has_no_blank_is_cut_too_and_so_is_all_that_is_too_long() -> None:
    assert len(str(LogNotFoundError(path="/p" * 4_000))) < 500
    assert len(brief("not " * 5_000)) <= 2_000


def test_what_an_application_says_is_told_in_full() -> None:
    class RefusedError(PerdureError):
        message = "refused: {reason}"

    assert str(RefusedError(reason="no " * 5_000)) == "refused: " + "no " * 5_000


def test_prose_with_quotes_is_not_cut() -> None:
    text = "the caller's runs' ends: 'a', 'b', \"c\". " * 20

    assert brief(text) == text


@pytest.mark.parametrize("text", ["\x9b31m", "a\u2066b\u202e", "\U000e0061", "x\x7f", "👨\u200d👩", "שלום"])
def test_json_for_a_terminal_means_the_same(text: str) -> None:
    told = harmless_json(json.dumps({"a": text}, ensure_ascii=False, indent=2))

    assert json.loads(told) == {"a": text}
    assert printable(told.replace("\n", "")) == told.replace("\n", "")


def test_an_error_moves_no_cursor() -> None:
    assert str(UsageError("\x1b]0;title\x07 \u202eevil\u2066")) == "\\x1b]0;title\\x07 \\u202eevil\\u2066"


def test_a_value_whose_own_code_fails_is_told_by_its_type() -> None:
    class Sulks:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    assert shown(Sulks()) == "something of the type Sulks"
    assert len(shown("x" * 10**6)) <= 100
