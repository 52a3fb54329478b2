"""How faults speak of paths, of values, and of words that are not known. Pure."""

import difflib
import json
import re
from collections.abc import Iterable

_PLAIN = re.compile(r"[A-Za-z0-9_-]+")


def under(at: str, key: object) -> str:
    """Return the path of what is under a key: `at.key`, or `at["a key"]` where that could not be read."""
    word = str(key)
    if not _PLAIN.fullmatch(word):
        return f"{at}[{json.dumps(word, ensure_ascii=False)}]"
    return f"{at}.{word}" if at else word


def kind_of(value: object) -> str:
    """Return what a value is to somebody who writes JSON."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case str():
            return "a text"
        case int() | float():
            return "a number"
        case list():
            return "a list"
        case dict():
            return "an object"
        case _:
            return type(value).__name__


def nearest(word: str, words: Iterable[str]) -> str:
    """Return the end of a sentence: the word that was probably meant, or all that there are."""
    there = sorted(words)
    close = difflib.get_close_matches(word, there, 1)
    close = close or [each for each in there if each.lower() == word.lower()]
    if close:
        return f"did you mean {close[0]}?"
    return f"there are {', '.join(there)}" if there else "none is registered"
