"""Run one case through an implementation and judge the results.

The same code examines the checked function and the catalogue's wrong ones, without knowing which of them it is given.
So a mistake is recognised where two examinations make the same observations.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from refconv.testing.checker.calls import Caller, Outcome, with_array, with_arrays
from refconv.testing.checker.cases import Case, largest, terms, whole_numbers
from refconv.testing.oracles.bounds import COMPUTE, Scale, judge, precision_of, real_dtype, scales_of
from refconv.testing.oracles.definition import Array
from refconv.testing.oracles.problems import Results
from refconv.testing.oracles.trilinear import exact_results

PARTS = ("y", "grad_x", "grad_weight", "grad_bias")
FORWARD, BACKWARD = PARTS[:1], PARTS[1:]
TITLES = {"y": "the output", "grad_x": "grad_x", "grad_weight": "grad_weight", "grad_bias": "grad_bias"}

RAISED = "raised"
"""The key of a call that raised an exception and gave no result."""

CHECKS = {
    "call": "returns without an exception",
    "time": "returns in time",
    "type": "returns arrays of numbers, the backward pass three of them",
    "shape": "every result has the right shape",
    "dtype": "every result has the right data type",
    "values": "the output is exact on whole numbers",
    "grad_x": "the gradient of x is exact on whole numbers",
    "grad_weight": "the gradient of the weight is exact on whole numbers",
    "grad_bias": "the gradient of the bias is exact on whole numbers",
    "inputs unchanged": "no argument is written to",
    "aliasing": "results are new arrays, and stay as they are when the function is called again",
    "layout": "arrays may have any strides, may be expanded and may be read-only",
    "repeat": "the same call gives the same result again, after any other call, and other data another",
    "empty": "an empty batch works",
    "large numbers": "sums of large whole numbers are exact: integers are not summed in floating point",
    "needs": "a backward pass that is asked for some gradients returns those",
    "real values": "real values are within the bounds of rounding errors",
    "non-finite": "NaN and ∞ reach the outputs that read them, and no others",
}
"""The checks and what each asserts."""

TRAIT_CHECKS = ("dtype", "inputs unchanged", "aliasing")
"""Checks of properties other than the values: a mistake in the one kind says nothing about the other."""

Aspect = tuple[str, str]
"""("values", part) or ("traits", part): an aspect in which two implementations may agree."""

VALUE_CHECKS = {"y": "values", "grad_x": "grad_x", "grad_weight": "grad_weight", "grad_bias": "grad_bias"}


@dataclass(frozen=True)
class Complaint:
    """One fault in one result of one case."""

    check: str
    part: str
    message: str
    case: Case
    expected: Array | None = None
    actual: Array | None = None

    @property
    def aspect(self) -> Aspect:
        """The aspect of the result that is wrong."""
        return aspect_of(self.check, self.part)


def aspect_of(check: str, part: str) -> Aspect:
    """Return the aspect of a result that a check concerns."""
    return "traits" if check in TRAIT_CHECKS else "values", part


@dataclass
class Observation:
    """The observations of one case.

    `made` contains the checks that ran. `keys` contains the values by which two implementations are compared, in order:
    the check to which a run belongs, and the outcome.
    """

    made: set[str] = field(default_factory=set)
    complaints: list[Complaint] = field(default_factory=list)
    keys: dict[Aspect, list[tuple[str | None, Any]]] = field(default_factory=lambda: defaultdict(list))
    precisions: dict[str, str | None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    unsupported: list[str] = field(default_factory=list)  # the functions that raised NotImplementedError
    stopped: bool = False


class Prepared:
    """A case with its right results, and variants of it, each computed once."""

    def __init__(self, case: Case) -> None:
        self.case = case

    @functools.cached_property
    def expected(self) -> Results:
        """Output and gradients, in the data types that they must have."""
        return _expected(self.case)

    @functools.cached_property
    def scales(self) -> dict[str, Scale]:
        """The scales of the bounds on rounding errors."""
        case = self.case
        return {part: scales_of(case.problem, case.operands, part)[0] for part in PARTS}

    @functools.cached_property
    def plain(self) -> Prepared:
        """The same problem with positive whole numbers, so that no sum cancels; one more sample if not real-valued."""
        return self._with_numbers(2, (self.case.problem.batch or 0) + (self.case.kind != "real"), positive=True)

    @functools.cached_property
    def expanded(self) -> Prepared:
        """The same problem with one sample and one output channel repeated, and the same number everywhere in g."""
        case = self.case
        x, weight = (np.broadcast_to(a[:1], a.shape).copy() for a in (case.x, case.weight))
        grad_output = np.broadcast_to(case.grad_output.reshape(-1)[0], case.grad_output.shape).copy()
        return Prepared(dataclasses.replace(case, x=x, weight=weight, grad_output=grad_output))

    @functools.cached_property
    def other(self) -> Prepared:
        """The same problem with other whole numbers."""
        return self._with_numbers(3, self.case.problem.batch or 0)

    def _with_numbers(self, seed: int, batch: int, positive: bool = False) -> Prepared:
        case, rng = self.case, np.random.default_rng(seed)
        problem = dataclasses.replace(case.problem, batch=batch)
        most = largest(problem, case.x.dtype)
        if positive:  # as different as possible with sums that are exact even in float16
            most = min(max(math.isqrt(2048 // terms(problem)), 1), 31)

        def draw(shape: tuple[int, ...]) -> Array:
            return whole_numbers(rng, shape, case.x.dtype, most, positive)

        return Prepared(
            dataclasses.replace(
                case,
                problem=problem,
                x=draw(problem.x_shape),
                weight=draw(problem.weight_shape),
                bias=None if case.bias is None else draw(case.bias.shape),
                grad_output=draw(problem.output_shape),
                kind="integers",
            )
        )


def _expected(case: Case) -> Results:
    dtype = case.x.dtype
    wide = np.int64 if dtype.kind in "iu" else np.complex128 if dtype.kind == "c" else np.float64
    if case.kind == "not finite":
        return _expected_not_finite(case)
    operands = case.operands.mapped(lambda a: a.astype(wide))
    results = exact_results(case.problem, operands)._asdict()
    return Results(*(a.astype(case.dtype_of(part)) for part, a in results.items()))


def _expected_not_finite(case: Case) -> Results:
    """Return NaN or ±∞ where the one element that is not finite is read, and elsewhere the right result without it."""
    bad = ~np.isfinite(case.x)
    value = case.x[bad][0]
    clean = np.where(bad, 0, case.x).astype(np.float64)
    operands = case.operands.mapped(lambda a: a.astype(np.float64))._replace(x=clean)
    y = exact_results(case.problem, operands, ("y",)).y
    # At most one tap of one channel reads a given element at a given output: its weight decides the sign of ∞.
    read = exact_results(case.problem, operands._replace(x=bad.astype(np.float64), bias=None), ("y",)).y
    with np.errstate(invalid="ignore"):
        y = np.where(read != 0, np.sign(read) * value, y)
    return Results(y.astype(case.dtype_of("y")), None, None, None)


Function = Callable[..., Any]


@dataclass(frozen=True)
class Run:
    """One call of each function: the case, the memory layout of its arrays, and the check that gets the complaints."""

    prepared: Prepared
    check: str | None = None  # None: each complaint names its own
    layout: Callable[[Array], Array] = np.asarray
    backward_only: bool = False

    @property
    def case(self) -> Case:
        """The case that is run."""
        return self.prepared.case

    def given(self, *names: str) -> dict[str, Array | None]:
        """Return arguments as fresh copies, so that neither function sees the other's changes."""
        operands = self.case.operands._asdict()
        return {name: None if operands[name] is None else self.layout(operands[name].copy()) for name in names}


def examine(
    prepared: Prepared, forward: Function, backward: Function | None, call: Caller, needs: Sequence[str] = ()
) -> Observation:
    """Run one case and judge it; with `needs`, call the backward pass once more for these gradients only."""
    seen = Observation()
    kept: list[tuple[Array, Array, str]] = []
    for run in _runs(prepared):
        _examine_both(seen, run, forward, backward, call, kept)
        if run.check == "real values" and any(c.check == "real values" for c in seen.complaints):
            # Rounding is the cause only where whole numbers are right.
            whole = Observation()
            _examine_both(whole, Run(prepared.plain), forward, backward, call, kept)
            if whole.complaints or whole.stopped:
                seen = whole
        if needs and backward is not None and not seen.complaints and not seen.unsupported and run.check is None:
            _examine_needs(seen, run, backward, call, needs)
        if seen.stopped or seen.complaints:
            return seen  # where a simple run fails, a more demanding one says nothing
    if prepared.case.kind == "repeat":
        for result, copy, part in kept:
            if not np.array_equal(result, copy, equal_nan=result.dtype.kind in "fc"):
                seen.keys["traits", part].append((None, "changed"))
                _complain(seen, run, "aliasing", part, f"{TITLES[part]} of an earlier call changed in a later one")
                break
    return seen


# --- The runs of a case ----------------------------------------------------------------------------------------------


def _runs(prepared: Prepared) -> Iterator[Run]:
    """Yield the runs of a case; a run with something special follows the same run without it."""
    kind = prepared.case.kind
    if kind == "integers":
        yield Run(prepared)
    elif kind == "real":
        yield Run(prepared, "real values")
    elif kind == "layout":
        yield Run(prepared)
        yield Run(prepared, "repeat")
        for layout in (np.asfortranarray, _channels_last, _backwards, _with_gaps, _odd_strides, _read_only):
            yield Run(prepared, "layout", layout)
        yield Run(prepared.expanded, "layout", _expanded)
    elif kind == "repeat":
        yield Run(prepared)
        yield Run(prepared.other, "repeat")
        yield Run(prepared, "repeat", backward_only=True)  # with operands of an earlier forward pass, not the last one
        yield Run(prepared, "repeat")
    else:
        yield Run(prepared.plain)
        yield Run(prepared, {"not finite": "non-finite", "large": "large numbers"}.get(kind, kind))


def _channels_last(array: Array) -> Array:
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1) if array.ndim > 1 else array


def _backwards(array: Array) -> Array:
    every = (slice(None, None, -1),) * array.ndim
    return array[every].copy()[every]


def _with_gaps(array: Array) -> Array:
    wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]


def _odd_strides(array: Array) -> Array:
    """Return the array with arbitrary strides on axes of one element, where they have no effect."""
    axes = zip(array.shape, array.strides, strict=True)
    return as_strided(array, strides=[7 * array.itemsize if n == 1 else step for n, step in axes])


def _expanded(array: Array) -> Array:
    """Return the array with a stride of 0 where it repeats, as ``y.sum().backward()`` passes a gradient."""
    steps = [0 if (array == array.take([0], axis)).all() else step for axis, step in enumerate(array.strides)]
    return as_strided(array, strides=steps)


def _read_only(array: Array) -> Array:
    array.flags.writeable = False
    return array


# --- Calls and their results -----------------------------------------------------------------------------------------


def _examine_both(
    seen: Observation, run: Run, forward: Function, backward: Function | None, call: Caller, kept: list[Any]
) -> None:
    if not run.backward_only:
        _examine_forward(seen, run, forward, call, kept)
    if backward is not None and not seen.stopped and run.check != "non-finite":
        _examine_backward(seen, run, backward, call, kept)


def _examine_forward(seen: Observation, run: Run, forward: Function, call: Caller, kept: list[Any]) -> None:
    case = run.case
    given = run.given("x", "weight", "bias")
    outcome = call(with_array(forward), *given.values(), *case.integers, **case.options)
    if _failed(seen, run, outcome, FORWARD, "forward"):
        return
    _unchanged(seen, run, given, FORWARD, "forward")
    _examine_part(seen, run, "y", outcome.value[1], given, kept)


def _examine_backward(seen: Observation, run: Run, backward: Function, call: Caller, kept: list[Any]) -> None:
    given, arrays = _gradients(seen, run, backward, call, {})
    for part, array in zip(BACKWARD, arrays, strict=False):
        _examine_part(seen, run, part, array, given, kept)


def _examine_needs(seen: Observation, run: Run, backward: Function, call: Caller, needs: Sequence[str]) -> None:
    """Request some gradients from the backward pass and judge them."""
    asked = Observation()  # the catalogue's mistakes do not take `needs`, so nothing here is compared with them
    run = dataclasses.replace(run, check="needs")
    given, arrays = _gradients(asked, run, backward, call, {"needs": tuple(needs)})
    for part, array in zip(BACKWARD, arrays, strict=False):
        if part[5:] in needs:
            _examine_part(asked, run, part, array, given, [])
    seen.made |= {"needs"}
    seen.stopped |= asked.stopped
    seen.complaints += [
        dataclasses.replace(c, check="needs", message=f"with needs={tuple(needs)}: {c.message}")
        for c in asked.complaints
    ]


def _gradients(
    seen: Observation, run: Run, backward: Function, call: Caller, options: dict[str, Any]
) -> tuple[dict[str, Array | None], list[Array | str]]:
    """Call the backward pass; return its arguments and its three results, or no results if there are not three."""
    case = run.case
    given = run.given("grad_output", "x", "weight")
    outcome = call(with_arrays(backward), *given.values(), *case.integers, **case.options, **options)
    if _failed(seen, run, outcome, BACKWARD, "backward"):
        return given, []
    _unchanged(seen, run, given, BACKWARD, "backward")
    grads, arrays = outcome.value
    if not isinstance(grads, tuple | list) or len(grads) != 3:
        got = f"{len(grads)} values" if isinstance(grads, tuple | list) else type(grads).__name__
        for part in BACKWARD:
            seen.keys["values", part].append((run.check, "type"))
        _complain(seen, run, "type", "grad_x", f"backward must return (grad_x, grad_weight, grad_bias); got {got}")
        return given, []
    return given, arrays


def _failed(seen: Observation, run: Run, outcome: Outcome, parts: tuple[str, ...], name: str) -> bool:
    """Return whether a call gave no result, and record it if so."""
    if outcome.unsupported:
        seen.unsupported.append(name)
        return True
    seen.made |= {"call", "time"}
    if not outcome.too_long and outcome.error is None:
        return False
    if outcome.too_long:
        seen.stopped = True
        _complain(seen, run, "time", parts[0], f"{name} did not return in time; no further case was run")
    elif run.layout is _backwards and "negative" in str(outcome.error) and "stride" in str(outcome.error):
        seen.notes.append(f"{name} refuses arrays with negative strides, as PyTorch does: {outcome.error}")
        return True
    else:
        where = f" ({outcome.where})" if outcome.where else ""
        _complain(seen, run, "call", parts[0], f"{name} raised {outcome.error}{where}")
    for part in parts:
        seen.keys["values", part].append((run.check, "too long" if outcome.too_long else RAISED))
    return True


def _unchanged(seen: Observation, run: Run, given: dict[str, Array | None], parts: tuple[str, ...], name: str) -> None:
    seen.made.add("inputs unchanged")
    originals = run.case.operands._asdict()
    changed = [label for label, a in given.items() if a is not None and a.tobytes() != originals[label].tobytes()]
    for part in parts:
        seen.keys["traits", part].append((run.check, tuple(changed)))
    for label in changed:
        _complain(seen, run, "inputs unchanged", parts[0], f"{name} wrote to its argument {label}")


def _examine_part(
    seen: Observation,
    run: Run,
    part: str,
    array: Array | str,
    given: dict[str, Array | None],
    kept: list[Any],
) -> None:
    """Judge one result: an array, or a description of a value that is not one."""
    title = TITLES[part]
    seen.made |= {"type", "shape", "dtype", "aliasing"}
    if isinstance(array, str):
        seen.keys["values", part].append((run.check, "type"))
        _complain(seen, run, "type", part, f"{title} must be an array of numbers; got {array}")
        return
    shared = [label for label, a in given.items() if a is not None and a.size and np.may_share_memory(array, a)]
    kept.append((array, array.copy(), part))
    exact_shape, dtype = _shape_of(run.case, part), run.case.dtype_of(part)
    seen.keys["traits", part].append((run.check, (array.dtype.str, tuple(shared))))
    if array.shape != exact_shape:  # the values of a result of the wrong size may differ by chance
        seen.keys["values", part].append((run.check, array.shape))
    elif run.case.kind != "real":
        rounded = run.check == "large numbers" and _is_rounded(array, getattr(run.prepared.expected, part))
        seen.keys["values", part].append((run.check, "rounded" if rounded else _canonical(array, dtype)))
    for label in shared:
        _complain(seen, run, "aliasing", part, f"{title} shares memory with the argument {label}")
    if array.shape != exact_shape:
        _complain(seen, run, "shape", part, f"{title} must have shape {exact_shape}; got {array.shape}", None, array)
        return
    if array.dtype != dtype:
        _complain(seen, run, "dtype", part, f"{title} must have data type {dtype}; got {array.dtype}")
        if dtype.kind != "c" and array.dtype.kind == "c":
            return
    if run.case.kind == "real":
        _real(seen, run, part, array)
    else:
        _exact(seen, run, part, array)


def _is_rounded(actual: Array, expected: Array) -> bool:
    """Return whether large whole numbers are right except for their last digits."""
    return not np.array_equal(actual, expected) and np.allclose(actual.astype(float), expected.astype(float), rtol=1e-5)


def _canonical(array: Array, dtype: Any) -> bytes:
    """Return the bytes of an array in a data type, with a single NaN and without negative zeros."""
    if array.dtype.kind != "c" or dtype.kind == "c":
        array = array.astype(dtype)
    if array.dtype.kind in "fc":
        array = np.where(array == array, array + array.dtype.type(0), array.dtype.type(np.nan))
    return bytes(array.tobytes())


def _shape_of(case: Case, part: str) -> Any:
    return {
        "y": case.grad_output.shape,
        "grad_x": case.x.shape,
        "grad_weight": case.weight.shape,
        "grad_bias": case.grad_output.shape[1:2],
    }[part]


def _exact(seen: Observation, run: Run, part: str, actual: Array) -> None:
    seen.made.add(run.check or VALUE_CHECKS[part])
    expected = getattr(run.prepared.expected, part)
    same = (actual == expected) | ((actual != actual) & (expected != expected))
    if same.all():
        return
    wrong = np.argwhere(~same)
    where = tuple(int(i) for i in wrong[0])
    n, size = len(wrong), same.size
    many = f"all {size} elements" if n == size else f"{n} of {size} elements"
    place = f"{many}, {'first ' * (n > 1)}at {where}" if size > 1 else "its only element"
    message = f"{TITLES[part]} is wrong at {place}: expected {expected[where]}, got {actual[where]}"
    if run.case.kind == "not finite" and not np.isfinite(run.case.x).all():
        bad = tuple(int(i) for i in np.argwhere(~np.isfinite(run.case.x))[0])
        message += f"; x is {run.case.x[bad]} at {bad}"
    if run.check == "large numbers" and _is_rounded(actual, expected):
        message += ": all are close, so that the sums seem to be in floating point"
    _complain(seen, run, VALUE_CHECKS[part], part, message, expected, actual)


def _real(seen: Observation, run: Run, part: str, actual: Array) -> None:
    name = real_dtype(run.case.dtype_of(part))
    seen.made.add("real values")
    scale = run.prepared.scales[part]
    precision = precision_of(actual, scale, name)
    if part == "y" and precision not in (None, name, "float16") and _is_half_and_bias(actual, run.case):
        precision = "float16"
    seen.keys["values", part].append((run.check, precision))
    seen.precisions[part] = precision
    complaint = judge(actual, scale, COMPUTE[name], name, name)
    if complaint:
        _complain(seen, run, "real values", part, f"{TITLES[part]} {complaint}", scale.exact, actual)
    elif name != "float16" and scale.is_suspicious(actual, COMPUTE[name]):
        seen.notes.append(
            f"{TITLES[part]} is within its bound, but beyond 6√n·u, what random rounding errors would stay below: "
            f"suspicious at {run.case}"
        )


BITS_OF_HALF = 10
"""Digits that are zero in the numbers of one result if each is a float16 number, for a name: a chance of 1 in 1,024."""


def _is_half_and_bias(actual: Array, case: Case) -> bool:
    """Return whether every output is a float16 number plus its bias, and the bias does not hide the digits."""
    if case.bias is None or actual.dtype.kind != "f" or actual.dtype.itemsize < 4:
        return False
    bias = case.bias.astype(actual.dtype).reshape(-1, *[1] * case.problem.spatial_dims)
    with np.errstate(over="ignore"):
        half = (actual.astype(np.float64) - bias).astype(np.float16)
    if not np.isfinite(half).all() or not np.array_equal(half.astype(actual.dtype) + bias, actual):
        return False
    digits = np.log2(np.spacing(np.abs(half)) / np.spacing(np.abs(actual)))
    return bool(np.sum(digits[(half != 0) & (digits > 0)]) >= BITS_OF_HALF)


def _complain(
    seen: Observation,
    run: Run,
    check: str,
    part: str,
    message: str,
    expected: Array | None = None,
    actual: Array | None = None,
) -> None:
    """Record a complaint, under the run's own check if it has one."""
    if run.check and check not in ("time", "aliasing", "inputs unchanged"):
        check = run.check
    actual = None if actual is None else actual.copy()
    seen.made.add(check)
    seen.complaints.append(Complaint(check, part, message, run.case, expected, actual))
