"""Whether two names are those of one person. Pure.

Not here: who somebody is, which only the door knows that they come in by (a token's name, a login name). Invariant: the
spelling of a name, by its case, its spaces and the forms of its letters, makes nobody a second person.
"""

import unicodedata


def person_key(name: str) -> str:
    """Return what all spellings of a name have in common, `Ada  Lovelace` and `ada lovelace`.

    Letters of different alphabets that look alike are different letters: names are compared, faces are not.
    """
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).split())
