"""Calls of the functions that are explained, on one problem; everything that fails is a sentence."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from refconv.testing.checker.calls import Caller, Outcome, with_array, with_arrays
from refconv.testing.checker.cases import passed_padding
from refconv.testing.explain.linearity import Refused, differ, draw, largest, unsteady
from refconv.testing.explain.pointwise import Result, function_of_right
from refconv.testing.explain.readout import Budget
from refconv.testing.explain.table import PARTS, Asked, Table, roles
from refconv.testing.oracles.definition import Array
from refconv.testing.oracles.problems import Operands
from refconv.testing.oracles.trilinear import exact_results

GRADIENTS = PARTS[1:]
RESULTS = {"forward": "y"} | {part: part for part in GRADIENTS}
REPEATS = 50
"""Calls with the same arguments, where findings contradict one another."""


@dataclass(frozen=True)
class Second:
    """The findings on a second problem, with other numbers: a cause is named only if it shows there too.

    `facts` has the findings there, by the names of a :class:`Part`'s fields, and "numbers", "kinds", "orders",
    "result orders", "empty".
    """

    asked: Asked
    facts: dict[str, Any]

    @property
    def is_determined(self) -> bool:
        """Whether its products determine a line, or a rule, on every axis, if they are a product of axes."""
        kinds, numbers = self.facts.get("kinds"), self.facts.get("numbers")
        if kinds is None or any(kinds):
            return not self.facts.get("empty")
        return numbers is not None and not any(None in axis for axis in numbers)


@dataclass(frozen=True)
class Elsewhere:
    """A second problem that is not read out: `shows` returns whether a table gives its results, or all but zeros.

    `bias` returns an upstream gradient and the gradient of the bias.
    """

    asked: Asked
    shows: Callable[[Table, bool], bool]
    bias: Callable[[], tuple[Array, Array]]


class Session:
    """The functions, the problem, and whole numbers for its arrays.

    `shape` is that of the part's results, once known: of the arrays returned, with their axes in the order `order` or
    reshaped to `fold` if these are set. `fastest` is the shortest call so far, in seconds. `facts` are found on the
    way, and `tables` for the parts read out so far. With `fractions`, numbers that are not whole are tried too.
    `second` returns the findings about a part on a second problem, if there is one, and `elsewhere` more problems.
    """

    def __init__(
        self,
        call: Caller,
        forward: Callable[..., Any],
        backward: Callable[..., Any] | None,
        asked: Asked,
        dtype: np.dtype[Any],
        supports: Sequence[str],
        budget: Budget,
        fractions: bool,
        tables: dict[str, Table],
        second: Callable[[str], Second | None] = lambda part: None,
        elsewhere: Callable[[str], Iterator[Elsewhere]] = lambda part: iter(()),
    ) -> None:
        self.call, self.asked, self.dtype, self.budget, self.second = call, asked, dtype, budget, second
        self.tables, self.elsewhere = tables, elsewhere
        self.fractions = fractions and dtype.kind == "f" and dtype.itemsize > 2
        self.forward = with_array(forward)
        self.backward = with_arrays(forward if backward is None else backward)
        problem = asked.problem
        self.integers = (problem.stride, passed_padding(problem, supports), problem.dilation, asked.groups)
        self.options = {"output_padding": problem.output_padding} if "output_padding" in supports else {}
        rng = np.random.default_rng(3)
        shapes = problem.x_shape, problem.weight_shape, problem.output_shape
        self.x, self.weight, self.g = (draw(rng, shape, dtype) for shape in shapes)
        self.other_x, self.other_weight = (draw(rng, shape, dtype) for shape in shapes[:2])
        self.bias = np.zeros(problem.c_out, dtype) if problem.bias else None
        self.fastest = float("inf")
        self.start()

    def start(self) -> None:
        """Forget the shape of the part before."""
        self.shape: tuple[int, ...] | None = None
        self.order: tuple[int, ...] | None = None
        self.fold: tuple[int, ...] | None = None
        self.facts: dict[str, Any] = {}

    def y(self, x: Array, weight: Array, bias: Array | None) -> Array:
        """Call forward with copies."""
        copies = (x.copy(), weight.copy(), None if bias is None else bias.copy())
        outcome = self._timed(self.forward, *copies, name="forward")
        return self._result(outcome.value[1], "The output")

    def gradient(self, part: str, g: Array, x: Array, weight: Array) -> Array:
        """Call backward with copies and return one gradient."""
        outcome = self._timed(self.backward, g.copy(), x.copy(), weight.copy(), name="backward")
        values, arrays = outcome.value
        if not arrays:
            got = type(values).__name__
            raise Refused(f"backward must return (grad_x, grad_weight, grad_bias); it returned {got}.")
        return self._result(arrays[GRADIENTS.index(part)], part)

    def _timed(self, function: Callable[..., Any], *args: Any, name: str) -> Outcome:
        start = time.perf_counter()
        outcome = self.call(function, *args, *self.integers, **self.options)
        self.fastest = min(self.fastest, time.perf_counter() - start)
        problem = self.asked.problem
        where = f"x {problem.x_shape} and weight {problem.weight_shape}"
        if outcome.too_long:
            self.budget = replace(self.budget, deadline=0.0)  # a thread that does not return takes no further call
            raise Refused(f"{name} did not return in time for {where}.")
        if outcome.error is not None:
            raise Refused(f"{name} raised {outcome.error}, for {where}.")
        return outcome

    def _result(self, array: Any, name: str) -> Array:
        if isinstance(array, str):
            raise Refused(f"{name} is not an array of numbers but {array}.")
        if self.order is not None and array.ndim == len(self.order):
            array = array.transpose(self.order)
        if self.fold is not None and array.size == math.prod(self.fold):
            array = array.reshape(self.fold)
        if self.shape is not None and array.shape != self.shape:
            raise Refused(f"{name} has shape {array.shape} in one call and {self.shape} in another.", False)
        if not np.isfinite(array).all():
            where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
            raise Refused(f"{name} is {array[where]} at {where}, for finite operands.", False)
        if array.dtype.kind == "c":
            return np.array(array, np.complex128)
        whole = array.dtype.kind in "biu" and self.dtype.kind in "iu"
        return np.array(array, np.int64 if whole else np.float64)

    def measure(self, part: str) -> Callable[[Array, Array], Array]:
        """Return a part as a function of its operands a and b."""
        if part == "forward":
            return lambda a, b: self.y(b, a, self.bias)
        if part == "grad_x":
            return lambda a, b: self.gradient(part, b, self.x, a)
        if self.asked.problem.transposed:
            return lambda a, b: self.gradient(part, b, a, self.weight)
        return lambda a, b: self.gradient(part, a, b, self.weight)

    def affordable(self, calls: int) -> None:
        """Raise Refused if that number of calls is more than may be made, or would take longer than is left."""
        if calls > self.budget.calls:
            raise Refused(f"To read it out, {calls} calls are needed; at most {self.budget.calls} were allowed.")
        if time.perf_counter() + calls * self.fastest > self.budget.deadline:
            seconds = f"{self.fastest:.2g} s"
            raise Refused(f"It is too slow to be read out: one call takes {seconds}, and {calls} calls are needed.")

    def steady(self, part: str) -> None:
        """Raise Refused if a gradient changes from call to call, or with an operand on which it must not depend."""
        first, second = (self.gradient(part, self.g, self.x, self.weight) for _ in range(2))
        if not np.array_equal(first, second):
            calls = [
                lambda factor=factor: self.gradient(part, factor * self.g, self.x, self.weight) for factor in (1, 2)
            ]
            raise Refused(unsteady(first, second, *calls), False)
        others = {"x": (self.other_x, self.weight), "the weight": (self.x, self.other_weight)}
        for name, (x, weight) in others.items():
            if part == {"x": "grad_weight", "the weight": "grad_x"}[name]:
                continue
            other = self.gradient(part, self.g, x, weight)
            if not np.array_equal(first, other):
                pair = (self.x, self.other_x) if name == "x" else (self.weight, self.other_weight)
                raise Refused(self._changes(part, name, first, other, pair), False, pair)

    def _changes(self, part: str, name: str, first: Array, other: Array, operands: tuple[Array, Array]) -> str:
        """Describe a gradient that changes with the operand of its own shape, or with the other one."""
        one, two = (np.asarray(operand, first.dtype) for operand in operands)
        if first.shape == one.shape and part != "grad_bias":
            right = self.right(part)
            if np.array_equal(first, right * (one > 0)) and np.array_equal(other, right * (two > 0)):
                return f"{part} changes with {name}: it is zero where {name} is not positive, and right elsewhere."
            if times := _multipliers(np.stack([right, right]), np.stack([first, other]), np.stack([one, two]), name):
                return f"{part} changes with {name}: an element is multiplied by {times}.".replace("-", "−")
            step = (one - two).reshape(-1)
            factor = float(np.vdot(step, (first - other).reshape(-1)).real / np.vdot(step, step).real)
            rounding = (
                64 * float(np.finfo(self.dtype.char).eps) * float(np.max(np.abs(right))) if one.dtype.kind == "f" else 0
            )
            if np.allclose(first - factor * one, other - factor * two, atol=rounding):
                same = np.allclose(first - factor * one, right, atol=rounding)
                rest = "the rest is right" if same else "the rest is wrong too"
                return f"{part} changes with {name}: {factor:.3g} times {name} is added; {rest}.".replace("-", "−")
        return f"{part} changes with {name}, on which it must not depend."

    def results(self, part: str) -> Iterator[Result]:
        """Yield the part's results, and the right ones, for tiny, small and large whole numbers, and for fractions."""
        if self.dtype.kind == "c":
            return
        rng, problem = np.random.default_rng(12), self.asked.problem
        most, scale = largest(self.dtype), self.dtype.type(7)
        most *= 5 if self.dtype.kind in "iu" and self.dtype.itemsize > 2 else 1
        for top in (0, 3, 3, most // 4, most, *([-3] if self.fractions else [])):
            x, weight, g = (draw(rng, a.shape, self.dtype, abs(top) or 1) for a in (self.x, self.weight, self.g))
            bias = None if self.bias is None else draw(rng, self.bias.shape, self.dtype, abs(top) or 1)
            if top == 0:
                (g if part in ("grad_weight", "grad_bias") else weight).reshape(-1)[1:] = 0
                bias = None if bias is None else 0 * bias
            if top < 0:
                x, weight, g = (x / scale, weight / scale, g / scale)
            seen = self.y(x, weight, bias) if part == "forward" else self.gradient(part, g, x, weight)
            wide = np.float64 if self.dtype.kind == "f" else np.int64
            operands = Operands(*(None if a is None else a.astype(wide) for a in (x, weight, bias, g)))
            right = getattr(exact_results(problem, operands, (RESULTS[part],)), RESULTS[part])
            if self.dtype.kind in "iu" and np.array_equal(right.astype(self.dtype), seen):
                right = seen  # whole numbers wrap around
            yield Result(right, seen)

    def varying(self, part: str) -> str | None:
        """Return a sentence if calls with the same arguments differ, in a fixed number of calls."""

        def result() -> Array:
            if part == "forward":
                return self.y(self.x, self.weight, self.bias)
            return self.gradient(part, self.g, self.x, self.weight)

        first = result()
        for other in (result() for _ in range(REPEATS)):
            if not np.array_equal(first, other, equal_nan=True):
                where, one, two = differ(first, other)
                text = f"Calls with the same arguments gave different results: {one} and {two} at {where}"
                return f"{text}. It is random, or depends on earlier calls."
        return None

    def right(self, part: str) -> Array:
        """Return the right gradient of x or of the weight for this session's arrays."""
        out, a, b = roles(part, self.asked.problem.transposed)
        x, y = ("positions", "image") if self.asked.problem.transposed else ("image", "positions")
        arrays = {"weight": self.weight, x: self.x, y: self.g}
        table = self.asked.table(part)
        products = arrays[a].reshape(-1)[table.flat[a]] * arrays[b].reshape(-1)[table.flat[b]]
        result: Array = np.zeros(math.prod(table.shapes[out]), products.dtype)
        np.add.at(result, table.flat[out], products)
        return result.reshape(table.shapes[out])

    def stale(self, weight: Array) -> bool:
        """Return whether the output for x = 0 changes after a call with less padding and a larger x."""
        before = self.y(0 * self.x, weight, self.bias)
        pads = [(0, 0), (0, 0), *self.asked.problem.pairs]
        stride, padding, *rest = self.integers
        none = tuple((0, 0) if isinstance(pad, tuple) else 0 for pad in padding)
        padded = np.pad(self.x, pads, constant_values=self.dtype.type(5))
        outcome = self.call(self.forward, padded, weight.copy(), self.bias, stride, none, *rest, **self.options)
        return not outcome.too_long and not np.array_equal(before, self.y(0 * self.x, weight, self.bias))


def check_pointwise(session: Session, part: str) -> None:
    """Raise Refused, with the function, if a part is a function of the right result alone."""
    due = {"forward": session.g.shape, "grad_x": session.x.shape, "grad_weight": session.weight.shape}
    if session.shape != due.get(part, (session.asked.problem.c_out,)):
        return
    results = list(session.results(part))
    text = function_of_right(results, "The output" if part == "forward" else part) if results else None
    if text:
        raise Refused(text, False, (results[1].right, results[-1].right))


def _multipliers(right: Array, seen: Array, operand: Array, name: str) -> str | None:
    """Return by what each right number is multiplied, if that depends on the element of an operand in its place alone.

    >>> right, operand = np.array([5, 6, 7]), np.array([1, 2, 3])
    >>> _multipliers(right, right * (operand < 2), operand, "x")
    '0 where that of x is 2, 3; the others are right'
    """
    some = right != 0
    if not some.any() or np.any(seen[~some]):
        return None
    of_value: dict[float, set[float]] = {}
    for value, ratio in zip(
        operand[some].tolist(), (np.round(seen[some] / right[some], 4) + 0.0).tolist(), strict=True
    ):
        of_value.setdefault(value, set()).add(ratio)
    places: dict[float, list[str]] = {}
    for value, ratios in sorted(of_value.items()):
        if ratios != {1.0}:
            places.setdefault(max(ratios), []).append(f"{value:g}")
    if not places or any(len(ratios) > 1 for ratios in of_value.values()):
        return None
    rest = "; the others are right" * ({1.0} in of_value.values())
    return (
        ", and by ".join(f"{ratio:g} where that of {name} is {', '.join(values)}" for ratio, values in places.items())
        + rest
    )
