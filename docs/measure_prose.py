"""Measure how readable the pages are: python docs/measure_prose.py [--at REVISION] [FILE …].

Counts what a reader reads as sentences: paragraphs, list items and headings; not code, tables, formulas or addresses.

* words a sentence: a code span or a formula is one word, and a colon ends no sentence;
* passive: the share of sentences with a form of "to be" before a participle, at most one word between them;
* Flesch: 206.835 − 1.015 · words a sentence − 84.6 · syllables a word (R. Flesch, 1948); syllables are counted as
  groups of vowels, without a silent e at the end. A code span has one syllable.
"""

import argparse
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
GENERATED = ("docs/kill_table.md", "docs/explanations.md", "docs/what-is-checked.md", "docs/benchmarks.md")
PARTICIPLE = (
    r"(?:\w+(?:ed|wn)|built|chosen|done|drawn|found|given|had|held|hidden|kept|left|let|lost|made|meant|put|read|run|said|"
    r"seen|set|sent|split|spread|taken|taught|told|thought|understood|written)"
)
PASSIVE = re.compile(rf"\b(?:am|is|are|was|were|be|been|being)\s+(?:\w+\s+)?{PARTICIPLE}\b", re.IGNORECASE)


class Measures(NamedTuple):
    """Counts of a text; sums of texts are sums of their counts."""

    words: int
    sentences: int
    passive: int
    syllables: int

    def __str__(self) -> str:
        """Write the counts as a row."""
        length, sounds = self.words / max(1, self.sentences), self.syllables / max(1, self.words)
        flesch = 206.835 - 1.015 * length - 84.6 * sounds
        return f"{self.words:7,} {length:14.1f} {self.passive / max(1, self.sentences):8.0%} {flesch:7.0f}"


def sentences(page: str) -> list[str]:
    r"""Return the sentences of a page.

    Examples
    --------
    >>> sentences("# A title\n\nUse `conv(x, w)`, see [there](a.md). It is\nfast.\n\n| a | b |\n\n* one\n")
    ['A title', 'Use Code, see there.', 'It is fast.', 'one']
    """
    page = re.sub(r"\A---\n.*?^---\n", "", page, flags=re.DOTALL | re.MULTILINE)
    page = re.sub(r"^ *(```+)[^\n]*\n.*?^ *\1 *$", "\n\n", page, flags=re.DOTALL | re.MULTILINE)
    page = re.sub(r"\$\$.*?\$\$|<[^>\n]+>|<!--.*?-->", " ", page, flags=re.DOTALL)
    page = re.sub(r"``[^`]+``|`[^`]+`|\$[^$\n]+\$", "Code", page)
    page = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", page)
    page = re.sub(r"^\|.*$", "\n", page, flags=re.MULTILINE)
    blocks = re.split(r"\n\s*\n|^\s*(?:[*+-]|\d+\.)\s+|^#+\s+", page, flags=re.MULTILINE)
    ends = re.compile(r"(?<=[.!?])\s+(?=[A-Z“\"(*]|refconv)")
    parts = [part for block in blocks for part in ends.split(" ".join(block.split()))]
    return [part for part in (part.strip("* _") for part in parts) if re.search("[A-Za-z]", part)]


def syllables(word: str) -> int:
    """Return about how many syllables a word has.

    Examples
    --------
    >>> [syllables(word) for word in ("code", "gradient", "table", "convolution")]
    [1, 3, 2, 4]
    """
    word = word.lower()
    if word == "code":
        return 1
    groups = len(re.findall("[aeiouy]+", word)) + word.count("ie") * word.endswith("ient")
    silent = word.endswith("e") and not word.endswith(("le", "ee")) and groups > 1
    return max(1, groups - silent)


def measure(page: str) -> Measures:
    """Count words, sentences, passives and syllables."""
    found = sentences(page)
    words = [word for sentence in found for word in re.findall(r"[A-Za-z][A-Za-z’'-]*", sentence)]
    return Measures(len(words), len(found), sum(bool(PASSIVE.search(s)) for s in found), sum(map(syllables, words)))


def read(path: str, revision: str | None) -> str:
    """Return a file's text, now or at a revision."""
    if revision is None:
        return (ROOT / path).read_text("utf-8")
    command = ["git", "show", f"{revision}:{path}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def main() -> None:
    """Print a row for each page, and one for all."""
    parser = argparse.ArgumentParser(description="Measure how readable the pages are.")
    parser.add_argument(
        "files", nargs="*", metavar="FILE", help="paths from the root (default: the pages written by hand)"
    )
    parser.add_argument("--at", metavar="REVISION", help="as they were in this commit")
    options = parser.parse_args()
    pages = [path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob("docs/*.md"))]
    files = options.files or ["README.md", "CONTRIBUTING.md", "SECURITY.md", *(p for p in pages if p not in GENERATED)]
    rows = {path: measure(read(path, options.at)) for path in files}
    print(f"{'':26}  words words/sentence  passive  Flesch")
    for path, row in rows.items():
        print(f"{path:24} {row}")
    print(f"{'all':24} {Measures(*map(sum, zip(*rows.values(), strict=True)))}")


if __name__ == "__main__":
    main()
