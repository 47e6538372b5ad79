"""Sentences for fitted tables: short, and each a fact of the table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from refconv.testing.explain.causes import Numbers, axis_reasons, elements, paddings, ratios, shift
from refconv.testing.explain.channels import Channels
from refconv.testing.explain.fit import Axis, Factors, Line, Pattern, row_set
from refconv.testing.explain.layouts import Layout
from refconv.testing.explain.session import Second
from refconv.testing.explain.table import ROLES, Asked, Table, line_triples, roles
from refconv.testing.oracles.definition import Array
from refconv.testing.oracles.problems import Problem

SYMBOLS = {
    ("forward", False): ("y", "w", "x"), ("forward", True): ("x", "w", "y"),
    ("grad_x", False): ("g", "w", "grad_x"), ("grad_x", True): ("grad_x", "w", "g"),
    ("grad_weight", False): ("g", "grad_weight", "x"), ("grad_weight", True): ("x", "grad_weight", "g"),
}  # fmt: skip
"""Names of the arrays in the roles positions, weight and image."""


UNREAD = "were not found: too many would need calls of their own"
SAME_CALLS = "calls with the same arguments"

BORDER_ENDS = {
    "wraps around to the other end": "the other end",
    "repeats the edge element": "the edge element",
    "reflects, without the edge element": "its reflection, without the edge",
    "reflects, edge element included": "its reflection, edge included",
}
"""To which element a gradient adds what belongs beyond the image, by the kind of the border."""


class Names:
    """What the arrays and channels of one part are called."""

    def __init__(self, part: str, transposed: bool) -> None:
        self.part, self.transposed = part, transposed
        self.symbols = dict(zip(ROLES, SYMBOLS[part, transposed], strict=True))
        self.letter = "l" if transposed else "o"
        self.positions_channel, self.image_channel = "output channel", "input channel"
        if transposed:
            self.positions_channel, self.image_channel = self.image_channel, self.positions_channel
        self.result = self.symbols[roles(part, transposed)[0]]

    @property
    def image(self) -> str:
        """Name of the image's array."""
        return self.symbols["image"]

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


def ranges(values: Sequence[int]) -> str:
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
    return listed([text for run in shown for text in run])


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


# --- Axes ------------------------------------------------------------------------------------------------------------


def axes_sentences(
    axes: Sequence[Axis], asked: Asked, names: Names, second: Callable[[], Second | None]
) -> Iterator[str]:
    """Yield the computation of each axis where it is not right.

    A cause is named if it also holds on the second problem; that of a shift if all shifted axes share it.
    """
    numbers = [(axis.stride, axis.dilation, axis.before) for axis in axes]
    wrong = [a for a, axis in enumerate(axes) if axis.line not in (asked.lines[a], None)]
    other = second() if wrong else None
    again = other.facts.get("numbers") if other else None
    if other and again and again == [(s, d, -p) for s, d, p in other.asked.lines]:
        again = None  # it is right there
    flipped = names.result if names.part == "grad_weight" else None
    reasons = {}
    for a in wrong:
        first = axis_reasons(numbers[a], a, asked, flipped)
        known = axis_reasons(again[a], a, other.asked, flipped) if other and again else {}
        reasons[a] = {key: clause for key, clause in first.items() if key in known}
    moved = [a for a in wrong if shift(numbers[a], a, asked)]
    common = set.intersection(*({key for key in reasons[a] if key[0] == "shift"} for a in moved)) if moved else set()
    if ("shift", "ignored") in common:
        common.discard(("shift", "axis"))  # that of another axis is 0
    cause = next(iter(common)) if len(common) == 1 else ("shift", "")
    for a, axis in enumerate(axes):
        due, shared = asked.lines[a], paddings(asked, a).get(cause[1])
        if a not in moved and shared:  # it may have too few reads to show this alone
            axis = _shifted(axis, (*due[:2], -shared[0]))
        why = []
        if axis.line not in (due, None):
            seen, known = (axis.stride, axis.dilation, axis.before), reasons.get(a, {})
            why = list(_number_clauses(seen, due, known))
            if late := shift(seen, a, asked):
                why.append(known.get(cause) or (shared[1] if shared else elements(late)))
        yield from _axis_sentences(axis, a, asked, names, why)


def _shifted(axis: Axis, line: Line) -> Axis:
    """Return an axis with a line that is known from other axes, if it has exactly the reads."""
    if axis.right or row_set(line_triples(line, *axis.sizes)) != axis.reads:
        return axis
    stride, dilation, start = line
    return replace(axis, stride=stride, dilation=dilation, start=start, line=line, fixed=(None, None), missing=None)


def skipped_sentence(asked: Asked, names: Names) -> str:
    """Return the sentence on windows that are skipped because they reach beyond the image."""
    beyond = {axis: ranges(asked.beyond(axis)) for axis in range(len(asked.lines)) if asked.beyond(axis)}
    where = " and ".join(f"{names.letter} = {positions} along axis {axis}" for axis, positions in beyond.items())
    return (
        f"Windows that reach beyond {names.image} are skipped: nothing is used at {where}. "
        f"Only elements beyond {names.image} should count as zeros."
    )


def _axis_sentences(axis: Axis, index: int, asked: Asked, names: Names, reasons: Sequence[str]) -> Iterator[str]:
    """Yield the computation of one axis, where it is not its line."""
    if axis.right:
        return
    due = asked.lines[index]
    if axis.rotated is not None:
        yield _rotated(axis, index, names)
        return
    if axis.blocks is not None:
        yield _blocks(axis.blocks, index, due, names)
        return
    if axis.taps is not None:
        uses = [f"tap {t} as tap {work}" for t, work in enumerate(axis.taps) if t != work]
        yield f"Along axis {index} taps are exchanged: {listed(uses)} should be used."
        return
    if axis.line is None or (axis.missing and axis.extra):
        yield from _rows(axis, index, due, names)
        return
    if axis.line != due:
        shown, wanted, places = list(axis.line), list(due), []
        for column, letter in enumerate((names.letter, "t")):
            value = axis.fixed[column]
            if value is not None:
                shown[2] += shown[column] * value
                shown[column] = 0
                asked_for = asked.shapes[("positions", "weight")[column]][2 + index]
                if max(axis.sizes[column], asked_for) > 1:
                    places.append(f"{letter} = {value}")
                else:
                    wanted[2] += wanted[column] * value
                    wanted[column] = 0
        only = f" (only {' and '.join(places)} {'are' if len(places) > 1 else 'is'} used)" if places else ""
        text = formula((shown[0], shown[1], shown[2]), names.letter)
        right = formula((wanted[0], wanted[1], wanted[2]), names.letter)
        if any(_at(axis, axis.line) - _at(axis, due)):
            why = "" if axis.extra else "; ".join(reasons)
            outside = not any(wanted[:2]) and not 0 <= wanted[2] < axis.sizes[2]
            yield (
                f"Along axis {index} {names.reads(text)}{only}; it should be {names.image}[{right}]"
                f"{', outside it' if outside else ''}{': ' if why else ''}{why}."
            )
    yield from _border(axis, index, names)
    if axis.missing:
        yield f"Along axis {index}, {_missing(axis.missing, names)}."
    if axis.extra:
        first = "; ".join(_place(row, names) for row in axis.extra.values)  # type: ignore[arg-type]
        products = "product is" if axis.extra.count == 1 else "products are"
        yield (
            f"Along axis {index}, {axis.extra.count} further {products} used: {first}{'; …' * (axis.extra.count > 3)}."
        )


def _border(axis: Axis, index: int, names: Names) -> Iterator[str]:
    """Yield the sentence on elements beyond the image that are not zero."""
    kinds = dict(zip(("before its first", "beyond its last"), axis.border, strict=True))
    wrong = {side: border for side, border in kinds.items() if border != "zeros"}
    if not wrong:
        return
    assert axis.line is not None
    places = [axis.line[0] * o + axis.line[1] * t + axis.line[2] for o, t in np.ndindex(*axis.sizes[:2])]
    beyond = {"before its first": min(places) < 0, "beyond its last": max(places) >= axis.sizes[2]}
    unseen = [side for side in kinds if side not in wrong and not beyond[side]]
    happens = "falls" if names.result == names.image else "is read"
    rest = f" (nothing {happens} {unseen[0]} element on this problem)" if unseen else ""
    both = len(wrong) == 2 and len(set(wrong.values())) == 1
    where = ["on both sides of " + names.image] if both else [f"{side} element" for side in wrong]
    for side, border in zip(where, wrong.values(), strict=False):
        if names.result == names.image:
            end = BORDER_ENDS[border]
            yield f"Along axis {index}, what falls {side}{rest} is added to {end}; it should be dropped."
        else:
            yield f"Along axis {index}, {side}{rest}, {names.image} {border}; it should be zero there."


def _at(axis: Axis, line: Line) -> Array:
    """Return a line's elements at the positions and taps that are used."""
    rows = np.array(sorted(axis.reads)).reshape(-1, 3)
    return rows[:, 0] * line[0] + rows[:, 1] * line[1] + line[2]


def _rotated(axis: Axis, index: int, names: Names) -> str:
    """Return the sentence on positions or elements that are rotated."""
    assert axis.rotated is not None
    letter, places = axis.rotated
    role, size = ("positions", axis.sizes[0]) if letter == "o" else ("image", axis.sizes[2])
    array, letter = names.symbols[role], names.letter if letter == "o" else "i"
    verb = "is what" if array == names.result else "is used as"
    sign = "−" if places > 0 else "+"
    first, other = (0, -places % size) if places > 0 else (size - 1, (size - 1 - places) % size)
    return (
        f"Along axis {index}, {array}[{letter}] {verb} {array}[{letter} {sign} {abs(places)}] should be, and "
        f"{array}[{first}] {verb} {array}[{other}] should be: {array} is rotated."
    )


def _blocks(blocks: tuple[str, str, int], index: int, due: Line, names: Names) -> str:
    """Return the sentence on blocks in reverse order, or on repeated positions."""
    kind, letter, length = blocks
    array = names.symbols["positions" if letter == "o" else "image"]
    if kind == "repeated":
        return (
            f"Along axis {index} each element of {array} is used at {length} positions, as many as the stride: "
            f"it is repeated (nearest neighbour), where zeros should be inserted."
        )
    cropped = ", counted before the padding is cropped," if letter == "i" and due[2] else ""
    return f"Along axis {index} every block of {length} elements{cropped} is in reverse order in {array}."


def _place(row: tuple[int, ...], names: Names) -> str:
    return f"{names.letter} = {row[0]}, t = {row[1]} with {names.image}[{row[2]}]"


def _rows(axis: Axis, index: int, due: Line, names: Names) -> Iterator[str]:
    """Yield the first rows of an axis that no line fits, and the right ones."""
    if not axis.reads:
        yield f"Along axis {index} nothing is computed."
        return
    right = row_set(line_triples(due, *axis.sizes))
    wrong, missing = sorted(axis.reads - right), sorted(right - axis.reads)
    text = f"Along axis {index}, {len(wrong)} of {plural(len(axis.reads), 'product')} {grammar(wrong)[1]} wrong"
    text += f": {'; '.join(_place(row, names) for row in wrong[:3])}{'; …' * (len(wrong) > 3)}"
    if missing:
        text += f". Missing: {'; '.join(_place(row, names) for row in missing[:3])}{'; …' * (len(missing) > 3)}"
    yield f"{text}. The right element is {names.image}[{formula(due, names.letter)}]."


def _number_clauses(numbers: Numbers, due: Line, reasons: Mapping[tuple[str, str], str]) -> Iterator[str]:
    """Yield the differences of an axis' stride and dilation, by their confirmed causes or else as numbers."""
    yield from (clause for (what, _), clause in reasons.items() if what == "line")
    if ("line", "exchanged") in reasons:
        return
    if numbers[1] == 0:
        yield "the dilation is 0, so that all taps meet in one element"
    for column, name in enumerate(("stride", "dilation")):
        value = numbers[column]
        if value is not None and abs(value) != due[column] and (name, value) != ("dilation", 0):
            known = (clause for (what, _), clause in reasons.items() if what == name)
            yield next(known, f"the {name} is {abs(value)}, not {due[column]}")


def _missing(pattern: Pattern, names: Names) -> str:
    numbers = pattern.name in ("o", "t", "i")
    s, are = grammar(pattern.values)
    values = ranges(list(pattern.values)) if numbers else listed(list(pattern.values))  # type: ignore[arg-type]
    letter = names.letter
    return {
        "all": "nothing is computed",
        "o": f"nothing is used at {letter} = {values}",
        "t": f"tap{s} t = {values} {are} never used",
        "i": f"element{s} {values} of {names.image} "
        + (f"get{'' if s else 's'} no product" if names.image == names.result else f"{are} never used"),
        "overlap": f"of the products that meet in one element of {names.image} only that of the {values} tap is kept",
    }.get(pattern.name) or (
        f"{plural(pattern.count, 'product')} {'is' if pattern.count == 1 else 'are'} missing: "
        + "; ".join(_place(row, names) for row in pattern.values)  # type: ignore[arg-type]
        + "; …" * (pattern.count > 3)
    )


def pairing_sentence(pairing: tuple[tuple[int, ...], tuple[int, ...]], names: Names) -> Iterator[str]:
    """Yield which axes go together where they are exchanged."""
    for what, order in zip((f"positions {names.letter}", "taps t"), pairing, strict=True):
        if order != tuple(range(len(order))):
            pairs = ", ".join(f"axis {a} of {names.image} with axis {b}" for a, b in enumerate(order) if a != b)
            yield f"Axes are exchanged: {pairs} of the {what}."


# --- Channels --------------------------------------------------------------------------------------------------------


def channel_sentences(channels: Channels, asked: Asked, names: Names) -> Iterator[str]:
    """Yield which channels go together instead of the right ones."""
    if channels.name == "right":
        return
    of, to, groups = names.positions_channel, names.image_channel, asked.groups
    per = asked.shapes["positions"][1] // groups
    known = {
        "first inputs": f"Every group goes with the {to}s of group 0.",
        "first positions": f"Every group goes with the {of}s of group 0.",
        "groups reversed": f"Groups are reversed: the {of}s of group g go with the {to}s of group {groups - 1} − g.",
        "next group": f"The {of}s of each group go with the {to}s of the next group.",
        "previous group": f"The {of}s of each group go with the {to}s of the previous group.",
        "image interleaved": f"The {to}s are interleaved: group g uses {to}s g, g + {groups}, …, not a block.",
        "positions interleaved": f"The {of}s are interleaved: group g has {of}s g, g + {groups}, …, not a block.",
        "both interleaved": f"Input and output channels are interleaved: group g uses channels g, g + {groups}, …",
        "modulo": f"Each {of} k goes with the {to}s of group k mod {groups}; it should be group k // {per}.",
        "first weights": "Every group uses the weight rows of group 0.",
        "weights reversed": "Groups use each other's weight rows, in reverse order.",
        "first group": "Only group 0 is computed.",
        "last group": "Only the last group is computed.",
        "columns reversed": f"The {to}s of each group are taken in reverse order.",
        "first column": f"Only the first {to} of each group is used.",
        "last column": f"Only the last {to} of each group is used.",
        "every column": f"Each weight is used with all {to}s of its group.",
        "rows reversed in groups": "The weight rows of each group are taken in reverse order.",
        "first row of groups": f"All {of}s of a group use the first weight row of the group.",
        "last rows": f"Only the last {of} of each group is used.",
        "first rows": f"Only the first {of} of each group is used.",
        **{
            f"earlier {role}{group}": _earlier(role, bool(group), names)
            for role in ("positions", "image")
            for group in ("", " of the group")
        },
        "rows reversed": "The weight rows are taken in reverse order.",
        "first row": "Weight row 0 is used for all.",
    }
    if channels.name is not None:
        yield known[channels.name]
        return
    if channels.missing is not None and channels.missing.name in ("q", "row", "col", "m", "all"):
        words = {"q": of, "row": "weight row", "col": f"{to} {{}} of each group", "m": to}
        yield (
            "No channel is used."
            if channels.missing.name == "all"
            else _unused(words[channels.missing.name], list(channels.missing.values))  # type: ignore[arg-type]
        )
        return
    right = asked.channels({**asked.shapes})
    for q in channels.wrong[:3]:
        due = right[right[:, 0] == q]
        partners = {to: (channels.reads, 3), "weight row": (channels.rows, 1)}
        pairs = {
            noun: (seen.get(q, []), np.unique(due[:, column]).tolist()) for noun, (seen, column) in partners.items()
        }
        wrong = [(_those(noun, seen), _those(noun, wanted)) for noun, (seen, wanted) in pairs.items() if seen != wanted]
        if wrong:
            seen, wanted = (" and ".join(words) for words in zip(*wrong, strict=True))
            found = seen if q in channels.reads else "nothing"
            yield f"{of.capitalize()} {q} goes with {found}; it should be {wanted}."
        else:
            yield f"{of.capitalize()} {q} goes with its {to}s and weight columns in another order."
    if len(channels.wrong) > 3:
        yield f"{len(channels.wrong)} of {asked.shapes['positions'][1]} {of}s are wrong."


def _unused(title: str, values: Sequence[int]) -> str:
    """Return the sentence on channels, or weight rows, that are not used.

    >>> _unused("output channel", [5]), _unused("input channel {} of each group", [1, 2])
    ('Output channel 5 is not used.', 'Input channels 1, 2 of each group are not used.')
    """
    s, are = grammar(values)
    noun, _, more = title.partition(" {}")
    return f"{noun.capitalize()}{s} {ranges(values)}{more} {are} not used."


def _those(noun: str, values: Sequence[int]) -> str:
    return f"{noun}{grammar(values)[0]} {ranges(values)}"


def _earlier(role: str, group: bool, names: Names) -> str:
    """Return the sentence on channels that also have the products of the channels before them."""
    channel = names.positions_channel if role == "positions" else names.image_channel
    letter = "k" if channel == "output channel" else "c"
    before = f"{channel}s before {letter} in its group" if group else f"{channel}s 0 … {letter} − 1"
    if names.symbols[role] == names.result:
        return f"{names.result}[{letter}] also contains the sums of {before}: a cumulative sum over channels."
    return f"{channel.capitalize()} {letter} is also used as the {before}."


def sample_sentences(samples: str | None, pairs: Sequence[tuple[int, ...]], count: int, names: Names) -> Iterator[str]:
    """Yield how samples go together instead of each with itself."""
    if samples == "right":
        return
    positions, image = names.symbols["positions"], names.image
    partners: dict[int, list[int]] = {n: [] for n in range(count)}
    for a, b in pairs:
        partners[a].append(b)
    if samples is None:
        wrong = {a: found for a, found in partners.items() if found != [a]}
        shown = [
            f"sample {a} of {positions} goes with sample{'s' * (len(found) > 1)} {ranges(found)} of {image}"
            if found
            else f"sample {a} of {positions} is not used"
            for a, found in wrong.items()
        ]
        rest = "; the others are right" * (len(wrong) < count)
        yield f"Samples are mixed: {'; '.join(shown[:4])}{'; …' * (len(shown) > 4)}{rest}."
    elif samples.startswith("only"):
        unused = [a for a, found in partners.items() if not found]
        kept = [a for a, found in partners.items() if found]
        fewer = len(unused) < len(kept)
        s, are = grammar(unused if fewer else kept)
        yield (
            f"Sample{s} {ranges(unused)} of the batch {are} not used."
            if fewer
            else f"Only sample{s} {ranges(kept)} of the batch {are} used."
        )
    elif samples == "reversed":
        yield "Samples are in reverse order."
    else:
        yield f"Every sample of {names.symbols['positions']} goes with every sample of {names.image}."


# --- Factors ---------------------------------------------------------------------------------------------------------


def multiplied(value: complex, problem: Problem, second: Second | None = None, again: complex | None = None) -> str:
    """Return "is …" for a factor, with the ratio that it equals on this problem and, as `again`, on the second one.

    >>> problem = Problem(3, 1, 1, (4,), (1,), (1,), (1,), ((0, 0),), bias=False)
    >>> other = Second(Asked(Problem(2, 1, 1, (3,), (1,), (1,), (1,), ((0, 0),), bias=False)), {})
    >>> multiplied(1 / 3, problem), multiplied(1 / 3, problem, other, 0.5), multiplied(2, problem, other, 2)
    ('multiplied by 1/3', 'multiplied by 1/3, which is 1/N (N = 3 samples)', 'added twice')
    """
    if isinstance(value, complex):
        return f"multiplied by {value:.4g}"
    fraction = Fraction(value).limit_denominator(2000)
    shown = str(fraction) if abs(float(fraction) - value) <= 1e-3 * abs(value) else f"{value:.4g}"
    seen = ratios(value, problem)
    known = ratios(again, second.asked.problem) if second and again and not isinstance(again, complex) else {}
    named = [f"{name} ({counted})" for name, counted in seen.items() if name in known]
    if value == 2 and not named:
        return "added twice"
    text = f"multiplied by {shown.replace('-', '−')}"
    return text + (f", which is {' or '.join(named)}" if named else "")


FACTOR_PLACES = {"n": "sample", "o": "position", "row": "weight row", "col": "weight column", "t": "tap"}


def factor_sentences(
    factors: Factors, names: Names, problem: Problem, second: Callable[[], Second | None]
) -> Iterator[str]:
    """Yield by what the products are multiplied, other than 1."""
    if factors.by == "":
        for value in factors.values.values():
            if value == -1:
                yield "Its sign is wrong: every product is multiplied by −1."
            elif abs(value - 1) > 1e-3:
                other = second()
                again = other.facts.get("factor") if other else None
                times = multiplied(value, problem, other, again)
                confirmed = other is None or again == value or "which is" in times
                yield f"{'Every' if confirmed else 'On this problem, every'} product is {times}."
    elif factors.by == "overlap":
        yield f"Products that meet in one element of {names.image} are averaged instead of added."
    else:
        name, _, axis = (factors.by or "").partition(" of ")
        where = f" along {axis}" if axis else ""
        place = {"q": names.positions_channel, "m": names.image_channel, "i": f"element of {names.image}"}.get(
            name, FACTOR_PLACES.get(name, name)
        )
        places: dict[complex, list[object]] = {}
        for key, value in factors.values.items():
            if abs(value - 1) > 1e-3:
                places.setdefault(round(value, 6) if isinstance(value, float) else value, []).append(key)
        for value, keys in list(places.items())[:4]:
            s = grammar(keys)[0]
            shown = ranges(keys) if all(isinstance(key, int) for key in keys) else listed(keys)  # type: ignore[arg-type]
            times = "added twice" if value == 2 else f"multiplied by {value:.4g}".replace("-", "−")
            noun, _, rest = place.partition(" of ")
            yield f"Products of {noun}{s} {shown}{f' of {rest}' if rest else ''}{where} are {times}."
        if len(places) > 4:
            yield f"The factor depends on the {place}{where}; there are {len(places)} different ones."


# --- Layouts and numbers ---------------------------------------------------------------------------------------------


def axis_names(role: str, transposed: bool, d: int, per_group: bool = False) -> list[str]:
    """Return the names of an array's axes.

    >>> axis_names("image", False, 2), axis_names("weight", False, 1, True)
    (['N', 'C', 'D1', 'D2'], ['G', 'K/G', 'C/G', 'k1'])
    """
    first, second = ("K", "C") if not transposed else ("C", "K")
    if role == "weight":
        head = ["G", f"{first}/G", f"{second}/G"] if per_group else [first, f"{second}/G"]
        return head + [f"k{a + 1}" for a in range(d)]
    return ["N", first if role == "positions" else second, *(f"D{a + 1}" for a in range(d))]


def layout_orders(layout: Layout, names: Names, d: int) -> tuple[list[str], list[str]] | None:
    """Return the order of axes in which the array was made, and that to which it was reshaped."""
    if layout.order is None:
        return None
    right = axis_names(layout.role, names.transposed, d, layout.per_group)
    order = [right[axis] for axis in layout.order]
    is_result = names.symbols[layout.role] == names.result
    return (order, right) if layout.merged == is_result else (right, order)


def layout_sentence(
    layout: Layout, names: Names, shape: Sequence[int], orders: tuple[list[str], list[str]] | None
) -> str:
    """Return which array has its elements in other places."""
    array = names.symbols[layout.role]
    if orders is not None:
        before, after = (", ".join(axes) for axes in orders)
        if layout.role == "weight" and not layout.per_group and orders[0][:2] == orders[1][:2]:
            if array == names.result:
                return f"The kernel's axes are exchanged: {array} is returned as ({before}) instead of ({after})."
            return f"The kernel's axes are exchanged: {array} is read in the order ({after}) instead of ({before})."
        text = f"{array} is as if reshaped from ({before}) to ({after})"
        return f"{text}; reshaping moves no element, a transpose is needed."
    wrong = np.flatnonzero((layout.element >= 0) & (layout.element != np.arange(len(layout.element))))
    unused = np.count_nonzero(layout.element < 0)
    verb = "is what" if array == names.result else "is used as"
    shown = [
        f"{array}[{_index(e, shape)}] {verb} {array}[{_index(layout.element[e], shape)}] should be" for e in wrong[:3]
    ]
    are = grammar(wrong.tolist())[1]
    text = f"{len(wrong)} of {len(layout.element)} elements of {array} {are} in the wrong place: {'; '.join(shown)}"
    return text + "; …" * (len(wrong) > 3) + (f". {unused} are not used." if unused else ".")


def _index(flat: int, shape: Sequence[int]) -> str:
    return ",".join(str(int(i)) for i in np.unravel_index(flat, shape))


def number_sentences(table: Table, right: Table, names: Names, unread: Array) -> Iterator[str]:
    """Yield how many elements of the result differ, and the products of the first; `unread` are not fully known."""
    role = roles(names.part, names.transposed)[0]
    shape = table.shapes[role]
    elements = plural(math.prod(shape), "element")
    odd = table.only(np.abs(table.factor - 1) > 1e-3)
    differing = [part.flat[role] for part in (right.without(table), table.without(right), odd)]
    wrong = np.setdiff1d(np.concatenate(differing), unread)
    if len(wrong):
        first, least = int(wrong[0]), "At least " * bool(len(unread))
        place = f"{names.result}[{_index(first, shape)}]"
        yield (
            f"{least}{len(wrong)} of {elements} of {names.result} are wrong, first {place}: "
            f"it adds {_terms(table, role, first, names)}; it should be {_terms(right, role, first, names)}."
        )
    if len(unread):
        yield f"The products of {len(unread)} of {elements} of {names.result} {UNREAD}."


def _terms(table: Table, role: str, element: int, names: Names) -> str:
    mine = table.only(table.flat[role] == element)
    others = [name for name in ("weight", "positions", "image") if name != role]
    terms = []
    for j in range(min(3, len(mine.factor))):
        places = "·".join(f"{names.symbols[o]}[{_index(mine.flat[o][j], mine.shapes[o])}]" for o in others)
        factor = mine.factor[j]
        terms.append(places if abs(factor - 1) < 1e-3 else f"{factor:.4g}·{places}".replace("-", "−"))
    return (" + ".join(terms) + " + …" * (len(mine.factor) > 3)) or "nothing"


def sizes(shape: Sequence[int]) -> str:
    """Return spatial sizes: one number, or a tuple."""
    return str(shape[0]) if len(shape) == 1 else str(tuple(shape))
