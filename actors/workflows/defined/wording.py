"""How faults speak of words that are not known. Pure."""

import difflib
from collections.abc import Iterable


def nearest(word: str, words: Iterable[str]) -> str:
    """Return the end of a sentence: the word that was probably meant, or all that there are."""
    there = sorted(words)
    close = difflib.get_close_matches(word, there, 1)
    close = close or [each for each in there if each.lower() == word.lower()]
    if close:
        return f"did you mean {close[0]}?"
    return f"there are {', '.join(there)}" if there else "none is registered"
