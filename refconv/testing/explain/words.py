"""Sentences for fitted tables: short, and each a fact of the table."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from refconv.testing.explain.causes import (
    STEPS,
    Numbers,
    axis_ratios,
    axis_reasons,
    blocks,
    caused,
    elements,
    paddings,
    ratios,
    shift,
)
from refconv.testing.explain.fit import Axis, Factors, Pattern
from refconv.testing.explain.layouts import HIDDEN, UNUSED, Layout
from refconv.testing.explain.names import (
    MOST_NUMBERS,
    MOST_PLACES,
    PLACES,
    Names,
    formula,
    grammar,
    in_block,
    in_memory,
    listed,
    plural,
    ranges,
)
from refconv.testing.explain.rules import Due
from refconv.testing.explain.session import Second
from refconv.testing.explain.table import Asked, Line, Table, line_rows, roles
from refconv.testing.oracles.definition import Array
from refconv.testing.oracles.problems import Problem

ZERO = "The result is zero: it adds no product."
UNREAD = "were not found: too many would need calls of their own"
SAME_CALLS = "calls with the same arguments"

BORDER_ENDS = {
    "wraps around to the other end": "the other end",
    "repeats the edge element": "the edge element",
    "reflects, without the edge element": "its reflection, without the edge",
    "reflects, edge element included": "its reflection, edge included",
}
"""To which element a gradient adds what belongs beyond the image, by the kind of the border."""


# --- Axes ------------------------------------------------------------------------------------------------------------


def axes_sentences(
    axes: Sequence[Axis], asked: Asked, names: Names, second: Callable[[], Second | None]
) -> Iterator[str]:
    """Yield the computation of each axis where it is not right.

    A cause is named if it also holds on the second problem; that of a shift if all shifted axes share it. Axes that
    have too few reads to show a cause follow those that show it, if it gives exactly their reads.
    """
    wrong = [a for a, axis in enumerate(axes) if axis.line not in (asked.lines[a], None) and not axis.rules]
    reasons = _reasons(axes, wrong, asked, names, second)
    cause = _shift_cause(axes, wrong, reasons, asked)
    for a, axis in enumerate(axes):
        due, known, shown = asked.lines[a], reasons.get(a, {}), False
        others = [set(reasons[b]) for b in wrong if b != a and None not in (axes[b].stride, axes[b].dilation)]
        if others and (a not in wrong or None in (axis.stride, axis.dilation)):
            shared = {key for key in set.intersection(*others) if key[0] != "shift" and key != ("line", "reversed")}
            moved = _moved(axis, caused(shared | ({cause} if cause else set()), a, asked))
            if moved is not axis:
                axis, known, shown = moved, axis_reasons((moved.stride, moved.dilation, moved.before), a, asked), True
        why = []
        if axis.line not in (due, None):
            seen = (axis.stride, axis.dilation, axis.before)
            why = list(_number_clauses(seen, due, known))
            if axis.line == (-due[0], -due[1], axis.sizes[2] - 1 - due[2]):
                why = [f"{names.image} is reversed"]
            elif late := shift(seen, a, asked):
                why.append((known.get(cause) if cause else None) or elements(late))
                if cause == ("shift", "ignored") and ("shift", "axis") in known:
                    why[-1] += f", or {known['shift', 'axis']}"
        yield from _axis_sentences(axis, a, asked, names, why, shown)


Reasons = dict[int, dict[tuple[str, str], str]]


def _reasons(
    axes: Sequence[Axis], wrong: Sequence[int], asked: Asked, names: Names, second: Callable[[], Second | None]
) -> Reasons:
    """Return the possible causes of the numbers of every wrong axis that hold on the second problem too."""
    other = second() if wrong else None
    again = other.facts.get("numbers") if other else None
    if other and again == [(s, d, -p) for s, d, p in other.asked.lines]:
        again = None  # it is right there
    flipped = names.result if names.part == "grad_weight" else None
    found: Reasons = {}
    for a in wrong:
        first = axis_reasons((axes[a].stride, axes[a].dilation, axes[a].before), a, asked, flipped)
        known = set(axis_reasons(again[a], a, other.asked, flipped)) if other and again else set()
        if axes[a].sizes[1] > 2:  # three taps are hardly reversed by chance
            known.add(("line", "flipped"))
        found[a] = {key: clause for key, clause in first.items() if key in known}
    for a in wrong if other and again else ():  # an axis that does not show a cause there follows one that does
        assert other is not None
        assert again is not None
        first = axis_reasons((axes[a].stride, axes[a].dilation, axes[a].before), a, asked, flipped)
        for key in {key for b in wrong for key in found[b] if key[0] in STEPS} & (first.keys() - found[a].keys()):
            column = STEPS.index(key[0])
            if again[a][column] in (None, caused([key], a, other.asked)[column]):
                found[a][key] = first[key]
    right = [b for b, axis in enumerate(axes) if axis.right]
    for column, name in enumerate(STEPS):  # a cause that all wrong axes share, and that leaves the others right
        each = ({key for key in reasons if key[0] == name} for reasons in found.values())
        keys = [some for some in each if some]
        shared = set.intersection(*keys) if keys else set()
        best = {key for key in shared if all(caused([key], b, asked) == asked.lines[b] for b in right)} or shared
        if not shared and all(any(map(_of_another_axis, some)) for some in keys):
            best = {key for some in keys for key in some if _of_another_axis(key)}  # axes exchange their numbers
        if (name, "ignored") in best and any(line[column] % 2 for line in asked.lines):
            best.discard((name, "halved"))  # that would round down as well
        if best:
            found = {a: {k: c for k, c in known.items() if k[0] != name or k in best} for a, known in found.items()}
    return found


def _of_another_axis(key: tuple[str, str]) -> bool:
    return key[1].startswith("axis ")


def _shift_cause(axes: Sequence[Axis], wrong: Sequence[int], reasons: Reasons, asked: Asked) -> tuple[str, str] | None:
    """Return the one cause that all shifted axes share, preferably one that leaves the other axes right."""
    moved = [a for a in wrong if shift((axes[a].stride, axes[a].dilation, axes[a].before), a, asked)]
    if not moved:
        return None
    common = set.intersection(*({key for key in reasons[a] if key[0] == "shift"} for a in moved))
    if ("shift", "ignored") in common:
        common.discard(("shift", "axis"))  # that of another axis is 0
    if any(key[1].startswith("by ") for key in common):
        return next(iter(common)) if len(common) == 1 else None

    def fits(key: tuple[str, str]) -> bool:
        rest = (a for a, axis in enumerate(axes) if a not in wrong and axis.right)
        return all(paddings(asked, a).get(key[1], (asked.before[a], ""))[0] == asked.before[a] for a in rest)

    fitting = [key for key in common if fits(key)] if len(common) > 1 else list(common)
    return fitting[0] if len(fitting) == 1 else None


def _moved(axis: Axis, line: Line) -> Axis:
    """Return an axis with a line that is known from other axes, if it has exactly the reads."""
    if axis.right or line_rows(line, axis.sizes) != axis.reads:
        return axis
    stride, dilation, start = line
    return replace(
        axis,
        stride=stride,
        dilation=dilation,
        start=start,
        line=line,
        missing=None,
        rules=(),
        fixed=(0 if axis.sizes[0] == 1 else None, 0 if axis.sizes[1] == 1 else None),
    )


def _axis_sentences(
    axis: Axis, index: int, asked: Asked, names: Names, reasons: Sequence[str], always: bool
) -> Iterator[str]:
    """Yield the computation of one axis, where it is not its line, or `always`."""
    if axis.right:
        return
    due = asked.lines[index]
    if axis.rules:
        yield axis.rules[0].sentence(f"Along axis {index}", Due(due, axis.sizes), names)
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
        if always or any(_at(axis, axis.line) - _at(axis, due)):
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
        first = "; ".join(_place(row, names) + _in_place_of(axis, row, names) for row in axis.extra.values)  # type: ignore[arg-type]
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


def _place(row: tuple[int, ...], names: Names) -> str:
    return f"{names.letter} = {row[0]}, t = {row[1]} with {names.image}[{row[2]}]"


def _in_place_of(axis: Axis, row: tuple[int, int, int], names: Names) -> str:
    """Return which position beyond the ends would have this product, if wrapping around makes it this one."""
    if axis.line is None or not axis.line[0]:
        return ""
    place, rest = divmod(row[2] - axis.line[1] * row[1] - axis.line[2], axis.line[0])
    if rest or (place - row[0]) % axis.sizes[0]:
        return ""
    return f", where {names.letter} = {place}, outside {names.symbols['positions']}, would be".replace("-", "−")


def _rows(axis: Axis, index: int, due: Line, names: Names) -> Iterator[str]:
    """Yield the rows of an axis that no line fits, all if they are few, and the right ones."""
    if not axis.reads:
        yield f"Along axis {index} nothing is computed."
        return
    if axis.sizes[0] * axis.sizes[1] <= MOST_NUMBERS:
        yield _every_row(axis, index, due, names)
        return
    right = line_rows(due, axis.sizes)
    wrong, missing = sorted(axis.reads - right), sorted(right - axis.reads)
    text = f"Along axis {index}, {len(wrong)} of {plural(len(axis.reads), 'product')} {grammar(wrong)[1]} wrong"
    text += f": {'; '.join(_place(row, names) for row in wrong[:3])}{'; …' * (len(wrong) > 3)}"
    if missing:
        text += f". Missing: {'; '.join(_place(row, names) for row in missing[:3])}{'; …' * (len(missing) > 3)}"
    yield f"{text}. The right element is {names.image}[{formula(due, names.letter)}]."


def _every_row(axis: Axis, index: int, due: Line, names: Names) -> str:
    """Return the elements that every wrong position uses, tap by tap."""
    used: dict[int, dict[int, list[int]]] = {o: {} for o in range(axis.sizes[0])}
    wanted: dict[int, dict[int, list[int]]] = {o: {} for o in range(axis.sizes[0])}
    for found, rows in ((used, axis.reads), (wanted, line_rows(due, axis.sizes))):
        for o, t, i in sorted(rows):
            found[o].setdefault(t, []).append(i)

    def elements(taps: Mapping[int, Sequence[int]]) -> str:
        return ", ".join("+".join(map(str, taps.get(t, ["none"]))) for t in range(axis.sizes[1]))

    wrong = [o for o in used if used[o] != wanted[o]]
    shown = [f"{elements(used[o])} at {names.letter} = {o}, not {elements(wanted[o])}" for o in wrong]
    rest = "; the others are right" * (len(wrong) < len(used))
    taps = f" of the taps t = 0 to {axis.sizes[1] - 1}" * (axis.sizes[1] > 1)
    return f"Along axis {index}, the elements of {names.image}{taps} are {'; '.join(shown)}{rest}."


def _number_clauses(numbers: Numbers, due: Line, reasons: Mapping[tuple[str, str], str]) -> Iterator[str]:
    """Yield the differences of an axis' stride and dilation, by their confirmed causes or else as numbers."""
    yield from (clause for (what, _), clause in reasons.items() if what == "line")
    if ("line", "exchanged") in reasons:
        return
    if numbers[1] == 0:
        yield "the dilation is 0, so that all taps meet in one element"
    for column, name in enumerate(STEPS):
        value = numbers[column]
        if value is not None and abs(value) != due[column] and (name, value) != ("dilation", 0):
            known = [clause for (what, _), clause in reasons.items() if what == name]
            yield " or ".join(known) or f"the {name} is {abs(value)}, not {due[column]}"


def _missing(pattern: Pattern, names: Names) -> str:
    numbers = pattern.name in ("o", "t", "i")
    s, are = grammar(pattern.values)
    values = ranges(list(pattern.values)) if numbers else listed(list(pattern.values))  # type: ignore[arg-type]
    letter = names.letter
    if pattern.to_the_end and len(pattern.values) > 2 and pattern.values[-1] - pattern.values[0] >= len(pattern.values):  # type: ignore[operator]
        used = "gets a product" if names.image == names.result else "is used"
        return f"no element of {names.image} from {pattern.values[0]} on {used}"
    return {
        "all": "nothing is computed",
        "o": f"nothing is used at {letter} = {values}"
        + (f", or t = {ranges(pattern.taps)} {grammar(pattern.taps)[1]} never used" if pattern.taps else ""),
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
    fractions = (Fraction(value).limit_denominator(most) for most in (50, 2000))
    near = (f for f, limit in zip(fractions, (1e-3, 1e-5), strict=True) if abs(float(f) - value) <= limit * abs(value))
    shown = str(next(near, f"{value:.4g}"))
    seen = ratios(value, problem)
    known = ratios(again, second.asked.problem) if second and again and not isinstance(again, complex) else {}
    named = [f"{name} ({counted})" for name, counted in seen.items() if name in known]
    for others in (axis_ratios, blocks):
        if not named and second and again not in (None, value) and not isinstance(again, complex):
            known = others(again, second.asked.problem)
            named = [f"{name} ({counted})" for name, counted in others(value, problem).items() if name in known]
    if value == 2 and not named:
        return "added twice"
    if any("√" in name for name in named):
        shown = f"{value:.4g}"
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
    elif factors.by == "taps":
        (value,), taps = factors.values.values(), math.prod(problem.kernel)
        number = "" if abs(value - 1) < 1e-3 else f", and multiplied by {value:.4g}".replace("-", "−")
        number += f", which is the number of taps, T = {taps}" * (abs(value - taps) < 1e-3)
        yield (
            f"The products of each position of {names.symbols['positions']} are divided by the number of its taps "
            f"that are inside {names.image}{number}."
        )
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
            shown = ranges(keys, 24) if all(isinstance(key, int) for key in keys) else listed(keys, 24)  # type: ignore[arg-type]
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
    inner = dict(layout.split)
    whole = enumerate(axis_names(layout.role, names.transposed, d, layout.per_group))
    pairs = ([f"{name}/{inner[a]}", f"{inner[a]} of {name}"] if a in inner else [name] for a, name in whole)
    right = [name for pair in pairs for name in pair]
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
            made, put = ("computed", "stored") if array == names.result else ("listed", "used")
            return (
                f"The kernel's axes are exchanged: the taps of {array} are {made} in the order ({before}) and {put} in "
                f"the order ({after})."
            )
        text = f"{array} is as if reshaped from ({before}) to ({after})"
        return f"{text}; reshaping moves no element, a transpose is needed."
    wrong = np.count_nonzero((layout.element >= 0) & (layout.element != np.arange(len(layout.element))))
    unused = np.count_nonzero(layout.element == UNUSED)
    are = "is" if wrong == 1 else "are"
    least = "At least " if np.any(layout.element == HIDDEN) else ""
    text = f"{least}{wrong} of {len(layout.element)} elements of {array} {are} in the wrong place: "
    text += _places(layout, names, shape)
    return text + (f". {unused} are not used." if unused else ".")


def _places(layout: Layout, names: Names, shape: Sequence[int]) -> str:
    """Return which elements of an array are in which places, by their indices on the axes that matter."""
    array = names.symbols[layout.role]
    verb = ("is what", "are what") if array == names.result else ("is used as", "are used as")
    axes, moves = _moves(layout.element, shape)
    wrong = {here: there for here, there in moves.items() if here != there}
    sizes = [shape[a] for a in axes]
    turns = {(there[0] - here[0]) % sizes[0] for here, there in moves.items()} if len(axes) == 1 else set()
    if len(turns) == 1 and len(moves) > 2:
        place = [f"(j + {min(turns)}) mod {sizes[0]}" if a in axes else ":" for a in range(len(shape))]
        here = ",".join("j" if a in axes else ":" for a in range(len(shape)))
        return f"{array}[{here}] {verb[0]} {array}[{','.join(place)}] should be"
    if len(wrong) > MOST_PLACES and math.prod(sizes) <= MOST_NUMBERS:
        of_axes = axis_names(layout.role, names.transposed, len(shape) - 2)
        numbers = [moves.get(here) for here in np.ndindex(*sizes)]
        shown = ["none" if there is None else str(np.ravel_multi_index(there, sizes)) for there in numbers]
        order = f"numbered in the order ({', '.join(of_axes[a] for a in axes)})"
        return f"{order}, elements 0 to {len(numbers) - 1} {verb[1]} {', '.join(shown)} should be"

    def at(place: tuple[int, ...]) -> str:
        index = dict(zip(axes, place, strict=True))
        return f"{array}[{','.join(str(index.get(a, ':')) for a in range(len(shape)))}]"

    if all(wrong.get(there) == here for here, there in wrong.items()):
        shown = [f"{at(here)} and {at(there)} are exchanged" for here, there in wrong.items() if here < there]
    else:
        shown = [f"{at(here)} {verb[0]} {at(there)} should be" for here, there in wrong.items()]
    return "; ".join(shown if len(shown) <= MOST_PLACES else [*shown[:3], "…"])


def _moves(element: Array, shape: Sequence[int]) -> tuple[list[int], dict[tuple[int, ...], tuple[int, ...]]]:
    """Return the fewest axes on which elements move, the same for all indices of the others, and how they move there.

    >>> _moves(np.array([1, 0, 3, 2]), (2, 2))
    ([1], {(0,): (1,), (1,): (0,)})
    """
    known = np.flatnonzero(element >= 0)
    here, there = (np.array(np.unravel_index(index, shape)) for index in (known, element[known]))
    for count in range(len(shape) + 1):
        for axes in map(list, itertools.combinations(range(len(shape)), count)):
            kept = [a for a in range(len(shape)) if a not in axes]
            pairs = set(zip(map(tuple, here[axes].T.tolist()), map(tuple, there[axes].T.tolist()), strict=True))
            if np.array_equal(here[kept], there[kept]) and len(dict(pairs)) == len(pairs):
                return axes, dict(sorted(pairs))
    raise AssertionError("on all axes together every element moves to one place")


def _index(flat: int, shape: Sequence[int]) -> str:
    return ",".join(str(int(i)) for i in np.unravel_index(flat, shape))


def number_sentences(table: Table, right: Table, names: Names, unread: Array) -> Iterator[str]:
    """Yield how many elements of the result differ, and how the first does; `unread` are not fully known."""
    role = roles(names.part, names.transposed)[0]
    shape = table.shapes[role]
    elements = plural(math.prod(shape), "element")
    even = np.abs(table.factor - 1) <= 1e-3
    missing, extra = right.without(table.only(even)), table.only(~even | table.beyond(right))
    wrong = np.setdiff1d(np.concatenate([missing.flat[role], extra.flat[role]]), unread)
    if len(wrong):
        first, least = int(wrong[0]), "At least " * bool(len(unread))
        place = f"{names.result}[{_index(first, shape)}]"
        lacks, adds = (_terms(some, role, first, names) for some in (missing, extra))
        said = f"it adds {adds} where it should add {lacks}"
        if not adds:
            said = f"{lacks} is missing"
        if not lacks:
            said = f"it also adds {adds}"
        if np.any(right.flat[role] == first) and _count(missing, role, first) < _count(right, role, first):
            said += "; its other products are right"
        where = _outputs(wrong, shape, role)
        yield f"{least}{len(wrong)} of {elements} of {names.result} are wrong{where}. First {place}: {said}."
        taps = np.zeros(table.shapes["weight"][2:], bool)
        taps[tuple(np.concatenate([each.coordinates["weight"][2:] for each in (missing, extra)], axis=1))] = True
        if role != "weight" and not taps.all() and (block := in_block(taps[None, None], TAPS)):
            yield f"Only {' and '.join(block)} {'is' if taps.sum() == 1 else 'are'} concerned."
    if len(unread):
        yield f"The products of {len(unread)} of {elements} of {names.result} {UNREAD}."


TAPS = ("weight row", "weight column", "tap")
"""What the indices of a weight count."""


def _outputs(wrong: Array, shape: Sequence[int], role: str) -> str:
    """Return where the elements with these flat indices are: a block, all but a block, or places in memory order."""
    names, chosen = TAPS if role == "weight" else PLACES, np.zeros(shape, bool)
    chosen.reshape(-1)[wrong] = True
    if (block := in_block(chosen, names)) is not None:
        return f": those at {', '.join(block)}" if block else ""
    if (block := in_block(~chosen, names)) is not None:
        return f": all but those at {', '.join(block)}"
    places = in_memory(chosen, names)
    return f": those at {places}" if places else ""


def _count(table: Table, role: str, element: int) -> int:
    return int(np.count_nonzero(table.flat[role] == element))


def _terms(table: Table, role: str, element: int, names: Names) -> str:
    mine = table.only(table.flat[role] == element)
    others = [name for name in ("weight", "positions", "image") if name != role]
    terms = []
    for j in range(min(3, len(mine.factor))):
        places = "·".join(f"{names.symbols[o]}[{_index(mine.flat[o][j], mine.shapes[o])}]" for o in others)
        factor = mine.factor[j]
        terms.append(places if abs(factor - 1) < 1e-3 else f"{factor:.4g}·{places}".replace("-", "−"))
    return " + ".join(terms) + " + …" * (len(mine.factor) > 3)


def sizes(shape: Sequence[int]) -> str:
    """Return spatial sizes: one number, or a tuple."""
    return str(shape[0]) if len(shape) == 1 else str(tuple(shape))
