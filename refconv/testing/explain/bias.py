"""What the bias adds to the output, and what its gradient adds up, each read with unit impulses."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from refconv.testing.explain import words
from refconv.testing.explain.blocks import BLOCKS, Count, Fit, fitting_counts
from refconv.testing.explain.linearity import Refused, check_linear, draw
from refconv.testing.explain.names import (
    MOST_NUMBERS,
    MOST_PLACES,
    PLACES,
    clause,
    grammar,
    in_block,
    in_memory,
    ranges,
)
from refconv.testing.explain.problems import shown
from refconv.testing.explain.report import Part
from refconv.testing.explain.session import Session, check_pointwise
from refconv.testing.explain.table import Asked
from refconv.testing.oracles.definition import Array


def forward_bias(session: Session, element: Array | None) -> tuple[dict[str, Any], list[str]]:
    """Describe what the bias adds to the output.

    Parameters
    ----------
    session : Session
        On a problem with a bias.
    element : numpy.ndarray or None
        For an output with elements out of place, the flat index of the element that belongs there.

    Returns
    -------
    dict
        "is_right", "factor" (None if there are several) and "channels" (for each channel, the bias elements it gets).
    list of str
        Sentences; none if it is right.
    """
    zero, none = np.zeros_like(session.x), session.bias
    assert none is not None
    bias = draw(np.random.default_rng(9), none.shape, session.dtype)
    without = session.y(zero, session.weight, none)
    added = session.y(zero, session.weight, bias) - without
    if not np.allclose(added, session.y(session.x, session.weight, bias) - session.y(session.x, session.weight, none)):
        return {"is_right": False}, ["What the bias adds depends on x."]
    other = session.other_weight
    if not np.allclose(added, session.y(zero, other, bias) - session.y(zero, other, none)):
        return {"is_right": False}, ["What the bias adds depends on the weight."]
    units = np.eye(len(none), dtype=none.dtype)
    each = np.stack([session.y(zero, session.weight, unit) - without for unit in units])
    if not np.allclose(np.tensordot(bias, each, axes=1), added):
        return {"is_right": False}, ["The output is not linear in the bias."]
    inside = tuple(slice(0, n) for n in session.asked.problem.output_shape)
    if not each[:, ~_mask(each.shape[1:], inside)].any():
        each = each[(slice(None), *inside)]
    if element is not None and len(element) == each[0].size:
        each = _moved(each, element)
    return _added(session, each)


def _moved(each: Array, element: Array) -> Array:
    """Return the additions; an element with the bias of the element that it replaces counts as right."""
    flat = each.reshape(len(each), -1)
    channels = np.broadcast_to(np.arange(each.shape[2]).reshape(-1, *[1] * (each.ndim - 3)), each.shape[1:]).reshape(-1)
    units = np.eye(each.shape[2], len(each), dtype=each.dtype)
    same = (element >= 0) & np.all(flat == units[channels[element]].T, axis=0)
    return np.where(same, units[channels].T, flat).reshape(each.shape)


def _mask(shape: Sequence[int], inside: tuple[slice, ...]) -> Array:
    mask = np.zeros(shape, bool)
    mask[inside] = True
    return mask


def _added(session: Session, each: Array) -> tuple[dict[str, Any], list[str]]:
    """Describe an array (bias element, N, K, o1, …) of what a bias of one adds."""
    count, problem = len(each), session.asked.problem
    used = each != 0
    if not used.any():
        return {"is_right": False, "factor": 0.0, "channels": {}}, ["The bias is ignored."]
    by_channel = used.any(axis=(1, *range(3, each.ndim)))
    sources = {c: np.flatnonzero(by_channel[:, c]).tolist() for c in range(each.shape[2])}
    factors = sorted({round(float(v), 6) for v in each[used].real})
    found = {"factor": factors[0] if len(factors) == 1 else None, "channels": {str(c): s for c, s in sources.items()}}
    said = []
    wrong = {c: s for c, s in sources.items() if s not in ([c], [])}
    block = count // session.asked.groups
    if wrong and all(s == [c % block] for c, s in sources.items()):
        said.append("Every group adds the bias of group 0.")
    elif wrong and all(s == [c // block] for c, s in sources.items()):
        said.append(f"Channel k gets the bias with the number of its group, bias[k // {block}].")
    elif wrong and (axis := _own_axis(used)) is not None:
        said.append(f"The bias is added along {axis} instead of the channels.")
    elif wrong and (text := _one_each(used)) is not None:
        said.append(text)
    elif wrong:
        shown = [f"channel {c} gets bias {ranges(s)}" for c, s in list(wrong.items())[:4]]
        said.append(f"The bias goes to other channels: {'; '.join(shown)}{'; …' * (len(wrong) > 4)}.")
    total = each.sum(axis=0)
    if len(factors) > 1:
        said.append(_several(session, total.real, factors))
    elif factors[0] == -1:
        said.append("The bias is subtracted.")
    elif factors[0] != 1:
        second = session.second("forward")
        again = ((second.facts.get("bias") if second else None) or {}).get("factor")
        said.append(f"The bias is {words.multiplied(factors[0], problem, second, again)}.")
    reached = used.any(axis=0)
    if len(factors) == 1 and not reached.all():
        said.append(_reached(session, reached))
    return found | {"is_right": not said}, said


def _own_axis(used: Array) -> str | None:
    """Return the axis, other than the channels', along which bias element j goes to index j alone."""
    count = len(used)
    for axis in (1, *range(3, used.ndim)):
        others = tuple(a for a in range(1, used.ndim) if a != axis)
        if used.shape[axis] == count and np.array_equal(used.any(axis=others), np.eye(count, dtype=bool)):
            return "the batch" if axis == 1 else f"axis {axis - 3}"
    return None


def _one_each(used: Array) -> str | None:
    """Describe which one bias element each output gets, if it depends on the outputs' places within a channel."""
    count, index = len(used), np.argmax(used, axis=0)
    if np.any(used.sum(axis=0) != 1) or np.all(index == index[:, :, *[slice(0, 1)] * (index.ndim - 2)]):
        return None
    number = np.arange(index.size).reshape(index.shape)
    if np.array_equal(index, number % count):
        return f"Output number i, in memory order, gets bias[i mod {count}]: as with channels last."
    if np.array_equal(index, number // (index.size // count)):
        return f"Output number i, in memory order, gets bias[i // {index.size // count}]."
    plane = index[0, 0].reshape(-1)
    if np.all(index == index[:1, :1]) and plane.size <= MOST_NUMBERS:
        return f"The positions of each channel, in memory order, get bias {', '.join(map(str, plane))}."
    return None


def _several(session: Session, seen: Array, factors: list[float]) -> str:
    """Describe factors of the bias that differ between outputs (N, K, o1, …)."""
    counts = _kernels(session.asked, seen.shape[2:])
    if np.array_equal(seen, np.broadcast_to(counts, seen.shape)):
        low, high = counts.min(), counts.max()
        return f"The bias is added once for every kernel that reaches an output: {low} to {high} times, not once."
    odd = [f"{factor:g}".replace("-", "−") for factor in factors if factor != 1]
    wrong = np.abs(seen - 1) > 1e-6
    if len(odd) == 1 and not np.any(seen == 0) and np.count_nonzero(wrong) * 2 < wrong.size:
        count = np.count_nonzero(wrong)
        return f"The bias is multiplied by {odd[0]} at {count} of {wrong.size} outputs{_where(~wrong, session)}."
    by = _by_place(seen) or f"by numbers from {factors[0]:g} to {factors[-1]:g}, depending on the output"
    return f"The bias is multiplied {by}."


def _by_place(factors: Array) -> str | None:
    """Return the factors (sample, channel, positions) in words, by axis or in memory order; None if they are too many.

    >>> _by_place(np.array([[[[1, 2, 1], [1, 2, 1]]]]))
    'by 2 at position 1 along axis 1; elsewhere by 1'
    >>> _by_place(np.array([[[[1, 3], [3, 1]]]]))
    'with the positions in memory order, by 1, 3, 3, 1'
    """
    varying = [a for a in range(factors.ndim) if np.any(factors != np.take(factors, [0], a))]
    plane = np.round(factors[tuple(slice(None) if a in varying else 0 for a in range(factors.ndim))], 6)
    values, counts = np.unique(plane, return_counts=True)
    common = values[np.argmax(counts)]
    base = np.argwhere(plane == common)[0]
    lines = [plane[tuple(slice(None) if a == b else i for b, i in enumerate(base))] for a in range(plane.ndim)]
    if common == 1 and np.allclose(functools.reduce(np.multiply.outer, lines), plane):
        clauses = [
            f"by {value:g} at {clause(axis, np.flatnonzero(line == value).tolist(), len(line))}"
            for axis, line in zip(varying, lines, strict=True)
            for value in np.unique(line)
            if value != 1
        ]
        both = " (by both numbers where both places meet)" * (sum(bool(np.any(line != 1)) for line in lines) > 1)
        text = f"{', '.join(clauses)}{both}; elsewhere by 1".replace("-", "−")
        return text if len(clauses) <= MOST_PLACES else None
    if plane.size > MOST_NUMBERS:
        return None
    what = " and ".join(dict.fromkeys(f"{PLACES[a]}s" if a < 2 else "positions" for a in varying))
    return f"with the {what} in memory order, by {', '.join(f'{value:g}' for value in plane.reshape(-1))}".replace(
        "-", "−"
    )


def _kernels(asked: Asked, sizes: Sequence[int]) -> Array:
    """Return for each output of one channel how many (position, tap) pairs it has."""
    column = 2 if asked.problem.transposed else 0
    counts = np.ones((), int)
    for rows, size in zip(asked.spatial(asked.shapes), sizes, strict=True):
        counts = np.multiply.outer(counts, np.bincount(rows[:, column], minlength=size)[:size])
    return counts


def _inside(session: Session) -> Array:
    """Return for each position whether its window is inside x."""
    inside = np.ones((), bool)
    for axis, positions in enumerate(session.asked.problem.output_size):
        inside = np.logical_and.outer(inside, ~np.isin(np.arange(positions), session.asked.beyond(axis)))
    return inside


def _reached(session: Session, used: Array) -> str:
    """Return the sentence on an array (N, K, o1, …) of the outputs to which the bias is added."""
    missing, size = np.count_nonzero(~used), used.size
    if np.array_equal(used, np.broadcast_to(_kernels(session.asked, used.shape[2:]) > 0, used.shape)):
        where = "that a tap reaches" if session.asked.problem.transposed else "whose windows reach x"
        return f"The bias is added only at outputs {where}: {size - missing} of {size}."
    if not session.asked.problem.transposed and np.array_equal(used, np.broadcast_to(_inside(session), used.shape)):
        return f"The bias is missing at outputs whose windows reach beyond x: {missing} of {size}."
    return f"The bias is missing at {missing} of {size} outputs{_where(used, session)}."


def _where(used: Array, session: Session) -> str:
    """Return where an array (sample, channel, positions) is false, if that is a block or all but a block."""
    block = in_block(~used)
    if block is not None:
        return f": {', '.join(block)}" if block else ""
    inside = [np.unique(axis).tolist() for axis in np.nonzero(used)]
    if math.prod(map(len, inside)) != np.count_nonzero(used):
        flat = used[0, 0].reshape(-1)
        count = np.count_nonzero(flat)
        if np.all(used == used[:1, :1]) and flat[:count].all():
            return f": the last {flat.size - count} of the {flat.size} positions in memory order"
        if (text := in_memory(~used)) is not None:
            return f": {text}"
        return f", the first at {tuple(map(int, np.argwhere(~used)[0]))}"
    missing = []
    for axis, (values, size) in enumerate(zip(inside, used.shape, strict=True)):
        absent = sorted(set(range(size)) - set(values))
        if absent:
            few = len(absent) <= len(values)
            missing.append((few, clause(axis, absent if few else values, size)))
    if not any(few for few, _ in missing):
        return f": all but those at {' and '.join(text for _, text in missing)}"
    texts = [text if few else f"all but {text}" for few, text in missing]
    rests = (0, 0, *(session.asked.problem.output_padding or (0,) * (used.ndim - 2)))
    ends = all(values == list(range(size - rest)) for values, size, rest in zip(inside, used.shape, rests, strict=True))
    return f": {' or '.join(texts)}{', which output_padding adds' * (ends and any(rests))}"


def grad_bias(session: Session) -> Part:
    """Describe the gradient of the bias: grad_bias[k] is the sum of g[n, k, o]."""
    problem = session.asked.problem
    shape = session.gradient("grad_bias", session.g, session.x, session.weight).shape
    session.shape = shape
    session.steady("grad_bias")
    check_pointwise(session, "grad_bias")

    def sums(g: Array) -> Array:
        return session.gradient("grad_bias", g, session.x, session.weight).reshape(-1)

    rng = np.random.default_rng(10)
    others = [draw(rng, problem.output_shape, session.dtype) for _ in range(2)]
    zero = sums(0 * session.g)
    if zero.any():
        raise Refused("grad_bias is not zero where g is.", False)
    check_linear(sums, session.g, others[0], zero, ("g", "x and w", "grad_bias"), session.dtype)
    channels = range(problem.c_out)
    said = [] if shape == (problem.c_out,) else [f"grad_bias has shape {shape}; it should be ({problem.c_out},)."]
    axes = (0, *range(2, len(problem.output_shape)))
    if all(np.array_equal(sums(g), g.sum(axes, dtype=_wide(session.dtype))) for g in (session.g, *others)):
        fields: dict[str, Any] = {"factor": 1.0, "samples": "right", "channels": {k: [k] for k in channels}}
        text = (
            " ".join(said)
            or f"It is right on {shown(problem)}: grad_bias[k] is the sum of g over all samples and positions."
        )
        return Part("grad_bias", text, not said, True, True, shape=shape, **fields)
    seen, due = (np.concatenate([f(g) for g in (session.g, *others)]) for f in (sums, lambda g: g.sum(axes)))
    factor = float(np.vdot(due, seen).real / np.vdot(due, due).real) if seen.shape == due.shape else 0.0
    if factor and np.allclose(seen, factor * due):
        return _multiplied(session, factor, said)
    count = math.prod(problem.output_shape)
    session.affordable(count)
    units = np.zeros((count, count), session.dtype)
    np.fill_diagonal(units, 1)
    each = np.stack([sums(unit.reshape(problem.output_shape)) for unit in units], axis=-1)
    if not all(np.allclose(each @ g.reshape(-1), sums(g)) for g in others):
        raise Refused("It is not the sum of what single elements of g give.", False)
    fields, more = _summed(session, each.reshape(math.prod(shape), *problem.output_shape))
    return Part("grad_bias", " ".join([*said, *more]), False, True, False, shape=shape, **fields)


def _first_elements(reached: Array) -> str | None:
    """Return the sentence on elements of g (N, K, o1, …) that are the first of each channel in memory, not a block."""
    flat = np.moveaxis(reached, 1, 0).reshape(reached.shape[1], -1)
    first, whole = int(np.count_nonzero(flat[0])), flat.shape[1]
    if first == whole or not np.array_equal(flat, np.broadcast_to(np.arange(whole) < first, flat.shape)):
        return None
    head = f"Of the {whole} elements of g in a channel (samples, then positions) only the first {first}"
    is_block = math.prod(len(np.unique(axis)) for axis in np.nonzero(~reached)) == np.count_nonzero(~reached)
    return None if is_block else f"{head} are read."


def _multiplied(session: Session, factor: float, said: list[str]) -> Part:
    """Describe a gradient of the bias that is a multiple of the right one."""
    second = session.second("grad_bias")
    again = second.facts.get("factor") if second else None
    said.append(
        "Its sign is wrong: g is subtracted."
        if factor == -1
        else f"Every element of g is {words.multiplied(factor, session.asked.problem, second, again)}."
    )
    channels = {k: [k] for k in range(session.asked.problem.c_out)}
    return Part("grad_bias", " ".join(said), False, True, shape=session.shape, factor=factor, samples="right",
                channels=channels)  # fmt: skip


def _wide(dtype: np.dtype[Any]) -> Any:
    return {"c": np.complex128, "f": np.float64}.get(dtype.kind, dtype)


def _summed(session: Session, each: Array) -> tuple[dict[str, Any], list[str]]:
    """Describe an array (element of grad_bias, N, K, o1, …) of the factors of g."""
    size, problem = len(each), session.asked.problem
    used = each != 0
    if not used.any():
        return {"factor": 0.0}, ["On this problem, grad_bias is zero: it reads nothing of g."]
    by_channel = used.any(axis=(1, *range(3, each.ndim)))
    channels = {e: np.flatnonzero(row).tolist() for e, row in enumerate(by_channel)}
    factors = sorted({round(float(v), 6) for v in each[used].real})
    samples = np.flatnonzero(used.any(axis=(0, *range(2, each.ndim))))
    fields: dict[str, Any] = {
        "channels": channels,
        "factor": factors[0] if len(factors) == 1 else None,
        "samples": "right" if len(samples) == each.shape[1] else f"only {', '.join(map(str, samples))}",
    }
    if (text := _summed_wrongly(session, each)) is not None:
        return fields, [text]
    said = []
    if size != problem.c_out or any(read != [e] for e, read in channels.items()):
        shown = [
            f"element {e} adds {f'channel{grammar(read)[0]} {ranges(read)}' if read else 'nothing'}"
            for e, read in channels.items()
            if read != [e]
        ]
        few = shown if len(shown) <= MOST_PLACES else [*shown[:3], "…"]
        said.append(f"Channels are mixed: {'; '.join(few)}.")
    reached = used.any(axis=0)
    if (text := _first_elements(reached)) is not None:
        said.append(text)
    elif not reached.all():
        missing = np.count_nonzero(~reached)
        said.append(f"It does not read {missing} of {reached.size} elements of g{_where(reached, session)}.")
    if len(factors) > 1:
        own = each[range(size), :, range(size)].swapaxes(0, 1) if size == problem.c_out else None
        by = None if own is None or len(said) else _by_place(own.real)
        said.append(f"Elements of g are multiplied {by or f'by numbers from {factors[0]:g} to {factors[-1]:g}'}.")
    elif factors[0] == -1:
        said.append("Its sign is wrong: g is subtracted.")
    elif factors[0] != 1:
        second = session.second("grad_bias")
        again = second.facts.get("factor") if second else None
        said.append(f"Every element of g is {words.multiplied(factors[0], problem, second, again)}.")
    return fields, said or ["It differs from the sum of g over samples and positions."]


@dataclass(frozen=True)
class Sum:
    """A mistake of the sum over g: the factors (element, N, K, o1, …) on any problem, and the sentence about it."""

    factors: Callable[[Asked], Array]
    text: str


def _summed_wrongly(session: Session, each: Array) -> str | None:
    """Return the sentence on factors of g (element, N, K, o1, …) that a known mistake gives on all problems."""
    fitting = [one for one in (*_mixed(session.asked), *_counted(session.asked, each)) if _same(one, session, each)]
    for other in session.elsewhere("grad_bias") if fitting else ():
        try:
            g, seen = other.bias()
        except Refused:
            return None
        due = [np.tensordot(one.factors(other.asked), g, axes=g.ndim) for one in fitting]
        fitting = [one for one, sums in zip(fitting, due, strict=True) if np.array_equal(sums, seen.reshape(-1))]
    return fitting[0].text if fitting else None


def _same(one: Sum, session: Session, each: Array) -> bool:
    return np.array_equal(one.factors(session.asked), each)


def _mixed(asked: Asked) -> Iterator[Sum]:
    """Yield sums over other axes."""
    axes = asked.problem.spatial_dims
    size, sizes = asked.problem.c_out, asked.problem.output_shape

    def sums(of: Callable[[Array, Array, Sequence[int]], Array], count: Callable[[Sequence[int]], int]) -> Any:
        """Return the factors for elements of grad_bias that add the g for which `of` has their number."""

        def factors(asked: Asked) -> Array:
            shape = asked.problem.output_shape
            index, number = np.indices(shape), np.arange(math.prod(shape)).reshape(shape)
            element = np.arange(count(shape)).reshape(-1, *[1] * len(shape))
            return (of(index, number, shape) == element) * 1.0

        return factors

    yield Sum(sums(lambda index, number, shape: shape[1] - 1 - index[1], lambda shape: shape[1]),
              "Its channels are in reverse order.")  # fmt: skip
    yield Sum(
        sums(lambda index, number, shape: index[0] * shape[1] + index[1], lambda shape: shape[0] * shape[1]),
        "It keeps the batch axis: there is one sum for each sample.",
    )
    for axis in (0, *range(2, 2 + axes)):
        kept = "the batch axis" if axis == 0 else f"axis {axis - 2}"
        yield Sum(
            sums(functools.partial(_index, axis), operator.itemgetter(axis)),
            f"It keeps {kept} and sums the channels: element j is the sum over index j of {kept}.",
        )
    text = "g is summed as if reshaped to"
    yield Sum(
        sums(lambda index, number, shape: number % shape[1], lambda shape: shape[1]),
        f"{text} (−1, {size}): element k adds numbers k, k + {size}, … of g in memory order.",
    )
    yield Sum(
        sums(lambda index, number, shape: number // (number.size // shape[1]), lambda shape: shape[1]),
        f"{text} ({size}, −1): element k adds the k-th of {size} equal runs of g in memory order.",
    )
    for block in BLOCKS[1:]:
        pitch = -(-size // block) * block
        if pitch > size:
            yield Sum(
                sums(functools.partial(_pitched, block), operator.itemgetter(1)),
                f"g is summed as if channels were last, and rounded up from {size} to {pitch}: element k adds numbers "
                f"k, k + {pitch}, … of g in the order (N, {', '.join(f'D{a + 1}' for a in range(axes))}, K).",
            )
    for axis in range(3, 2 + axes):
        rest = math.prod(sizes[axis:])
        yield Sum(
            sums(functools.partial(_run, axis), operator.itemgetter(1)),
            f"Axes before axis {axis - 2} are folded into the batch by a reshape: element k adds runs k, k + {size}, … "
            f"of {rest} numbers of g in memory order.",
        )


def _index(axis: int, index: Array, number: Array, shape: Sequence[int]) -> Array:
    found: Array = index[axis]
    return found


def _pitched(block: int, index: Array, number: Array, shape: Sequence[int]) -> Array:
    last = np.moveaxis(np.arange(number.size).reshape(shape[0], *shape[2:], shape[1]), -1, 1)
    return last % (-(-shape[1] // block) * block)


def _run(axis: int, index: Array, number: Array, shape: Sequence[int]) -> Array:
    return number // math.prod(shape[axis:]) % shape[1]


def _counted(asked: Asked, each: Array) -> Iterator[Sum]:
    """Yield sums in which the factor of g depends on a sample or position."""
    if len(each) != each.shape[2]:
        return
    factors = np.stack([each[k, :, k] for k in range(len(each))], axis=1)
    for fit in fitting_counts(_counts(asked), factors.reshape(-1)):
        yield Sum(functools.partial(_by_count, fit=fit), fit.sentence)
    yield Sum(_by_kernels, "Each element of g is added as often as products meet in it: once for every column.")
    yield Sum(_as_x, "Along each axis only the first positions of g are read, as many as x has.")


def _counts(asked: Asked) -> dict[str, Count]:
    sizes = asked.problem.output_shape
    n, k, *o = np.indices(sizes).reshape(len(sizes), -1)
    positions = math.prod(sizes[2:])
    flat = np.ravel_multi_index(tuple(o), sizes[2:])
    of_axes = {f"o{a}": Count(f"positions along axis {a}", o[a], size) for a, size in enumerate(sizes[2:])}
    return of_axes | {
        "n": Count("samples", n, sizes[0]),
        "k": Count("channels", k, sizes[1]),
        "o": Count("positions, in memory order", flat, positions),
        "n o": Count("samples and positions, in memory order", n * positions + flat, sizes[0] * positions),
    }


def _of_each_channel(asked: Asked, factors: Array) -> Array:
    """Return the factors (element, N, K, o1, …) of sums over each channel."""
    sizes = asked.problem.output_shape
    own = np.arange(sizes[1]).reshape(-1, 1, 1, *[1] * (len(sizes) - 2)) == np.indices(sizes)[1]
    result: Array = own * factors.reshape(sizes)
    return result


def _by_count(asked: Asked, fit: Fit) -> Array:
    count = _counts(asked)[fit.name]
    return _of_each_channel(asked, fit.factors(count.number, count.size, fit.block) * 1.0)


def _by_kernels(asked: Asked) -> Array:
    counts = _kernels(asked, asked.problem.output_size)
    return _of_each_channel(asked, np.broadcast_to(counts, asked.problem.output_shape) * 1.0)


def _as_x(asked: Asked) -> Array:
    index = np.indices(asked.problem.output_shape)
    inside = np.all([index[2 + a] < n for a, n in enumerate(asked.problem.size)], axis=0)
    return _of_each_channel(asked, inside * 1.0)
