"""Write what-is-checked.md: the problems that refconv.testing.check_conv runs.

python docs/make_regimes.py
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path

from refconv.testing.checker.plan import (
    BANDS,
    CHANNELS,
    STEPS,
    TAPS,
    WORK,
    Domain,
    pairs,
    plan,
    systematic,
    witnesses,
)
from refconv.testing.regimes import LAYERS, SIZES, SPECIAL, Layer, Numbers, regimes_of

PAGE = Path(__file__).with_name("what-is-checked.md")

KINDS = [(d, transposed) for transposed in (False, True) for d in (1, 2, 3)]
USUAL = ("bias", "stride", "padding", "dilation", "groups")
EVERY = (*USUAL, "asymmetric_padding", "output_padding")


SHORT = {"c_in": "input channels per group", "c_out": "output channels per group", "rest": "elements left over"}
"""Names of the small numbers that are not words."""


def table(heads: Sequence[str], align: str, rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a table; `align` has l, c or r for each column."""
    marks = [{"l": "---", "c": ":-:", "r": "--:"}[letter] for letter in align]
    lines = [f"| {' | '.join(heads)} |", f"|{'|'.join(marks)}|"]
    return [*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)]


def title(d: int, transposed: bool) -> str:
    """Return the name of a kind of convolution."""
    return f"{d}-d{' transposed' if transposed else ''}"


def counts(d: int, transposed: bool, cases: int = 200) -> list[object]:
    """Return a row of the first table: how many problems of each sort there are."""
    domain = Domain(d, USUAL, transposed)
    everything = plan(d, USUAL, transposed, "float32", cases, 0)
    kinds = [case.kind for case in everything]
    real, whole = kinds.count("real"), kinds.count("integers")
    features, regimes, rows = sum(map(len, systematic(domain))), len(witnesses(domain)), len(pairs(domain))
    return [title(d, transposed), features, regimes, rows, cases, real, len(kinds) - real - whole, f"**{len(kinds)}**"]


@functools.cache
def reached(words: tuple[str, ...], d: int, transposed: bool) -> frozenset[str]:
    """Return the names of the regimes that a check reaches with any random problems."""
    domain = Domain(d, words, transposed)
    return frozenset(name for p in (*systematic(domain)[0], *witnesses(domain)) for name in regimes_of(p))


def layer_rows(transposed: bool) -> list[list[object]]:
    """Return a row for each layer: its numbers, and the numbers of axes with which it is run."""

    def text(numbers: Numbers) -> str:
        return "×".join(map(str, numbers)) if isinstance(numbers, tuple) else str(numbers)

    def row(layer: Layer) -> list[object]:
        groups = "any" if layer.groups == 1 else layer.groups
        steps = [layer.kernel, layer.stride, layer.padding, *([layer.output_padding] * transposed), layer.dilation]
        axes = ", ".join(str(d) for d in (1, 2, 3) if layer.title() in reached(EVERY, d, transposed))
        return [layer.name, *map(text, steps), groups, axes]

    return [row(layer) for layer in LAYERS if layer.transposed == transposed]


def relation_rows() -> list[list[object]]:
    """Return a row for each relation: ● where it is run by default, ○ where all words of `supports` are needed."""

    def mark(name: str, kind: tuple[int, bool]) -> str:
        return "●" if name in reached(USUAL, *kind) else "○" if name in reached(EVERY, *kind) else " "

    return [[relation.name, *(mark(relation.name, kind) for kind in KINDS)] for relation in SPECIAL]


def page() -> str:
    """Return the page."""
    cheapest = len(plan(1, (), False, "float32", 1, 0))
    heads = [title(d, transposed) for d, transposed in KINDS]
    steps = ["kernel", "stride", "padding", "dilation", "groups", "axes"]
    transposed_steps = [*steps[:3], "output padding", *steps[3:]]
    small = [f"{SHORT.get(name, name)} {', '.join(map(str, numbers))}" for name, numbers in STEPS.items()]
    bands = ", ".join(str(band[0]) if len(band) == 1 else "/".join(map(str, band)) for band in BANDS)
    lines = [
        "# What the checker runs",
        "",
        "A convolution can be right on every small problem and wrong for 3×3 windows with padding 1, because a fast",
        "path serves them, or for 17 channels, because its tiles have 16. So `check_conv` runs the layers of",
        "well-known networks, sizes on both sides of every power of two up to 32, and easily forgotten relations",
        "between the numbers: the regimes of `refconv/testing/regimes.py`. `python docs/make_regimes.py` lists them",
        "all here, and a test keeps the page up to date.",
        "",
        "## Number of problems",
        "",
        "With the default `supports`, `cases=200` and float32:",
        "",
        *table(
            ["convolution", "features and their pairs", "one per regime", "pairs of sizes and layers", "random",
             "real values", "special", "all"],
            "lrrrrrrr",
            [counts(*kind) for kind in KINDS],
        ),
        "",
        "* A problem that serves two purposes runs once, so a row can add up to more than its last number.",
        "* A *feature* is a stride of 2, a second group, padding, and so on. Each runs alone and with each other, in",
        "  the smallest problem that has them, to find the minimal failure.",
        "* Only *real values* are not whole numbers. Their few problems reach the regimes again.",
        "* *Special* problems have an empty batch, unusual memory layouts, repeated calls, a long sum, or NaN and ∞.",
        "* With `causal` in `supports`, problems without padding whose kernel has several taps run once more with it.",
        "* `cases` is the number of random problems. They mix features, and about half of them take one number from",
        f"  the sizes below. `spatial_dims=1, supports=(), cases=1` is the shortest check, with {cheapest} problems.",
        "",
        "Problems outside `supports`, and regimes without other problems, are left out. `CheckReport.regimes` maps",
        "each regime that was reached to its number of problems.",
        "",
        "## Layers",
        "",
        "A single number is for all axes. Layers with *any* groups run with one group; the pairs below add more.",
        "",
        *table(["layer", *steps], "lcccccc", layer_rows(False)),
        "",
        "Transposed:",
        "",
        *table(["layer", *transposed_steps], "lccccccc", layer_rows(True)),
        "",
        "Output padding is run only if `supports` contains it.",
        "",
        "## Sizes",
        "",
        *table(["number", "values"], "ll", [[name, ", ".join(map(str, sizes))] for name, sizes in SIZES.items()]),
        "",
        "*Rows* are counted along the first axis, *columns* along the last. Each value runs in a small problem.",
        "",
        "## Relations",
        "",
        "● runs by default, ○ only if `supports` also contains `asymmetric_padding` and, if transposed,",
        "`output_padding`.",
        "",
        *table(["relation", *heads], "lcccccc", relation_rows()),
        "",
        "## Pairs",
        "",
        "Some mistakes need two numbers, such as 17 channels in a batch of 5. Each row of a covering design is a",
        "problem that contains many pairs:",
        "",
        "* Small numbers, every pair of them exactly: " + "; ".join(small) + ".",
        f"* Every combination of {', '.join(map(str, CHANNELS))} as groups, input and output channels per group.",
        "* Sizes (batch, input and output channels per group, groups, rows and columns), and a layer with a size.",
        f"  Neighbouring sizes count as one and take turns: {bands}.",
        f"* Pairs whose problem would need more than {WORK:,} multiply-adds are left out.",
        f"* Layers whose kernel has more than {TAPS} elements are left out.",
        "",
        *table(["convolution", "rows"], "lr", [[title(*k), len(pairs(Domain(k[0], USUAL, k[1])))] for k in KINDS]),
        "",
        "## Not run",
        "",
        "Larger sizes are rare, except 63 to 65 output positions and one sum of 1,536 terms. Other combinations of",
        "three numbers are left to the random problems. A mistake that begins at 4,096 channels needs its own test.",
        "",
    ]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
