"""How text of others is shown: harmless, short, and as readable as before. Pure.

Not here: colours, tables, what a message says. The invariant: what comes out moves no cursor, turns no text around and
hides nothing; what people write stays as they wrote it: emoji that are joined, Arabic, Hebrew, Persian, Hindi.

The classes are those of UTR #36 and UAX #9, and the variation selectors and tags, in which text can be hidden that
nobody sees. Characters that some scripts need are let through where they stand beside such a script, and nowhere else.
"""

import json
import re
import unicodedata
from typing import Final

MOST_QUOTED: Final = 100
"""Characters of a value that are shown: enough to know it by."""
MOST_WORD: Final = 300
"""Of what has no blank in it, such as an id or a path."""
MOST_TEXT: Final = 2_000
"""Of a whole message."""

_JOINERS: Final = frozenset("\u200c\u200d")
_MARKS: Final = frozenset("\u061c\u200e\u200f")
"""Of direction: beside a letter that is written from the right they only keep its punctuation in place."""
_FLAG: Final = "\U0001f3f4"
_NAMED: Final = {"\n": " ↵ ", "\t": " "}
_SUSPECT: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)
_QUOTED: Final = re.compile(rf"(?<![^\W_])(['\"])((?:(?!\1)[^\\]|\\.){{{MOST_QUOTED + 1},}})\1", re.DOTALL)
_WORD: Final = re.compile(rf"\S{{{MOST_WORD + 1},}}")


def printable(text: str) -> str:
    """Return *text* on one line, with what could not be seen, or would move others, made visible."""
    return text if text.isascii() and text.isprintable() else _SUSPECT.sub(_seen, text)


def harmless(text: str) -> str:
    """Return *text* as `printable`, on as many lines as it has."""
    return text if text.isascii() and text.isprintable() else _SUSPECT.sub(_seen_on_lines, text)


def harmless_json(text: str) -> str:
    """Return a JSON text that means the same, without a character that `printable` would show by its number."""
    return text if text.isascii() and text.isprintable() else _SUSPECT.sub(_seen_in_json, text)


def shown(value: object) -> str:
    """Return how a value is told of in a message: as its source would be written, no longer than needed to know it."""
    try:
        text = repr(value[: MOST_QUOTED + 1] if isinstance(value, (str, bytes)) else value)
    except Exception:  # noqa: BLE001 - a message is told whatever the value's own code does
        return f"something of the type {type(value).__name__}"
    return cut(printable(text), MOST_QUOTED)


def cut(text: str, most: int) -> str:
    """Return the beginning of *text*, with a sign that there is more."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def brief(text: str) -> str:
    """Return a message with what it repeats of others cut: quoted values, words that do not end, then the whole."""
    if len(text) <= MOST_QUOTED:
        return text
    text = _QUOTED.sub(lambda found: f"{found[1]}{cut(found[2], MOST_QUOTED)}{found[1]}", text)
    text = _WORD.sub(lambda found: cut(found[0], MOST_WORD), text)
    return cut(text, MOST_TEXT)


def _seen_on_lines(found: re.Match[str]) -> str:
    return found[0] if found[0] in _NAMED else _seen(found)


def _seen_in_json(found: re.Match[str]) -> str:
    told = _seen_on_lines(found)
    return told if told == found[0] else json.dumps(found[0])[1:-1]  # in JSON, \x and \U are no escapes


def _seen(found: re.Match[str]) -> str:
    sign = found[0]
    if sign in _NAMED:
        return _NAMED[sign]
    text, at = found.string, found.start()
    before, after = text[at - 1 : at] if at else "", text[at + 1 : at + 2]
    return sign if _belongs(sign, before, after) or _is_of_a_flag(text, at) else _escaped(sign)


def _escaped(sign: str) -> str:
    code = ord(sign)
    if code <= 0xFF:  # noqa: PLR2004 - what two digits hold
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004 - what four digits hold


def _belongs(sign: str, before: str, after: str) -> bool:
    """Return whether a script, or an emoji, is written with *sign* in this place."""
    if sign in _JOINERS:
        return _is_joined(before) and _is_joined(after)
    if sign in _MARKS:
        return any(other and unicodedata.bidirectional(other) in ("R", "AL") for other in (before, after))
    if "\ufe00" <= sign <= "\ufe0f" or "\U000e0100" <= sign <= "\U000e01ef":
        return before != "" and not before.isspace() and _SUSPECT.match(before) is None
    return False


def _is_joined(other: str) -> bool:
    """Return whether a character is one that joiners join: of an emoji, or of a script beyond Latin."""
    if other in ("", "\ufe0f"):
        return other != ""
    return other > "\u0590" and unicodedata.category(other) in ("Lo", "Mn", "Mc", "So", "Sk")


def _is_of_a_flag(text: str, at: int) -> bool:
    """Return whether the place is in the tags of a flag, such as Scotland's."""
    if not "\U000e0020" <= text[at] <= "\U000e007f":
        return False
    begin = text.rfind(_FLAG, max(0, at - 8), at)
    end = text.find("\U000e007f", at, at + 8)
    return begin != -1 and end != -1 and all("\U000e0020" <= sign <= "\U000e007f" for sign in text[begin + 1 : end])
