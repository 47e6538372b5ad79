"""Explain a convolution: read out each part on one problem, fit it, and describe it in sentences."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from refconv.integers import as_bool, as_int
from refconv.testing.checker.calls import Caller
from refconv.testing.explain import words
from refconv.testing.explain.addresses import address_models
from refconv.testing.explain.algorithms import fast_algorithm
from refconv.testing.explain.bias import forward_bias, grad_bias
from refconv.testing.explain.causes import size_rules
from refconv.testing.explain.channels import carried, carried_sentence
from refconv.testing.explain.describe import Finding, constant_sentences, right_sentence
from refconv.testing.explain.linearity import Measure, Refused, draw, linearity
from refconv.testing.explain.names import Names
from refconv.testing.explain.problems import another, standard_problem
from refconv.testing.explain.readout import Budget, Entries, agrees, code_sizes, confirmed, read
from refconv.testing.explain.replaced import right_for_another
from refconv.testing.explain.report import Explanation, Part
from refconv.testing.explain.session import Elsewhere, Second, Session, check_pointwise
from refconv.testing.explain.table import (
    PARTS,
    Asked,
    Shape,
    Table,
    classes,
    completed,
    follows,
    roles,
    table_of,
)
from refconv.testing.oracles.definition import Array
from refconv.testing.oracles.problems import Problem

LARGEST = 400_000
"""Products of the largest problem that is read out."""
CALLS = 10_000
"""For the first round of one part, and as many again for elements that read several products together."""


def explain_conv(
    forward: Callable[..., Any],
    backward: Callable[..., Any] | None = None,
    *,
    spatial_dims: int = 2,
    supports: Sequence[str] = ("bias", "stride", "padding", "dilation", "groups"),
    transposed: bool = False,
    dtype: Any = "float64",
    time_limit: float = 20.0,
) -> Explanation:
    """Say what someone's convolution computes, from calls alone.

    A convolution is linear in each operand. A few hundred calls on one small problem therefore show every
    product x[n, c, i] · w[k, c, t] that it adds to each output. Stride, dilation, padding, flips, channels and factors
    are fitted to these products, exactly, and compared with the right ones.

    Parameters
    ----------
    forward, backward : callable
        As for :func:`refconv.testing.check_conv`. Without `backward` only the forward pass is explained.
    spatial_dims : int
        Number of spatial axes d, at least 1.
    supports : sequence of str
        As for :func:`refconv.testing.check_conv`; the problem uses all of it.
    transposed : bool
        Whether it is a transposed convolution, whose weight is (C, K/G, k1, …, kd).
    dtype : dtype or str
        Data type of all operands.
    time_limit : float
        Seconds for everything; a function that is too slow is not explained, and its parts say so.

    Returns
    -------
    Explanation
        ``print`` it, or look at its `parts`.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong. The explanation has the mistakes of the functions.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.testing import explain_conv
    >>> def forward(x, weight, bias, stride, padding, dilation, groups):
    ...     (step,), (p,) = stride, padding
    ...     padded, k = np.pad(x, [(0, 0), (0, 0), (p, p)]), weight.shape[2]
    ...     count = (padded.shape[2] - k) // step + 1
    ...     windows = np.stack([padded[:, :, o : o + k] for o in range(count)], axis=2)
    ...     return np.einsum("ncot,kct->nko", windows, weight)
    >>> print(explain_conv(forward, spatial_dims=1, supports=("stride", "padding")))
    forward: Along axis 0 your output reads x[o + t − 5]; it should be x[4·o + t − 5]: the stride is ignored.
    """
    transposed = as_bool(transposed, "transposed")
    spatial_dims = as_int(spatial_dims, "spatial_dims", 1, 6)
    problem = standard_problem(spatial_dims, supports, transposed)
    with np.errstate(all="ignore"), Caller(time_limit) as call:
        return explain(call, forward, backward, problem, dtype, supports, seconds=time_limit)


def explain(
    call: Caller,
    forward: Callable[..., Any],
    backward: Callable[..., Any] | None,
    problem: Problem,
    dtype: Any,
    supports: Sequence[str],
    *,
    parts: Sequence[str] = PARTS,
    calls: int = CALLS,
    seconds: float = math.inf,
    second: Problem | None = None,
    others: Sequence[Problem] = (),
    fractions: bool = True,
    tables: dict[str, Table] | None = None,
) -> Explanation:
    """Explain a convolution on one problem.

    Parameters
    ----------
    call : Caller
        Makes the calls.
    forward, backward : callable
        The functions; backward may be None.
    problem : Problem
        A small one, with integer groups.
    dtype : dtype or str
        Data type of the operands.
    supports : sequence of str
        Decides how padding, output padding and bias are passed.
    parts : sequence of str
        The parts to explain.
    calls : int
        For the first round of one part, and as many again for elements that read several products together. A part
        that would take more says so.
    seconds : float
        Time for all parts together; parts that would take longer say so. The findings then depend on how fast the
        calls are.
    second : Problem, optional
        A problem on which the same should be wrong: a cause is named only if it shows there too. By default the same
        problem with other numbers.
    others : sequence of Problem
        More such problems, to distinguish causes that fit the second too.
    fractions : bool
        Whether results of numbers that are not whole are looked at too.
    tables : dict, optional
        Products of the parts that were explained earlier on the same problem; the products of `parts` are entered.

    Returns
    -------
    Explanation
        One :class:`Part` for each part.
    """
    budget = Budget(calls, time.perf_counter() + seconds)

    def session_on(asked: Asked, known: dict[str, Table], *more: Any) -> Session:
        return Session(call, forward, backward, asked, np.dtype(dtype), supports, budget, fractions, known, *more)

    @functools.cache
    def on_second(part: str) -> Second | None:
        others = [second] if second else [another(problem), another(problem, less_padding=True)]
        found: Second | None = None
        for other in others:
            if min(other.output_size) < 1 or (found and (found.is_determined or other == others[0])):
                continue
            session = session_on(Asked(other), {})
            session.budget = replace(budget, calls=2 * calls)
            part_there = _explained(session, part)
            found = Second(session.asked, vars(part_there) | session.facts)
        return found

    def elsewhere(part: str) -> Iterator[Elsewhere]:
        first = second or another(problem)
        for other in dict.fromkeys((first, *others, *([] if second else [another(first), another(problem, True)]))):
            if min(other.output_size) > 0:
                asked = Asked(other)
                there = session_on(asked, {})
                yield Elsewhere(asked, functools.partial(_shows, there, part), functools.partial(_grad_bias, there))

    session = session_on(Asked(problem), {} if tables is None else tables, on_second, elsewhere)
    wanted = [part for part in PARTS if part in parts and (part == "forward" or backward is not None)]
    return Explanation({part: _explained(session, part) for part in wanted}, problem)


def _explained(session: Session, part: str) -> Part:
    """Return the finding for one part; if something prevents the readout, that is the finding."""
    session.start()
    try:
        _check_size(session.asked.problem)
        if time.perf_counter() > session.budget.deadline:
            raise Refused("There was no time left to read it out.")
        found = grad_bias(session) if part == "grad_bias" else _bilinear(session, part)
        contradicts = words.UNREAD in found.text
    except Refused as refused:
        found = Part(part, refused.text, is_linear=refused.linear, inputs=refused.inputs, shape=session.shape)
        contradicts = refused.linear is False and words.SAME_CALLS not in refused.text
        text = None
        if refused.linear is False or refused.inputs:
            with contextlib.suppress(Refused):
                text = right_for_another(session, part)
        if text:
            found, contradicts = replace(found, text=text, is_linear=False), False
    try:
        varying = session.varying(part) if contradicts else None
    except Refused:
        varying = None
    return replace(found, text=varying, is_linear=False) if varying else found


def _check_size(problem: Problem) -> None:
    positions = problem.size if problem.transposed else problem.output_size
    counts = (problem.batch or 0, *problem.weight_shape, *positions)
    if 0 in (*counts, *problem.x_shape, *problem.output_shape):
        raise Refused("This problem has no products to read out.")
    if math.prod(counts) > LARGEST:
        raise Refused("This problem is too large to be read out.")


def _bilinear(session: Session, part: str) -> Part:
    """Read out and describe a part that is linear in each of two operands."""
    asked, dtype = session.asked, session.dtype
    transposed = asked.problem.transposed
    out, a, b = roles(part, transposed)
    names = Names(part, transposed)
    measure, shapes = session.measure(part), dict(asked.shapes)
    if part != "forward":
        session.steady(part)
    positions, image = (session.x, session.g) if transposed else (session.g, session.x)
    operands = {"weight": session.weight, "positions": positions, "image": image}
    if part == "forward":
        operands[b] = session.x
    said = _shape(session, measure(operands[a], operands[b]).shape, names)
    assert session.shape is not None
    shapes[out] = session.shape
    measure(operands[a], operands[b])  # for the time of a second call
    session.affordable(24)
    labels = (names.symbols[a], names.symbols[b], "the output" if part == "forward" else part)
    entries = None if said else _of_forward(session, part, shapes)
    follows_forward = entries is not None
    if entries is None:
        check_pointwise(session, part)
        if not said and (text := fast_algorithm(session, part)):
            raise Refused(text, True)
        try:
            entries = _read(session, part, shapes, labels)
        except Refused as refused:
            if refused.linear is None and (text := _addressed(session, part, names)):
                raise Refused(text, True) from None
            raise
        if len(entries.unread) and (text := _carried(session, part, names) or _addressed(session, part, names)):
            raise Refused(text, True)
    table, constants = table_of(part, transposed, entries, shapes)
    table, clipped = _clipped(table, asked, out)
    said += clipped
    right = asked.table(part, table.shapes[out])
    session.tables[part] = table
    finding = Finding(asked, part, names, table, right)
    if not follows_forward:
        second, elsewhere = functools.partial(session.second, part), functools.partial(session.elsewhere, part)
        finding = replace(finding, second=second, elsewhere=elsewhere)
    found = finding.found(entries.unread)
    session.facts |= {key: found.pop(key, None) for key in ("numbers", "kinds", "orders", "straight")} | {
        "empty": not len(table.factor),
    }
    wrong, products_right = found.pop("sentences"), found.pop("right")
    if products_right and said and not wrong:
        wrong = [_right_elements(table.shapes[out], asked.shapes[out])]
    forward = None if part == "forward" or products_right or said else session.tables.get("forward")
    if follows_forward or (forward is not None and follows(table, forward)):
        wrong = ["It is the right gradient of what your forward pass computes, and so has the same mistake."]
    said += wrong
    if (
        len(constants.out)
        and out == "positions"
        and not transposed
        and any(asked.before)
        and session.stale(operands[a])
    ):
        said.append("With x all zero, the output depends on earlier calls: the padding keeps values of another x.")
    else:
        said += constant_sentences(constants, asked, names, shapes)
    if dtype.kind == "c":
        said += _conjugates(measure, part, transposed, (shapes[a], shapes[b]), labels[:2], dtype)
    is_right = not said
    if part == "forward" and session.bias is not None:
        layout = finding.layout if "layout" in found else None
        found["bias"], more = forward_bias(session, layout.element if layout and layout.role == out else None)
        said += more
        is_right = is_right and found["bias"]["is_right"]
    found["is_convolution"] = bool(found["is_convolution"] and not len(constants.out))
    text = right_sentence(names, asked) if is_right else " ".join(said)
    return Part(part, text, is_right, True, shape=shapes[out], **found)


def _of_forward(session: Session, part: str, shapes: dict[str, Shape]) -> Entries | None:
    """Return the products of the forward pass, if these are wrong and the gradient has them too."""
    forward = None if part == "forward" else session.tables.get("forward")
    if forward is None or forward.shapes != shapes or forward.equals(session.asked.table("forward")):
        return None
    return _entries(forward, part, session) if _shows(session, part, forward) else None


def _shows(session: Session, part: str, table: Table, partly: bool = False) -> bool:
    """Return whether a table gives the results of a part, or, `partly`, those that are not zero."""
    _, a, b = roles(part, session.asked.problem.transposed)
    with contextlib.suppress(Refused):
        entries = _entries(table, part, session)
        return confirmed(session.measure(part), entries, table.shapes[a], table.shapes[b], session.dtype, partly)
    return False


def _grad_bias(session: Session) -> tuple[Array, Array]:
    """Return the upstream gradient of a problem, and the gradient of the bias that the function gives for it."""
    session.start()
    return session.g, session.gradient("grad_bias", session.g, session.x, session.weight)


def _carried(session: Session, part: str, names: Names) -> str | None:
    """Return the sentence on sums of channels that earlier blocks of channels leave behind, shown by their results."""
    asked, other = session.asked, next(session.elsewhere(part), None)
    out, a, b = roles(part, asked.problem.transposed)
    if out == "weight" or session.shape != asked.shapes[out]:
        return None
    rng, table = np.random.default_rng(19), asked.table(part)
    first, last = (draw(rng, asked.shapes[role], session.dtype) for role in (a, b))
    due = _entries(table, part, session).value(first, last, asked.shapes[out])
    seen = session.measure(part)(first, last)
    for block in range(1, seen.shape[1]):
        sums = due.copy()
        for channel in range(block, seen.shape[1]):
            sums[:, channel] += sums[:, channel - block]
        if np.array_equal(sums, seen):
            shown = _shows(session, part, carried(table, out, block))
            again = other is None or other.shows(carried(other.asked.table(part), out, block), False)
            return carried_sentence(names, out, block) if shown and again else None
    return None


def _addressed(session: Session, part: str, names: Names) -> str | None:
    """Return the sentence on a mistake of addresses, shown by its results: for a part that takes too many calls."""
    if session.shape != session.asked.shapes[roles(part, session.asked.problem.transposed)[0]]:
        return None
    for model in address_models(session.asked, names):
        if _shows(session, part, model.build(session.asked)) and all(
            other.shows(model.build(other.asked), False) for other in session.elsewhere(part)
        ):
            return model.sentence
    return None


def _entries(table: Table, part: str, session: Session) -> Entries:
    out, a, b = roles(part, session.asked.problem.transposed)
    return Entries(table.flat[out], table.flat[a], table.flat[b], table.factor, np.zeros(0, int))


def _read(session: Session, part: str, shapes: dict[str, Shape], labels: tuple[str, str, str]) -> Entries:
    """Read the products of a part, after trying whether it is linear."""
    transposed, dtype, measure = session.asked.problem.transposed, session.dtype, session.measure(part)
    _, a, b = roles(part, transposed)
    affine = linearity(measure, shapes[a], shapes[b], labels, dtype)
    filled, crossing = classes(part, transposed, shapes)
    session.affordable((len(filled) if affine else crossing) * (code_sizes(dtype)[1] + 1))
    entries = read(
        measure, shapes[a], shapes[b], filled, dtype, session.budget, affine, crossing,
        lambda found: completed(part, transposed, found, shapes),
    )  # fmt: skip
    if not agrees(measure, entries, shapes[a], shapes[b], dtype):
        raise Refused(
            "It is not the sum of what single elements give: how an element counts depends on the others.", False
        )
    return entries


def _shape(session: Session, shape: Shape, names: Names) -> list[str]:
    """Describe a wrong shape of a result, and put its axes in order where only their order is wrong."""
    problem = session.asked.problem
    role = roles(names.part, names.transposed)[0]
    due = session.asked.shapes[role]
    session.shape = session.facts["shape"] = shape
    if shape == due:
        return []
    result = "The output" if names.part == "forward" else names.part
    text = f"{result} has shape {shape}; it should be {due}"
    if sorted(shape) == sorted(due):
        last = (0, len(due) - 1, *range(1, len(due) - 1))
        orders = [last, *itertools.permutations(range(len(due)))]
        fitting = session.facts["result orders"] = [p for p in orders if tuple(shape[a] for a in p) == due]
        second = session.second(names.part)
        again = second.facts.get("result orders", ()) if second else fitting
        order = next((p for p in fitting if p in again), None)
        if order is not None:
            axes = words.axis_names(role, names.transposed, len(due) - 2)
            session.order, session.shape = tuple(order), due
            return [f"{text}: its axes are in the order ({', '.join(axes[order.index(a)] for a in range(len(due)))})."]
    if math.prod(shape) == math.prod(due) and (len(shape) != len(due) or shape[:2] != due[:2]):
        session.fold = session.shape = due
        return [f"{text}. It is described as if reshaped to that."]
    if len(shape) != len(due):
        raise Refused(f"{text}.")
    if shape[:2] == due[:2]:
        same = _rules(problem, names.part, shape)
        second = session.second(names.part) if same else None
        again = _rules(second.asked.problem, names.part, second.facts.get("shape", ())) if second else []
        same = [name for name in same if name in again]
        if same:
            text = f"{text}. {words.sizes(shape[2:])} is {' or '.join(same[:2])}"
    if 0 in shape:
        raise Refused(f"{text}. It has no elements.")
    return [f"{text}."]


def _rules(problem: Problem, part: str, shape: Shape) -> list[str]:
    """Return the rules that give a result this size."""
    return [name for name, size in size_rules(problem, part) if tuple(size) == shape[2:]]


def _right_elements(shape: Shape, due: Shape) -> str:
    """Return the sentence on a result of a wrong shape whose elements are right."""
    if shape == due:
        return "The elements that should exist are right."
    if all(n >= m for n, m in zip(shape, due, strict=True)):
        return "The elements that should exist are right; those beyond follow the same formula."
    return (
        "The elements that exist are right."
        if all(n <= m for n, m in zip(shape, due, strict=True))
        else ("The elements that exist agree with the formula.")
    )


def _clipped(table: Table, asked: Asked, out: str) -> tuple[Table, list[str]]:
    """Take elements off a result that is too large, if they add no product."""
    due, shape = asked.shapes[out], table.shapes[out]
    place = table.coordinates[out]
    fits = all(not len(at) or at.max() < n for at, n in zip(place, due, strict=True))
    if shape == due or not fits or any(n < m for n, m in zip(shape, due, strict=True)):
        return table, []
    flat = table.flat | {out: np.ravel_multi_index(tuple(place), due)}
    return Table(table.shapes | {out: due}, flat, table.factor), ["The elements that should not exist add no product."]


def _conjugates(
    measure: Measure,
    part: str,
    transposed: bool,
    shapes: tuple[Shape, Shape],
    labels: tuple[str, str],
    dtype: np.dtype[Any],
) -> list[str]:
    """Describe wrong complex conjugates: the adjoint conjugates the operand that is not g."""
    rng = np.random.default_rng(8)
    a, b = (draw(rng, shape, dtype) for shape in shapes)
    product: Array = measure(a, b)
    due = {"forward": (1, 1), "grad_x": (-1, 1), "grad_weight": (-1, 1) if transposed else (1, -1)}[part]
    said = []
    for label, sign, turned in zip(labels, due, (measure(a * 1j, b), measure(a, b * 1j)), strict=True):
        if np.allclose(turned, -sign * 1j * product):
            said.append(f"It conjugates {label}." if sign == 1 else f"It does not conjugate {label}.")
        elif not np.allclose(turned, sign * 1j * product):
            said.append(f"Multiplying {label} by i does not multiply the result by {'i' if sign == 1 else '−i'}.")
    return said
