"""Rules for the reads of an axis that no single line describes. Each finds its numbers, and says them in a sentence.

A rule fits if it gives exactly the reads: rows (o, t, i) of position, tap and image element. Some rules suppose how the
code came to do this; they are said only if they fit on a second problem too. The others are facts of one problem.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from refconv.testing.explain.names import Names, formula, listed, signed
from refconv.testing.explain.table import Line, Rows, line_rows

Numbers = tuple[Any, ...]


@dataclass(frozen=True)
class Due:
    """The right line of an axis, and its numbers of positions, taps and image elements."""

    line: Line
    sizes: tuple[int, int, int]

    @property
    def rows(self) -> Rows:
        """The right rows."""
        return line_rows(self.line, self.sizes)

    @property
    def windows(self) -> list[tuple[int, int, int]]:
        """All (o, t, i), with i counted from the start of the padding, and beyond the image too."""
        stride, dilation, _ = self.line
        return [(o, t, stride * o + dilation * t) for o in range(self.sizes[0]) for t in range(self.sizes[1])]

    def inside(self, windows: Iterable[tuple[int, int, int]]) -> Rows:
        """Return the rows that are in the image, with i counted from its start."""
        rows = ((o, t, i + self.line[2]) for o, t, i in windows)
        return frozenset(row for row in rows if 0 <= row[2] < self.sizes[2])


def _rotated(reads: Rows, due: Due) -> Numbers | None:
    """Positions, elements or taps are rotated by some places: number n is used as n − places should be."""
    for column, letter in ((0, "o"), (2, "i"), (1, "t")):
        size, right = due.sizes[column], due.rows
        for places in sorted(range(1 - size, size), key=abs):
            moved = {(*row[:column], (row[column] + places) % size, *row[column + 1 :]) for row in right}
            wraps = {0 <= row[column] + places < size for row in right}
            if len(wraps) == 2 and moved == reads and (letter, size) != ("t", 2):
                return letter, places, size
    return None


def _say_rotated(axis: str, due: Due, names: Names, letter: str, places: int, size: int) -> str:
    array = names.symbols[{"o": "positions", "t": "weight", "i": "image"}[letter]]
    letter = names.letter if letter == "o" else letter
    verb = "is what" if array == names.result else "is used as"
    first, other = (0, -places % size) if places > 0 else (size - 1, (size - 1 - places) % size)
    return (
        f"{axis}, {array}[{letter}] {verb} {array}[{letter} {signed(-places)}] should be, and "
        f"{array}[{first}] {verb} {array}[{other}] should be: {array} is rotated."
    )


def _reversed(reads: Rows, due: Due) -> Numbers | None:
    """Blocks of positions, or blocks of as many elements as the stride, are in reverse order."""
    stride, _, start = due.line
    wide = line_rows((*due.line[:2], 0), (*due.sizes[:2], due.sizes[2] - start + stride))
    if stride > 1 and due.inside((o, t, i // stride * stride + stride - 1 - i % stride) for o, t, i in wide) == reads:
        return "i", stride
    count = due.sizes[0]
    for length in range(2, count):
        ends = [(o // length * length, min(count, (o // length + 1) * length) - 1) for o in range(count)]
        if {(sum(ends[o]) - o, t, i) for o, t, i in due.rows} == reads:
            return "o", length
    return None


def _say_reversed(axis: str, due: Due, names: Names, letter: str, length: int) -> str:
    array = names.symbols["positions" if letter == "o" else "image"]
    cropped = ", counted before the padding is cropped," if letter == "i" and due.line[2] else ""
    return f"{axis} every block of {length} elements{cropped} is in reverse order in {array}."


def _repeated(reads: Rows, due: Due) -> Numbers | None:
    """Positions are repeated `stride` times, or taps `dilation` times, where zeros should be inserted."""
    for letter, step, count in (("o", due.line[0], due.sizes[0]), ("t", due.line[1], due.sizes[1])):
        for last in ((count - 1) * step, count * step - 1) if step > 1 else ():
            copies = (
                (o, t, i + more)
                for o, t, i in due.windows
                for more in range(step)
                if step * (o if letter == "o" else t) + more <= last
            )
            if due.inside(copies) == reads:
                return letter, step
    return None


def _say_repeated(axis: str, due: Due, names: Names, letter: str, times: int) -> str:
    array = names.symbols["positions" if letter == "o" else "weight"]
    places, number = ("positions", "stride") if letter == "o" else ("places of the window", "dilation")
    return (
        f"{axis} each element of {array} is used at {times} {places}, as many as the {number}: "
        f"it is repeated{' (nearest neighbour)' * (letter == 'o')}, where zeros should be inserted."
    )


def _all_taps(reads: Rows, due: Due) -> Numbers | None:
    """Every tap is used with the elements of all taps."""
    if due.sizes[1] > 1 and reads == {(o, t, i) for o, _, i in due.rows for t in range(due.sizes[1])}:
        return ()
    return None


def _say_all_taps(axis: str, due: Due, names: Names) -> str:
    w, image = names.symbols["weight"], names.image
    if names.result == w:
        return f"{axis} every tap of {w} adds up the products of all taps: {image} is summed over each window."
    sums = f"is added to {image} there" if names.result == image else f"times the sum of {image} there is computed"
    return f"{axis} every tap is used with all elements of its window: the sum of {w} over the taps {sums}."


def _all_positions(reads: Rows, due: Due) -> Numbers | None:
    """Every position is used with the elements of all positions."""
    if due.sizes[0] > 1 and reads == {(o, t, i) for _, t, i in due.rows for o in range(due.sizes[0])}:
        return ()
    return None


def _say_all_positions(axis: str, due: Due, names: Names) -> str:
    array = names.symbols["positions"]
    return f"{axis} every position of {array} is used with the elements of all positions: {array} is summed first."


def _cumulative(reads: Rows, due: Due) -> Numbers | None:
    """Every position also has the products of the positions before it, or after it."""
    right = due.rows
    for name, before in (("before", True), ("after", False)):
        sums = {(p, t, i) for o, t, i in right for p in range(due.sizes[0]) if (p >= o if before else p <= o)}
        if sums == reads:
            return (name,)
    return None


def _say_cumulative(axis: str, due: Due, names: Names, side: str) -> str:
    array = names.symbols["positions"]
    if array == names.result:
        return f"{axis} {array}[{names.letter}] also contains the sums of the positions {side} it: a cumulative sum."
    return f"{axis} the positions of {array} {'after' if side == 'before' else 'before'} {names.letter} are also added."


def _modulo(reads: Rows, due: Due) -> Numbers | None:
    """Positions, or taps, from some number on do the work of the first again."""
    for column, letter in ((0, "o"), (1, "t")):
        for divisor in range(2, due.sizes[column] - 1):
            step = due.line[column] * divisor
            if due.inside((o, t, i - step * ((o, t)[column] // divisor)) for o, t, i in due.windows) == reads:
                return letter, divisor
    return None


def _say_modulo(axis: str, due: Due, names: Names, letter: str, divisor: int) -> str:
    index = names.letter if letter == "o" else letter
    line = formula(due.line, names.letter)
    seen = names.reads(line.replace(index, f"({index} mod {divisor})", 1))
    return f"{axis} {seen}; it should be {names.image}[{line}]: {index} starts again at 0 after every {divisor}."


def _wrapped(reads: Rows, due: Due) -> Numbers | None:
    """Positions before the first, or those beyond the last too, count from the other end."""
    (stride, dilation, _), (count, taps, _) = due.line, due.sizes
    for name, places in (("−1", range(-count, 0)), (count, range(count, 2 * count)), ("", range(-count, 2 * count))):
        windows = ((o, t, stride * o + dilation * t) for o in places for t in range(taps))
        more = {(o % count, t, i) for o, t, i in due.inside(windows)}
        if more - due.rows and due.rows | more == reads:
            return (name,)
    return None


def _say_wrapped(axis: str, due: Due, names: Names, first: object) -> str:
    array, last = names.symbols["positions"], due.sizes[0] - 1
    which = {"": f"−1 as {last} and {last + 1} as 0", "−1": f"−1 as {last}"}.get(str(first), f"{last + 1} as 0")
    return (
        f"{axis}, indices of {array} beyond its ends are not left out: they wrap around, {names.letter} = {which}, "
        f"so that too many products are added."
    )


def _exchanged(reads: Rows, due: Due) -> Numbers | None:
    """Every tap does the work of a tap, some of another one."""

    def work(rows: Rows, tap: int) -> frozenset[tuple[int, int]]:
        return frozenset((o, i) for o, t, i in rows if t == tap)

    right = [work(due.rows, tap) for tap in range(due.sizes[1])]
    done = [work(reads, tap) for tap in range(due.sizes[1])]
    return tuple(right.index(rows) for rows in done) if all(rows in right for rows in done) else None


def _say_exchanged(axis: str, due: Due, names: Names, *taps: int) -> str:
    uses = [f"tap {t} as tap {work}" for t, work in enumerate(taps) if t != work]
    return f"{axis} taps are exchanged: {listed(uses)} should be used."


def _later(reads: Rows, due: Due) -> Numbers | None:
    """From one position, or tap, on another line with the same steps is read."""
    for column, letter in ((0, "o"), (1, "t")):
        for first in range(1, due.sizes[column]):
            before = {row for row in reads if row[column] < first}
            after = sorted(reads - before)
            if len(after) < 2 or not before or before != {row for row in due.rows if row[column] < first}:
                continue
            late = after[0][2] - due.line[0] * after[0][0] - due.line[1] * after[0][1] - due.line[2]
            line = (*due.line[:2], due.line[2] + late)
            if late and set(after) == {row for row in line_rows(line, due.sizes) if row[column] >= first}:
                return letter, first, line
    return None


def _say_later(axis: str, due: Due, names: Names, letter: str, first: int, line: Line) -> str:
    index = names.letter if letter == "o" else letter
    right = formula(due.line, names.letter)
    last = first == due.sizes[0 if letter == "o" else 1] - 1
    where = f"at {index} = {first}" if last else f"from {index} = {first} on"
    seen = names.reads(formula(line, names.letter))
    return f"{axis}, {where}, {seen}; it should be {names.image}[{right}] there too."


def _offsets(reads: Rows, due: Due) -> Numbers | None:
    """Every tap reads at a place of its own in the window, or every window starts at a place of its own."""
    for column, letter in ((1, "t"), (0, "o")):
        step = due.line[1 - column]
        places: dict[int, set[int]] = {number: set() for number in range(due.sizes[column])}
        for row in reads:
            places[row[column]].add(row[2] - step * row[1 - column] - due.line[2])
        several = len(places) > 1 and len({row[1 - column] for row in reads}) > 1 and len(reads) >= 2 * len(places)
        if not several or any(len(found) != 1 for found in places.values()):
            continue
        found = [min(places[number]) for number in places]
        rows = ((o, t, step * (o, t)[1 - column] + found[(o, t)[column]]) for o, t, _ in due.windows)
        if due.inside(rows) == reads:
            return letter, *found
    return None


def _say_offsets(axis: str, due: Due, names: Names, letter: str, *found: int) -> str:
    stride, dilation, start = due.line
    own = f"a({letter if letter == 't' else names.letter})"
    step, other, right = (stride, names.letter, dilation) if letter == "t" else (dilation, "t", stride)
    index = formula((step, 0, 0), other) + f" + {own}" + (f" {signed(start)}" if start else "")
    index = index.removeprefix("0 + ")
    due_places = listed([right * number for number in range(len(found))], 24)
    return f"{axis} {names.reads(index)} with {own} = {listed(found, 24)}, where {due_places} is right."


class Rule(NamedTuple):
    """How the numbers of a rule are found and said; whether it is a fact of one problem."""

    find: Callable[[Rows, Due], Numbers | None]
    say: Callable[..., str]
    fact: bool = False


RULES = {
    "rotated": Rule(_rotated, _say_rotated),
    "reversed": Rule(_reversed, _say_reversed),
    "repeated": Rule(_repeated, _say_repeated),
    "all taps": Rule(_all_taps, _say_all_taps),
    "all positions": Rule(_all_positions, _say_all_positions),
    "cumulative": Rule(_cumulative, _say_cumulative),
    "modulo": Rule(_modulo, _say_modulo, fact=True),
    "wrapped": Rule(_wrapped, _say_wrapped),
    "exchanged": Rule(_exchanged, _say_exchanged),
    "later": Rule(_later, _say_later, fact=True),
    "offsets": Rule(_offsets, _say_offsets, fact=True),
}
"""By name, in the order in which they are tried."""


class Fit(NamedTuple):
    """A rule that gives the reads of an axis, with its numbers."""

    name: str
    numbers: Numbers

    def sentence(self, axis: str, due: Due, names: Names) -> str:
        """Return the sentence for an axis, which is called "Along axis 0"."""
        return RULES[self.name].say(axis, due, names, *self.numbers)


def fitting(reads: Rows, due: Due) -> list[Fit]:
    """Return the rules that give the reads of an axis, with their numbers; none if the reads are right.

    >>> due = Due((2, 1, -1), (4, 2, 8))
    >>> reads = frozenset((o, t, i + (o > 1)) for o, t, i in due.rows)
    >>> [fit.sentence("Along axis 0", due, Names("forward", False)) for fit in fitting(reads, due)][0]
    'Along axis 0, from o = 2 on, your output reads x[2·o + t]; it should be x[2·o + t − 1] there too.'
    """
    if not reads or reads == due.rows:
        return []
    found = ((name, rule.find(reads, due)) for name, rule in RULES.items())
    return [Fit(name, numbers) for name, numbers in found if numbers is not None]
