"""What notices one flipped byte: `python -m benchmarks.damage LOG [--copies 300] [--seed 1]`.

Flips one bit of a random byte in each of many copies of a log and lets `verify` look at them. Every byte of the file is
as likely, so the table also tells how much of a file is evidence, how much index and how much free space.
"""

import argparse
import collections
import random
import shutil
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from perdure.store.audit import verify

MEANING = {
    "commitment": "a payload is not the one that was recorded, with its position",
    "chain": "the hash chain of a stream is broken, with the position",
    "position": "the order of the log is broken, with the position",
    "version": "the order of a stream is broken, with the position",
    "time": "time runs backwards, with the position",
    "head": "a Merkle head is wrong, with its position",
    "blob": "a large value does not have its hash",
    "rebuild": "a table does not follow from the events",
    "integrity": "SQLite's own check, or SQLite refused the file",
    "nothing": "nobody: free space, or a part of the file that carries nothing",
}
ORDER = list(MEANING)
"""What is counted where several found it: the one that says most."""


def flip(path: Path, chance: random.Random) -> int:
    """Change one byte of the file and return its offset."""
    offset = chance.randrange(path.stat().st_size)
    with path.open("r+b") as file:
        file.seek(offset)
        old = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([old ^ (1 << chance.randrange(8))]))
    return offset


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("--copies", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    chance = random.Random(given.seed)
    found: collections.Counter[str] = collections.Counter()
    placed = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.db"
        for _ in range(given.copies):
            shutil.copyfile(given.log, copy)
            flip(copy, chance)
            report = verify(copy)
            kinds = {finding.kind for finding in report.findings}
            found[min(kinds, key=ORDER.index, default="nothing")] += 1
            placed += report.first_position is not None
    table = Table("found by", "copies", "which is")
    for kind, count in found.most_common():
        table.add_row(kind, str(count), MEANING.get(kind, ""))
    console = Console()
    console.print(f"{given.copies} copies of {given.log.name}, one flipped bit each, seed {given.seed}")
    console.print(table)
    console.print(f"{placed} reports name a position in the log")


if __name__ == "__main__":
    main()
