"""What the arrays and channels of a part are called, and how numbers and formulas are written."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from refconv.testing.explain.table import ROLES, Line, roles
from refconv.testing.oracles.definition import Array

SYMBOLS = {
    ("forward", False): ("y", "w", "x"), ("forward", True): ("x", "w", "y"),
    ("grad_x", False): ("g", "w", "grad_x"), ("grad_x", True): ("grad_x", "w", "g"),
    ("grad_weight", False): ("g", "grad_weight", "x"), ("grad_weight", True): ("x", "grad_weight", "g"),
}  # fmt: skip
"""Names of the arrays in the roles positions, weight and image."""


class Names:
    """What the arrays and channels of one part are called."""

    def __init__(self, part: str, transposed: bool) -> None:
        self.part, self.transposed = part, transposed
        self.symbols = dict(zip(ROLES, SYMBOLS[part, transposed], strict=True))
        self.letter = "l" if transposed else "o"
        self.positions_channel, self.image_channel = "output channel", "input channel"
        if transposed:
            self.positions_channel, self.image_channel = self.image_channel, self.positions_channel
        self.role = roles(part, transposed)[0]
        self.result = self.symbols[self.role]

    @property
    def image(self) -> str:
        """Name of the image's array."""
        return self.symbols["image"]

    @property
    def verb(self) -> str:
        """How channels, or samples, of the positions' array act on the image's: each "reads" some, for an output."""
        if self.result == self.symbols["positions"]:
            return "reads"
        return "is added to" if self.result == self.image else "is multiplied by"

    @property
    def verbs(self) -> str:
        """The verb of several channels or samples."""
        return "read" if self.verb == "reads" else self.verb.replace("is ", "are ")

    def reads(self, index: str) -> str:
        """Return the clause that says which image element is used, at the index given."""
        o, positions, image = self.letter, self.symbols["positions"], self.image
        if self.part == "grad_weight":
            return f"grad_weight[t] multiplies {positions}[{o}] by {image}[{index}]"
        if self.result == image:
            return f"{positions}[{o}]·w[t] is added to {image}[{index}]"
        return f"{'your output' if self.part == 'forward' else f'{positions}[{o}]'} reads {image}[{index}]"


def listed(values: Sequence[object], most: int = 6) -> str:
    """Return values with commas, cut after a few.

    >>> listed([1, 2]), listed(range(9), 2)
    ('1, 2', '0, 1, …')
    """
    shown = ", ".join(map(str, values[:most]))
    return f"{shown}, …" if len(values) > most else shown


def ranges(values: Sequence[int], most: int = 6) -> str:
    """Return increasing numbers, with runs of at least three shortened, so that few are cut off.

    >>> ranges([0, 1, 4]), ranges([1, 2, 3, 4, 6])
    ('0, 1, 4', '1 to 4, 6')
    """
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    shown = [[f"{run[0]} to {run[-1]}"] if len(run) > 2 else list(map(str, run)) for run in runs]
    return listed([text for run in shown for text in run], most)


def grammar(values: Sequence[object]) -> tuple[str, str]:
    """Return the ending of a noun that names these values, and its verb: ("", "is") or ("s", "are")."""
    return ("", "is") if len(values) == 1 else ("s", "are")


def formula(line: Line, letter: str) -> str:
    """Return stride·o + dilation·t + start.

    >>> formula((2, -1, 3), "o"), formula((0, 1, 0), "o"), formula((0, 0, 0), "o")
    ('2·o − t + 3', 't', '0')
    """
    text = ""
    for number, name in zip(line, (letter, "t", ""), strict=True):
        if number:
            size = abs(number)
            term = str(size) if not name else name if size == 1 else f"{size}·{name}"
            sign = "−" if number < 0 else "+"
            text += f" {sign} {term}" if text else f"{'−' * (number < 0)}{term}"
    return text or "0"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: 1 product, 2 products."""
    return f"{count} {noun}{'s' * (count != 1)}"


def signed(number: int) -> str:
    """Return a number as a term of a sum.

    >>> signed(-2)
    '− 2'
    """
    return f"{'−' if number < 0 else '+'} {abs(number)}"


def those(noun: str, values: Sequence[int]) -> str:
    """Return a noun with its numbers: channel 2, channels 0 to 3."""
    return f"{noun}{grammar(values)[0]} {ranges(values)}"


MOST_PLACES, MOST_NUMBERS = 8, 64
"""The most places, and the most numbers in memory order, that are listed without an omission."""

PLACES = ("sample", "channel", "position")
"""What the indices of an array (N, C, D1, …) count; the last name is for all further axes."""


def clause(axis: int, values: Sequence[int], size: int, places: Sequence[str] = PLACES) -> str:
    """Return indices of one axis in words; nothing for all of them.

    >>> clause(2, [3, 4], 5), clause(0, [1], 4), clause(1, [0, 1], 2)
    ('the last 2 positions along axis 0', 'sample 1', '')
    """
    if len(values) == size:
        return ""
    name, along = (places[axis], "") if axis < 2 else (places[2], f" along axis {axis - 2}")
    if len(values) > 1 and list(values) == list(range(size - len(values), size)):
        return f"the last {len(values)} {name}s{along}"
    return f"{name}{grammar(values)[0]} {ranges(values)}{along}"


def in_block(chosen: Array, places: Sequence[str] = PLACES) -> list[str] | None:
    """Return in words where an array is true, axis by axis, if that is a block; None if it is not.

    >>> in_block(np.array([[[True, False], [True, False]]]))
    ['position 0 along axis 0']
    """
    values = [np.unique(axis).tolist() for axis in np.nonzero(chosen)]
    if math.prod(map(len, values)) != np.count_nonzero(chosen):
        return None
    clauses = (
        clause(axis, some, size, places) for axis, (some, size) in enumerate(zip(values, chosen.shape, strict=True))
    )
    return [text for text in clauses if text]


def in_memory(chosen: Array, places: Sequence[str] = PLACES) -> str | None:
    """Return where an array is true in memory order, within a channel if all are alike; None if it is too large.

    >>> in_memory(np.array([[[True, False, True]]]))
    'positions 0, 2 in memory order, of 3'
    """
    same = bool(np.all(chosen == chosen[:1, :1]))
    plane, noun = (chosen[0, 0], f"{places[2]}s") if same else (chosen, "numbers")
    if plane.size > MOST_NUMBERS:
        return None
    return f"{noun} {ranges(np.flatnonzero(plane).tolist(), MOST_NUMBERS)} in memory order, of {plane.size}"
