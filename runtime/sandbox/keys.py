"""What is typed into a terminal, as tmux commands. Pure; nothing is sent here."""

import re
from collections.abc import Iterator, Sequence

MAX_KEYS_BYTES = 65_536
"""Of all that is typed at once; longer texts belong in a file."""
ENTER = frozenset({"Enter", "KPEnter", "C-m", "C-j"})
_PIECE_CHARACTERS = 1_000
_COMMAND_BYTES = 8_000  # tmux refuses a message of over 16 KiB

_NAMED = (
    r"Enter|Escape|Space|Tab|BTab|BSpace|Up|Down|Left|Right|Home|End|Insert|IC|Delete|DC|F[1-9]|F1[0-2]"
    r"|PageUp|PgUp|PPage|PageDown|PgDn|NPage|KPEnter|KP[-+*/.0-9]"
)
_KEY = re.compile(rf"(?:[CMS]-)*(?:{_NAMED})|(?:[CMS]-)+[!-~]|\^[!-~]")


def key_presses(keys: Sequence[str]) -> list[list[str]]:
    """Return the arguments of `send-keys`, one list for each press: a key by its name, or text with `-l`.

    Each is a name of a key (`Enter`, `C-c`, `S-F5`, `^D`) or text, in which a newline is Enter.
    """
    presses: list[list[str]] = []
    for each in keys:
        if _KEY.fullmatch(each):
            presses.append(["--", each])
            continue
        for number, line in enumerate(each.replace("\r\n", "\n").split("\n")):
            if number:
                presses.append(["--", "Enter"])
            presses += [
                ["-l", "--", line[at : at + _PIECE_CHARACTERS]] for at in range(0, len(line), _PIECE_CHARACTERS)
            ]
    return presses


def ends_with_enter(presses: Sequence[Sequence[str]]) -> bool:
    """Whether the last press makes a shell run what was typed."""
    return bool(presses) and presses[-1][0] == "--" and presses[-1][-1] in ENTER


def commands(presses: Sequence[Sequence[str]], target: str) -> Iterator[list[str]]:
    """Yield tmux's command lines: as many presses in one as a message can take."""
    line: list[str] = []
    for press in presses:
        part = ["send-keys", "-t", target, *press[:-1], _escaped(press[-1])]
        if line and sum(len(word.encode()) + 1 for word in (*line, *part)) > _COMMAND_BYTES:
            yield line
            line = []
        line += [";", *part] if line else part
    if line:
        yield line


def _escaped(text: str) -> str:
    """Return *text* so that its last `;` does not end the command: tmux reads one at the end of any argument so."""
    return f"{text[:-1]}\\;" if text.endswith(";") else text
