"""A linter for the project's English: ``python -m tests.prose``, part of ``make lint``; it needs no package.

It looks for the phrases of ``prose_marks.txt`` in pages, notebooks' texts, templates, and the strings and comments of
Python files. Some uses are right. ``prose_allowed.txt`` counts the remaining ones of each file; no file may have more.
``python -m tests.prose --fewer`` writes the counts again after some have gone, and refuses to let one grow.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = ROOT / "tests" / "prose_allowed.txt"
FOLDERS = ("docs", "notebooks", "refconv", "tests", "benchmarks")
LEFT_OUT = ("docs/kill_table.md", "tests/test_prose.py")

MARKS = [line.split("\t") for line in (ROOT / "tests" / "prose_marks.txt").read_text("utf-8").splitlines()[1:]]
"""Phrases that make readers stumble: a regular expression, what to write instead, and an example."""
_FOUND = [(re.compile(mark.replace(" ", r"\s+"), re.IGNORECASE), better) for mark, better, _ in MARKS]
_FIELD = re.compile(r"\{[^{}\n]*\}")
_PROSE = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}


def files() -> Iterator[Path]:
    """Yield the files that contain prose, as paths below the root."""
    found = [*ROOT.glob("*.md")]
    for folder in FOLDERS:
        found += [path for kind in ("md", "py", "j2") for path in (ROOT / folder).rglob(f"*.{kind}")]
    for path in sorted(path.relative_to(ROOT) for path in found):
        if path.as_posix() not in LEFT_OUT and not any(part.startswith(".") for part in path.parts):
            yield path


def prose(path: str, text: str) -> list[tuple[int, str]]:
    """Return the pieces of a file to read, with the lines on which they begin: of Python, its strings and comments."""
    if not path.endswith(".py"):
        return [(1, text)]
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    # The fields of an f-string are code. Before Python 3.12 it is one token.
    return [(token.start[0], _FIELD.sub("{}", token.string)) for token in tokens if token.type in _PROSE]


def marks(path: str, text: str) -> Iterator[tuple[int, str, str]]:
    """Yield the line, the phrase and what to write instead, for each mark in a file."""
    for line, piece in prose(path, text):
        for mark, better in _FOUND:
            for match in mark.finditer(piece):
                phrase = " ".join(match[0].lower().split())
                yield line + piece.count("\n", 0, match.start()), phrase, better


def read_allowed(text: str) -> dict[str, Counter[str]]:
    """Read the list: a file per line, ``path: phrase 2, phrase 1``."""
    allowed = {}
    for line in text.splitlines():
        path, _, phrases = line.partition(": ")
        pairs = (entry.rpartition(" ") for entry in phrases.split(", "))
        allowed[path] = Counter({phrase: int(count) for phrase, _, count in pairs})
    return allowed


def written(counts: dict[str, Counter[str]]) -> str:
    """Write the list that ``read_allowed`` reads."""
    lines = (f"{path}: {', '.join(f'{p} {n}' for p, n in sorted(found.items()))}" for path, found in counts.items())
    return "".join(f"{line}\n" for line in lines)


def main() -> int:
    """Print the phrases beyond the list, and return 1 if there are any."""
    parser = argparse.ArgumentParser(description="Look for phrases that make readers stumble.")
    parser.add_argument("--fewer", action="store_true", help="write the list again, with lower counts")
    parser.add_argument("--all", action="store_true", help="print also the phrases that the list allows")
    options = parser.parse_args()
    allowed = read_allowed(ALLOWED.read_text("utf-8")) if ALLOWED.is_file() else None
    counts: dict[str, Counter[str]] = {}
    refused = 0
    for path in map(str, files()):
        found = list(marks(path, (ROOT / path).read_text("utf-8")))
        counts[path] = Counter(phrase for _, phrase, _ in found)
        excess = counts[path] - (counts[path] if allowed is None else allowed.get(path, Counter()))
        refused += excess.total()
        for line, phrase, better in found:
            if options.all or phrase in excess:
                print(f"{path}:{line}: “{phrase}”; better: {better}")
    left = {path: found for path, found in counts.items() if found}
    total = sum(found.total() for found in left.values())
    if refused:
        print(
            f"{refused} more than tests/prose_allowed.txt lists. Reword them; a literal use may be added to the list."
        )
        return 1
    if options.fewer:
        ALLOWED.write_text(written(left), "utf-8")
    elif left != {path: found for path, found in (allowed or {}).items() if found}:
        print("Fewer than tests/prose_allowed.txt lists: run `python -m tests.prose --fewer` and commit the list.")
        return 1
    print(f"prose: {total} allowed phrases, no other")
    return 0


if __name__ == "__main__":
    sys.exit(main())
