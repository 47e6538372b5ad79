"""Explain a convolution: read out each part on one problem, fit it, and say in sentences what it computes."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from refconv.integers import as_bool, as_int
from refconv.testing.checker.calls import Caller, with_array, with_arrays
from refconv.testing.explain import words
from refconv.testing.explain.fit import (
    Axis,
    axes_of,
    fit_axis,
    fit_channels,
    fit_factors,
    fit_layout,
    fit_samples,
    flat_line,
    is_product,
    pattern,
    row_set,
)
from refconv.testing.explain.problems import standard_problem
from refconv.testing.explain.readout import Budget, Entries, Refused, agrees, check_linear, code_sizes, draw, linearity, read
from refconv.testing.explain.table import PARTS, Asked, Table, classes, roles, table_of
from refconv.testing.oracles.definition import Array
from refconv.testing.oracles.problems import Problem

GRADIENTS = PARTS[1:]
LARGEST = 400_000
"""Products of the largest problem that is read out."""
SEPARATE = 600
"""Calls that may be spent on elements which read several products together."""


@dataclass(frozen=True)
class Part:
    """What one result was found to compute, on the problem that was read out.

    Attributes
    ----------
    name : str
        "forward", "grad_x", "grad_weight" or "grad_bias".
    text : str
        The finding in sentences.
    is_right : bool
        Whether it is exactly what was asked for on this problem.
    is_linear : bool or None
        Whether it is linear in each operand; None if that was not found out.
    is_convolution : bool
        Whether its products are those of some convolution: one line per axis, zeros around, one factor.
    stride, dilation, padding : tuple of (int or None), or None
        The fitted numbers per axis, `padding` that before the first element. None for a number that this problem does
        not determine, and None altogether where no line fits.
    flipped : tuple of (bool or None), or None
        Whether the kernel is reversed along each axis.
    axes : tuple or None
        For each image axis, the axis of positions and of taps that it goes with; (0, 0), (1, 1) and so on if right.
    channels : dict
        For each output channel, the input channels that it reads; of a gradient, those that it is paired with.
    channel_order : str or None
        Name of the way in which channels, groups and weight rows go together: "right", a known mix-up, or None.
    samples : str or None
        How samples of the batch go together: "right", "only 0", "reversed", "all", or None.
    factor : float, complex or None
        The one number that multiplies every product; None if there are several.
    border : tuple of (str, str), or None
        What is read before and beyond the image along each axis; "zeros" if right.
    missing, extra : int
        How many products are absent, and how many are not asked for.
    layout : tuple of int, str, or None
        The order of axes in which one array was taken, if its elements are in the wrong places.
    bias : dict or None
        Of the forward pass: {"factor", "is_right", "channels"}.
    shape : tuple of int or None
        Shape of the result.
    inputs : tuple of numpy.ndarray
        The two operands that show that it is not linear.
    """

    name: str
    text: str = ""
    is_right: bool = False
    is_linear: bool | None = None
    is_convolution: bool = False
    stride: tuple[int | None, ...] | None = None
    dilation: tuple[int | None, ...] | None = None
    padding: tuple[int | None, ...] | None = None
    flipped: tuple[bool | None, ...] | None = None
    axes: tuple[tuple[int, int], ...] | None = None
    channels: Mapping[int, list[int]] = field(default_factory=dict)
    channel_order: str | None = None
    samples: str | None = None
    factor: complex | None = None
    border: tuple[tuple[str, str], ...] | None = None
    missing: int = 0
    extra: int = 0
    layout: Mapping[str, Any] | None = None
    bias: Mapping[str, Any] | None = None
    shape: tuple[int, ...] | None = None
    inputs: tuple[Array, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as plain data."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        plain["inputs"] = [{"shape": a.shape, "values": _numbers(a)} for a in self.inputs]
        plain["channels"] = {str(q): m for q, m in self.channels.items()}
        plain["factor"] = str(self.factor) if isinstance(self.factor, complex) else self.factor
        return plain


def _numbers(array: Array) -> list[Any]:
    return [str(v) if isinstance(v, complex) else v for v in array.reshape(-1).tolist()]


@dataclass(frozen=True)
class Explanation:
    """What a convolution and its gradients compute.

    Attributes
    ----------
    text : str
        A paragraph for each part.
    is_linear : bool
        Whether every part that was read is linear in each operand.
    is_convolution : bool
        Whether every part has the products of some convolution.
    parts : dict of str to Part
        Findings for "forward" and, with a backward function, "grad_x", "grad_weight" and "grad_bias".
    problem : Problem
        The problem on which the function was read out.
    """

    parts: Mapping[str, Part]
    problem: Problem

    @property
    def text(self) -> str:
        """Return all findings."""
        return "\n".join(f"{name}: {part.text}" for name, part in self.parts.items())

    @property
    def is_linear(self) -> bool:
        """Return whether every part is linear."""
        return all(part.is_linear is True for part in self.parts.values())

    @property
    def is_convolution(self) -> bool:
        """Return whether every part has the products of a convolution."""
        return all(part.is_convolution for part in self.parts.values())

    def __str__(self) -> str:
        return self.text

    def to_json(self) -> str:
        """Return the explanation as a JSON object."""
        problem = {f.name: getattr(self.problem, f.name) for f in dataclasses.fields(self.problem)}
        return json.dumps(
            {
                "text": self.text,
                "is_linear": self.is_linear,
                "is_convolution": self.is_convolution,
                "problem": problem,
                "parts": {name: part.as_dict() for name, part in self.parts.items()},
            },
            indent=2,
        )


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
    """Say what someone's convolution computes, from nothing but calls.

    A convolution is linear in each operand. A few hundred calls on one small problem therefore show every
    product x[n, c, i] · w[k, c, t] that it adds to each output. Stride, dilation, padding, flips, channels and factors
    are fitted to these products, exactly, and compared with what was asked for.

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
        If an argument here is wrong. What the functions do wrong is in the explanation.

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
    forward: Along axis 0 your output reads x[o + t − 2]; asked was x[2·o + t − 2]: the stride is ignored.
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
    seconds: float = 1.0,
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
    seconds : float
        Time for all parts together; parts that would take longer say so.

    Returns
    -------
    Explanation
        One :class:`Part` for each part.
    """
    session = _Session(call, forward, backward, Asked(problem), np.dtype(dtype), supports, time.perf_counter() + seconds)
    wanted = [part for part in PARTS if part in parts and (part == "forward" or backward is not None)]
    return Explanation({part: session.explained(part) for part in wanted}, problem)


class _Session:
    """One function, one problem: calls, readout, findings."""

    def __init__(
        self,
        call: Caller,
        forward: Callable[..., Any],
        backward: Callable[..., Any] | None,
        asked: Asked,
        dtype: np.dtype[Any],
        supports: Sequence[str],
        deadline: float,
    ) -> None:
        self.call, self.asked, self.dtype, self.deadline = call, asked, dtype, deadline
        self.forward = with_array(forward)
        self.backward = None if backward is None else with_arrays(backward)
        problem = asked.problem
        pairs = problem.pairs
        padding: tuple[Any, ...] = pairs if "asymmetric_padding" in supports else tuple(b for b, _ in pairs)
        self.integers = (problem.stride, padding, problem.dilation, int(problem.groups))  # type: ignore[arg-type]
        self.options = {"output_padding": problem.output_padding} if "output_padding" in supports else {}
        rng = np.random.default_rng(3)
        self.x, self.weight, self.g = (
            draw(rng, shape, dtype) for shape in (problem.x_shape, problem.weight_shape, problem.output_shape)
        )
        self.other = {"x": draw(rng, problem.x_shape, dtype), "weight": draw(rng, problem.weight_shape, dtype)}
        self.bias = np.zeros(problem.c_out, dtype) if problem.bias else None
        self.shape: tuple[int, ...] | None = None
        self.turned: tuple[int, ...] | None = None
        self.seconds_per_call = 0.0

    # --- Calls ---

    def y(self, x: Array, weight: Array, bias: Array | None) -> Array:
        """Call forward with copies."""
        copies = (x.copy(), weight.copy(), None if bias is None else bias.copy())
        outcome = self.call(self.forward, *copies, *self.integers, **self.options)
        self._check(outcome, "forward")
        return self._result(outcome.value[1], "The output")

    def gradient(self, part: str, g: Array, x: Array, weight: Array) -> Array:
        """Call backward with copies and return one gradient."""
        outcome = self.call(self.backward, g.copy(), x.copy(), weight.copy(), *self.integers, **self.options)
        self._check(outcome, "backward")
        values, arrays = outcome.value
        if not arrays:
            raise Refused(f"backward must return (grad_x, grad_weight, grad_bias); it returned {type(values).__name__}.")
        return self._result(arrays[GRADIENTS.index(part)], part)

    def _check(self, outcome: Any, name: str) -> None:
        shape = self.asked.problem
        where = f"x {shape.x_shape} and weight {shape.weight_shape}"
        if outcome.too_long:
            self.deadline = 0.0
            raise Refused(f"{name} did not return in time for {where}.")
        if outcome.error is not None:
            raise Refused(f"{name} raised {outcome.error}, for {where}.")

    def _result(self, array: Any, name: str) -> Array:
        if isinstance(array, str):
            raise Refused(f"{name} is not an array of numbers but {array}.")
        if self.turned is not None and array.ndim == len(self.turned):
            array = array.transpose(self.turned)
        if self.shape is not None and array.shape != self.shape:
            raise Refused(f"{name} has shape {array.shape} in one call and {self.shape} in another.")
        if self.dtype.kind in "iu":
            return np.asarray(array.astype(np.float64 if array.dtype.kind == "f" else np.int64))
        return np.array(array, np.complex128 if array.dtype.kind == "c" else np.float64)

    def measure(self, part: str) -> Callable[[Array, Array], Array]:
        """Return the part as a function of its operands a and b."""
        transposed = self.asked.problem.transposed
        if part == "forward":
            return lambda a, b: self.y(b, a, self.bias)
        if part == "grad_x":
            return lambda a, b: self.gradient(part, b, self.x, a)
        if transposed:
            return lambda a, b: self.gradient(part, b, a, self.weight)
        return lambda a, b: self.gradient(part, a, b, self.weight)

    # --- Parts ---

    def explained(self, part: str) -> Part:
        """Return the finding for one part; whatever keeps it from being read out is the finding then."""
        self.shape = self.turned = None
        try:
            self._affordable()
            if part == "grad_bias":
                return self._grad_bias()
            return self._bilinear(part)
        except Refused as refused:
            return Part(part, refused.text, is_linear=refused.linear, inputs=refused.inputs, shape=self.shape)

    def _affordable(self) -> None:
        problem = self.asked.problem
        positions = problem.size if problem.transposed else problem.output_size
        counts = (problem.batch or 0, *problem.weight_shape, *positions)
        if math.prod(counts) == 0 or min((*problem.x_shape, *problem.output_shape)) == 0:
            raise Refused("This problem has no products to read out.")
        if math.prod(counts) > LARGEST:
            raise Refused("This problem is too large to be read out.")
        if time.perf_counter() > self.deadline:
            raise Refused("There was no time left to read it out.")

    def _budget(self) -> Budget:
        return Budget(SEPARATE, self.deadline)

    def _worthwhile(self, count: int, seconds: float) -> None:
        rounds = count * (code_sizes(self.dtype)[1] + 1) + 12
        if time.perf_counter() + rounds * seconds > self.deadline:
            raise Refused(f"It is too slow to be read out: one call took {seconds:.2g} s, and {rounds} are needed.")

    def _bilinear(self, part: str) -> Part:
        problem = self.asked.problem
        transposed = problem.transposed
        out, a, b = roles(part, transposed)
        names = words.Names(part, transposed)
        measure, shapes = self.measure(part), dict(self.asked.shapes)
        start = time.perf_counter()
        shape = measure(self.weight if a == "weight" else draw(np.random.default_rng(4), shapes[a], self.dtype),
                        draw(np.random.default_rng(4), shapes[b], self.dtype)).shape  # fmt: skip
        seconds = time.perf_counter() - start
        said = self._turn(shape, shapes[out], names)
        shapes[out] = self.shape if self.shape is not None else shape
        if len(shapes[out]) != len(self.asked.shapes[out]):
            raise Refused(" ".join(said))
        if 0 in shapes[out]:
            raise Refused(" ".join([*said, "It has no elements."]))
        labels = {"positions": "g" if not transposed else "x", "image": "x" if not transposed else "g", "weight": "w"}
        if part == "forward":
            labels = {"positions": "x", "image": "x", "weight": "w"}
        if part == "grad_x":
            labels["positions"] = labels["image"] = "g"
        self._ignores_third(part, shapes, a, b)
        result = "the output" if part == "forward" else part
        some = classes(part, transposed, shapes)
        self._worthwhile(len(some), seconds)
        affine = linearity(measure, shapes[a], shapes[b], (labels[a], labels[b], result), self.dtype)
        entries = read(measure, shapes[a], shapes[b], some, self.dtype, self._budget(), affine)
        if not agrees(measure, entries, shapes[a], shapes[b], self.dtype):
            raise Refused("It is not the sum of products that single elements give: what it computes depends on how the "
                          "other elements are filled.", False)  # fmt: skip
        table, constants = table_of(part, transposed, entries, shapes)
        found = _Finding(self.asked, part, names, table, self.asked.table(part, shapes[out])).found(len(entries.unread))
        sentences = [*said, *found.pop("sentences")]
        sentences += self._constants(constants, table, names, shapes)
        conjugates = self._conjugates(part, measure, shapes[a], shapes[b], (labels[a], labels[b]))
        sentences += conjugates
        right = found.pop("right") and not said and not conjugates and not len(constants.out)
        bias = None
        if part == "forward" and self.bias is not None:
            bias, more = self._bias(names)
            sentences += more
            right = right and bias["is_right"]
        if right:
            sentences = [_right_text(names, found, self.asked)]
        found["is_convolution"] = bool(found["is_convolution"] and not len(constants.out))
        return Part(part, " ".join(sentences), right, True, bias=bias, shape=shapes[out], **found)

    def _turn(self, shape: tuple[int, ...], due: tuple[int, ...], names: words.Names) -> list[str]:
        """Note the result's shape, and put its axes in order where only their order is wrong."""
        self.shape = shape
        if shape == due:
            return []
        result = "The output" if names.part == "forward" else names.part
        text = f"{result} has shape {shape}; asked was {due}"
        if sorted(shape) == sorted(due):
            last = (0, len(due) - 1, *range(1, len(due) - 1)) if len(due) > 2 else (1, 0)
            orders = [last, *itertools.permutations(range(len(due)))]
            order = next(p for p in orders if tuple(shape[a] for a in p) == due)
            role = roles(names.part, names.transposed)[0]
            axes = words.axis_names(role, names.transposed, len(due) - 2)
            listed = ", ".join(axes[order.index(a)] for a in range(len(due)))
            self.turned, self.shape = tuple(order), due
            return [f"{text}: its axes are in the order ({listed})."]
        if shape[:2] == due[:2] and len(shape) == len(due):
            rules = words.size_rules(self.asked.problem, names.part)
            rule = next((name for name, size in rules if tuple(size) == shape[2:]), None)
            if rule:
                return [f"{text}. {shape[2:]} is {rule}."]
        return [f"{text}."]

    def _ignores_third(self, part: str, shapes: Mapping[str, tuple[int, ...]], a: str, b: str) -> None:
        """Raise Refused if a gradient depends on the operand that it must not read."""
        if part == "forward":
            return
        name = "x" if part == "grad_x" else "weight"
        pair = (self.other["x"], self.weight) if name == "x" else (self.x, self.other["weight"])
        one, two = self.gradient(part, self.g, self.x, self.weight), self.gradient(part, self.g, *pair)
        if not np.array_equal(one, two):
            if not np.array_equal(one, self.gradient(part, self.g, self.x, self.weight)):
                raise Refused("Two calls with the same arguments gave different results: it is random, or depends on "
                              "earlier calls.", False)  # fmt: skip
            raise Refused(f"{part} changes with {name}, on which it must not depend.", False, (self.x, pair[0]))

    def _conjugates(self, part: str, measure: Callable[[Array, Array], Array], a_shape: Sequence[int],
                    b_shape: Sequence[int], labels: tuple[str, str]) -> list[str]:  # fmt: skip
        """Return what is wrong with complex conjugates."""
        if self.dtype.kind != "c":
            return []
        rng = np.random.default_rng(8)
        a, b = draw(rng, a_shape, self.dtype), draw(rng, b_shape, self.dtype)
        base = measure(a, b)
        due = {"forward": (1, 1), "grad_x": (-1, 1), "grad_weight": (1, -1)}[part]
        if part == "grad_weight" and self.asked.problem.transposed:
            due = (-1, 1)
        said = []
        for label, sign, got in zip(labels, due, (measure(a * 1j, b), measure(a, b * 1j)), strict=True):
            if np.allclose(got, sign * 1j * base):
                continue
            wrong = f"conjugates {label}" if sign == 1 else f"does not conjugate {label}, as the adjoint must"
            said.append(f"It {wrong}." if np.allclose(got, -sign * 1j * base)
                        else f"It does not treat the imaginary part of {label} as a complex product does.")  # fmt: skip
        return said

    def _constants(self, constants: Entries, table: Table, names: words.Names,
                   shapes: Mapping[str, tuple[int, ...]]) -> list[str]:  # fmt: skip
        """Return what is added where b is zero."""
        if not len(constants.out):
            return []
        values = sorted({round(float(np.real(v)), 6) for v in constants.factor})
        role, a, b = roles(names.part, names.transposed)
        where = f"{len(np.unique(constants.out))} elements of the result"
        if b == "image" and len(values) == 1:
            full = dataclasses.replace(self.asked.problem, size=tuple(
                n + before + after for n, (before, after) in zip(self.asked.problem.size, self.asked.problem.pairs, strict=True)
            ), padding=((0, 0),) * table.spatial_dims)  # fmt: skip
            enlarged = Asked(full).table(names.part)
            border = np.ones(full.x_shape, bool)
            inner = tuple(slice(before, before + n) for n, (before, _) in
                          zip(self.asked.problem.size, self.asked.problem.pairs, strict=True))  # fmt: skip
            border[(..., *inner)] = False
            outside = enlarged.only(border.reshape(-1)[enlarged.flat["image"]])
            due = set(zip(outside.flat[role].tolist(), outside.flat[a].tolist(), strict=True))
            if enlarged.shapes[role] == shapes[role] and due == set(zip(constants.out.tolist(), constants.a.tolist(), strict=True)):
                return [f"Around {names.image} it reads {values[0]:g} instead of 0: it pads with {values[0]:g}."]
        return [f"With {names.symbols[b]} all zero the result is not zero: {where} still add "
                f"{words.listed([f'{v:g}' for v in values])} times an element of {names.symbols[a]}."]  # fmt: skip

    # --- Bias ---

    def _bias(self, names: words.Names) -> tuple[dict[str, Any], list[str]]:
        """Read out what the bias adds."""
        assert self.bias is not None
        zero = np.zeros_like(self.x)
        bias = draw(np.random.default_rng(9), self.bias.shape, self.dtype)
        without = self.y(zero, self.weight, self.bias)
        added = self.y(zero, self.weight, bias) - without
        beside = self.y(self.x, self.weight, bias) - self.y(self.x, self.weight, self.bias)
        if not np.allclose(added, beside):
            return {"is_right": False}, ["What the bias adds depends on x."]
        if not np.array_equal(added, self.y(zero, self.other["weight"], bias) - self.y(zero, self.other["weight"], self.bias)):
            return {"is_right": False}, ["What the bias adds depends on the weight."]
        if not added.any():
            return {"is_right": False, "factor": 0}, ["The bias is ignored."]

        def measure(a: Array, b: Array) -> Array:
            return (self.y(zero, self.weight, a.reshape(-1)) - without) * b.reshape(-1)[0]

        count = len(self.bias)
        entries = read(measure, (1, count), (1, 1), [np.arange(count)], self.dtype, self._budget(), False)
        if not agrees(measure, entries, (1, count), (1, 1), self.dtype):
            return {"is_right": False}, ["What the bias adds is not a multiple of it."]
        n, k, *places = np.unravel_index(entries.out, added.shape)
        factors = sorted({round(float(np.real(v)), 6) for v in entries.factor})
        sources = {int(c): sorted(set(entries.a[k == c].tolist())) for c in range(added.shape[1])}
        whole = len(np.unique(entries.out)) == added.size and not len(entries.unread)
        found: dict[str, Any] = {"channels": {str(c): s for c, s in sources.items()},
                                 "factor": factors[0] if len(factors) == 1 else None}  # fmt: skip
        said = []
        straight = all(s in ([c], []) for c, s in sources.items())
        if not straight:
            groups = self.asked.groups
            each = count // groups
            if all(s == [c % each] for c, s in sources.items()) and groups > 1:
                said.append("Every group adds the bias of group 0.")
            elif any(len(s) > 1 for s in sources.values()) and (axis := self._bias_axis(entries, added.shape)) is not None:
                said.append(f"The bias is added along {axis}, not along the channels: its element j goes to index j there.")
            else:
                wrong = {c: s for c, s in sources.items() if s != [c]}
                shown = "; ".join(f"channel {c} gets bias {words.listed(s)}" if s else f"channel {c} gets none" for c, s in
                                  list(wrong.items())[:4])  # fmt: skip
                said.append(f"The bias goes to other channels: {shown}{'; …' * (len(wrong) > 4)}.")
        if len(factors) > 1:
            said.append(self._bias_counts(entries, added.shape, places))
        elif factors != [1.0]:
            value = factors[0]
            shown = words.factor_names(value, self.asked.problem)
            said.append("The bias is subtracted." if value == -1 else f"The bias is multiplied by {shown}.")
        if not whole and len(factors) == 1 and len(entries.unread) == 0:
            axes = [n, k, *places]
            titles = ["sample", "channel", *(f"position of axis {a}" for a in range(len(places)))]
            partial = [f"{title} {words.listed(sorted(set(axis.tolist())))}" for title, axis, size in
                       zip(titles, axes, added.shape, strict=True) if len(set(axis.tolist())) < size]  # fmt: skip
            said.append(f"The bias is added at {len(np.unique(entries.out))} of {added.size} outputs only"
                        f"{f': {words.listed(partial)}' if partial else ''}.")  # fmt: skip
        if len(entries.unread):
            said.append(f"What the bias adds to {len(entries.unread)} outputs was not separated.")
        found["is_right"] = not said
        return found, said

    def _bias_axis(self, entries: Entries, shape: tuple[int, ...]) -> str | None:
        index = np.unravel_index(entries.out, shape)
        titles = ["the batch axis", "the channel axis", *(f"axis {a}" for a in range(len(shape) - 2))]
        return next((titles[a] for a, at in enumerate(index) if np.array_equal(at, entries.a)), None)

    def _bias_counts(self, entries: Entries, shape: tuple[int, ...], places: Sequence[Array]) -> str:
        """Say by what the bias is multiplied where that differs between outputs."""
        low, high = (float(np.real(v)) for v in (np.min(entries.factor), np.max(entries.factor)))
        role = "image" if self.asked.problem.transposed else "positions"
        right = self.asked.table("forward", shape)
        taps = np.stack(right.coordinates[role][2:])
        one = (right.samples[:, 0] == 0) & (right.channels[:, 2] == 0)
        counts = np.zeros(shape[2:])
        first = right.channels[one][:1, [0, 3][role == "image"]]
        mine = one & (right.coordinates[role][1] == first)
        groups = right.channels[mine][:, [3, 0][role == "image"]]
        mine[np.flatnonzero(mine)[groups != groups[:1]]] = False
        np.add.at(counts, tuple(taps[:, mine]), 1)
        seen = np.zeros(shape[2:])
        seen[tuple(places)] = np.real(entries.factor)
        if np.array_equal(seen, counts):
            return ("The bias is added once for every product that reaches an output: from "
                    f"{counts.min():g} to {counts.max():g} times, not once.")  # fmt: skip
        return f"The bias is multiplied by numbers from {low:g} to {high:g}, depending on the output."

    def _grad_bias(self) -> Part:
        problem, rng = self.asked.problem, np.random.default_rng(10)
        g_shape, count = problem.output_shape, problem.c_out
        start = time.perf_counter()
        shape = self.gradient("grad_bias", self.g, self.x, self.weight).shape
        seconds = time.perf_counter() - start
        said = []
        if shape != (count,):
            said.append(f"grad_bias has shape {shape}; asked was ({count},).")
        one = self.gradient("grad_bias", self.g, self.other["x"], self.other["weight"])
        two = self.gradient("grad_bias", self.g, self.x, self.weight)
        again = self.gradient("grad_bias", self.g, self.x, self.weight)
        if not np.array_equal(two, again):
            raise Refused("Two calls with the same arguments gave different results: it is random, or depends on earlier "
                          "calls.", False)  # fmt: skip
        if not np.array_equal(one, two):
            raise Refused("grad_bias changes with x or weight, on which it must not depend.", False)

        def measure(a: Array, b: Array) -> Array:
            return self.gradient("grad_bias", a, self.x, self.weight).reshape(-1) * b.reshape(-1)[0]

        one = np.ones((1, 1))
        zero = measure(0 * self.g, one)
        check_linear(lambda g: measure(g, one), self.g, draw(rng, g_shape, self.dtype), zero, ("g", "x and w", "grad_bias"),
                     self.dtype)  # fmt: skip
        if zero.any():
            raise Refused("grad_bias is not zero where g is.", False)
        index = np.arange(math.prod(g_shape)).reshape(g_shape)
        some = list(np.moveaxis(index, 1, -1).reshape(-1, count))
        self._worthwhile(len(some), seconds)
        entries = read(measure, g_shape, (1, 1), some, self.dtype, self._budget(), False)
        if not agrees(measure, entries, g_shape, (1, 1), self.dtype):
            raise Refused("It is not the sum of what single elements of g give.", False)
        found, more = self._bias_sums(entries, g_shape, math.prod(shape))
        said += more
        text = " ".join(said) or "It is right: grad_bias[k] is the sum of g over samples and positions."
        return Part("grad_bias", text, not said, True, not more, shape=shape, **found)

    def _bias_sums(self, entries: Entries, g_shape: tuple[int, ...], size: int) -> tuple[dict[str, Any], list[str]]:
        """Describe which elements of g each element of grad_bias adds."""
        place = np.unravel_index(entries.a, g_shape)
        titles = ["sample", "channel", *(f"position of axis {a}" for a in range(len(g_shape) - 2))]
        said: list[str] = []
        found: dict[str, Any] = {"samples": fit_samples(frozenset((n, n) for n in place[0].tolist()), g_shape[0])}
        full = len(entries.out) == math.prod(g_shape)
        own = next((axis for axis in (1, 0, *range(2, len(g_shape))) if len(entries.out) and g_shape[axis] == size
                    and np.array_equal(place[axis], entries.out)), None)  # fmt: skip
        used = [sorted(set(axis.tolist())) for axis in place]
        pairs = {(int(o), int(k)) for o, k in zip(entries.out, place[1], strict=True)}
        found["channels"] = {o: sorted(k for p, k in pairs if p == o) for o in sorted({p for p, _ in pairs})}
        if not len(entries.out):
            said.append("grad_bias is zero: it reads nothing of g.")
        elif own != 1:
            if own is not None and full:
                kept = "each sample" if own == 0 else f"each position of axis {own - 2}"
                said.append(f"Its element j is the sum over {titles[own]} j of g, channels included: {kept} is kept and the "
                            "channels are summed.")  # fmt: skip
            elif size == g_shape[0] * g_shape[1] and full and np.array_equal(place[0] * g_shape[1] + place[1], entries.out):
                said.append("The batch axis is kept: there is one sum for each sample.")
            else:
                shown = [f"element {o} adds channel {words.listed(k)}" for o, k in found["channels"].items() if k != [o]]
                said.append(f"Channels are mixed: {'; '.join(shown[:3])}{'; …' * (len(shown) > 3)}." if shown else
                            "Elements of grad_bias do not read all of their channel.")  # fmt: skip
        if len(entries.out) and not full and own is not None:
            parts = [f"{title} {words.listed(values)}" for title, values, n in zip(titles, used, g_shape, strict=True)
                     if len(values) < n]  # fmt: skip
            product = math.prod(map(len, used)) == len(entries.out)
            said.append(f"It reads {len(np.unique(entries.a))} of {math.prod(g_shape)} elements of g"
                        f"{f', only {words.listed(parts)}' if parts and product else ''}.")  # fmt: skip
        factors = sorted({round(float(np.real(v)), 6) for v in entries.factor})
        found["factor"] = factors[0] if len(factors) == 1 else None
        if len(factors) > 1:
            said.append(f"Elements of g are multiplied by numbers from {factors[0]:g} to {factors[-1]:g}.")
        elif factors and factors[0] == -1:
            said.append("Its sign is wrong: g is subtracted.")
        elif factors and factors[0] != 1:
            said.append(f"The sum is multiplied by {words.factor_names(factors[0], self.asked.problem)}.")
        if len(entries.unread):
            said.append(f"{len(entries.unread)} elements of it could not be separated into elements of g.")
        return found, said


def _right_text(names: words.Names, found: Mapping[str, Any], asked: Asked) -> str:
    lines = [words.formula(line, names.letter) for line in asked.lines]
    each = "; ".join(f"along axis {a} {names.reads(text)}" for a, text in enumerate(lines))
    return f"It is right: {each}."


@dataclass(frozen=True)
class _Finding:
    """From a table to findings and sentences."""

    asked: Asked
    part: str
    names: words.Names
    table: Table
    right: Table

    def found(self, unread: int) -> dict[str, Any]:
        """Return the fields of a :class:`Part`, with "sentences" and "right"."""
        table, right = self.table, self.right
        factors = fit_factors(table)
        values = list(factors.values.values()) if factors.by == "" else []
        found: dict[str, Any] = {
            "missing": len(right.without(table).factor),
            "extra": len(table.without(right).factor),
            "factor": values[0] if values else None,
            "channels": self._reads(),
            "samples": fit_samples(row_set(table.samples), table.shapes["positions"][0]),
            "is_convolution": False,
        }
        same = not found["missing"] and not found["extra"] and not unread
        found["right"] = same and values == [1]
        said = list(words.factor_sentences(factors, self.names, self.asked.problem))
        if not len(table.factor) and not unread:
            return found | {"sentences": ["The result is zero: it adds no product."]}
        described = None if unread else self._product() or self._layout() or self._rows() or self._box()
        if described is None:
            numbers = list(words.number_sentences(table, right, self.names, unread))
            return found | {"sentences": [*numbers, *(said if factors.by else said)]}
        sentences, fields = described
        fields["is_convolution"] = bool(fields.get("is_convolution") and factors.by == "")
        return found | fields | {"sentences": [*sentences, *said]}

    def _reads(self) -> dict[int, list[int]]:
        pairs = row_set(self.table.channels[:, [0, 3]])
        if self.asked.problem.transposed:
            pairs = frozenset((m, q) for q, m in pairs)
        return {q: sorted(m for p, m in pairs if p == q) for q in sorted({p for p, _ in pairs})}

    def _product(self) -> tuple[list[str], dict[str, Any]] | None:
        """Describe samples, channels and axes alone, if the table is all their combinations."""
        table, right, names = self.table, self.right, self.names
        if not is_product(table):
            return None
        separated = axes_of(table)
        if separated is None:
            return None
        reads, pairing = separated
        shapes = table.shapes
        axes = []
        for a, rows in enumerate(reads):
            sizes = (shapes["positions"][2 + pairing[0][a]], shapes["weight"][2 + pairing[1][a]], shapes["image"][2 + a])
            axes.append((fit_axis(rows, self.asked.lines[a], sizes), sizes))
        straight = tuple((a, a) for a in range(len(axes)))
        pairs = tuple(zip(*pairing, strict=True))
        if pairs != straight and self._layout() is not None:
            return None
        channels = fit_channels(row_set(table.channels), self.asked, row_set(right.channels))
        samples = fit_samples(row_set(table.samples), shapes["positions"][0])
        said = [
            *words.sample_sentences(samples, names),
            *words.channel_sentences(channels, self.asked, names),
            *words.pairing_sentence(pairing, names),
            *itertools.chain.from_iterable(
                words.axis_sentences(axis, a, self.asked, names, sizes) for a, (axis, sizes) in enumerate(axes)
            ),
        ]
        fitted = [axis for axis, _ in axes]
        fields: dict[str, Any] = {"axes": pairs, "channel_order": channels.name, "samples": samples}
        if all(axis.line is not None for axis in fitted):
            fields |= _numbers_of(fitted)
        plain = all(_plain(axis) for axis in fitted) and pairs == straight
        fields["is_convolution"] = plain and samples == "right" and channels.name is not None
        return said, fields

    def _layout(self) -> tuple[list[str], dict[str, Any]] | None:
        layout = fit_layout(self.table, self.right, self.asked.groups)
        if layout is None:
            return None
        fields = {"layout": {"array": self.names.symbols[layout.role], "order": layout.order, "merged": layout.merged,
                             "per_group": layout.per_group}}  # fmt: skip
        return [words.layout_sentence(layout, self.names, self.table)], fields

    def _rows(self) -> tuple[list[str], dict[str, Any]] | None:
        """Describe rows that run into their neighbours, as flat indices do."""
        table, names, d = self.table, self.names, self.table.spatial_dims
        if d < 2:
            return None
        steps = flat_line(table)
        channels = fit_channels(row_set(table.channels), self.asked, row_set(self.right.channels))
        if steps is None or channels.name != "right":
            return None
        terms = [(s, f"{names.letter}{a}") for a, s in enumerate(steps[:d])]
        terms += [(s, f"t{a}") for a, s in enumerate(steps[d : 2 * d])]
        text = " ".join(f"{'−' if s < 0 else '+'} {abs(s)}·{name}" for s, name in terms if s).removeprefix("+ ")
        shift = f" {'−' if steps[-1] < 0 else '+'} {abs(steps[-1])}" if steps[-1] else ""
        return [
            f"Axes run into one another: counted through all axes of {names.image}, it uses element {text}{shift}, so that "
            f"what is beyond one row belongs to the next."
        ], {"layout": {"array": names.image, "flat_steps": steps}}

    def _box(self) -> tuple[list[str], dict[str, Any]] | None:
        """Describe a table that is right but for products that certain coordinates single out."""
        missing, extra = self.right.without(self.table), self.table.without(self.right)
        if len(extra.factor) or len(missing.factor) * 2 > len(self.right.factor):
            return None
        titles = {
            "positions": [f"sample of {self.names.symbols['positions']}", self.names.positions_channel],
            "weight": ["weight row", "weight column"],
            "image": [f"sample of {self.names.image}", self.names.image_channel],
        }
        for role, letter in (("positions", self.names.letter), ("weight", "t"), ("image", f"{self.names.image} index")):
            titles[role] += [f"{letter} along axis {a}" for a in range(self.table.spatial_dims)]
        chosen, clauses = np.ones(len(self.right.factor), bool), []
        for role in ("positions", "weight", "image"):
            for axis, title in enumerate(titles[role]):
                values = np.unique(missing.coordinates[role][axis])
                inside = np.isin(self.right.coordinates[role][axis], values)
                if (inside | ~chosen).all():
                    continue
                chosen &= inside
                clauses.append(f"{title} = {words.listed(values.tolist())}")
        if not len(clauses) or np.count_nonzero(chosen) != len(missing.factor):
            return None
        return [f"{words.plural(len(missing.factor), 'product')} of {len(self.right.factor)} missing, those with "
                f"{' and '.join(clauses)}; the others are right."], {}  # fmt: skip


def _plain(axis: Axis) -> bool:
    return axis.line is not None and axis.missing is None and axis.extra is None and axis.border == ("zeros", "zeros")


def _numbers_of(axes: Sequence[Axis]) -> dict[str, Any]:
    flips = [None if axis.dilation in (None, 0) else axis.dilation < 0 for axis in axes]  # type: ignore[operator]
    starts = []
    for axis in axes:
        if axis.start is None or axis.line is None:
            starts.append(None)
            continue
        taps = max((row[1] for row in axis.reads), default=0)
        starts.append(-(axis.start + min(0, axis.line[1]) * taps))
    return {
        "stride": tuple(axis.stride for axis in axes),
        "dilation": tuple(None if axis.dilation is None else abs(axis.dilation) for axis in axes),
        "padding": tuple(starts),
        "flipped": tuple(flips),
        "border": tuple(axis.border for axis in axes),
    }


__all__ = ["Explanation", "Part", "explain", "explain_conv", "pattern"]
