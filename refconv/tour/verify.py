"""Verify this installation: random problems against the definition, on every installed array module.

There are three kinds of evidence, and none shares code with the convolution under test:

* the loops of :mod:`refconv.testing.oracles.definition` and SciPy, for values;
* the adjoint identities ⟨g, conv(x, w)⟩ = ⟨grad_x, x⟩ = ⟨grad_w, w⟩, for gradients;
* the bounds of :mod:`refconv.testing.oracles.bounds`, for real values. Whole numbers need no bounds, because every
  correct implementation agrees with the loops bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

import refconv
from refconv.arrays import BACKENDS, Array, Namespace, to_numpy
from refconv.progress import Advance
from refconv.testing.oracles.bounds import COMPUTE, exact_and_bounds
from refconv.testing.oracles.definition import scipy_conv
from refconv.testing.oracles.problems import (
    Operands,
    Problem,
    Results,
    definition_results,
    inner,
    integer_arrays,
    normal_arrays,
    random_problem,
)

Run = Callable[[Namespace, Problem, Operands], Results]
"""Computes a problem's output and gradients on an array module; operands and results are NumPy arrays."""


@dataclass
class BackendReport:
    """The results of the problems on one array module.

    Attributes
    ----------
    name, version : str
        The array module.
    exact_problems, real_problems : int
        Problems with whole numbers in float32, and with real numbers in float64.
    comparisons : int
        Arrays compared with the definition or SciPy.
    identities : int
        Adjoint identities checked.
    worst_error : float
        Largest error of real values, in units of its bound: at most 1 if the convolution is right.
    failures : list of str
        The errors, each with its problem.
    """

    name: str
    version: str
    exact_problems: int = 0
    real_problems: int = 0
    comparisons: int = 0
    identities: int = 0
    worst_error: float = 0.0
    failures: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether something was tested, and nothing failed."""
        return not self.failures and self.exact_problems + self.real_problems > 0


@dataclass
class Verification:
    """The reports of all installed array modules, and the reasons why others are missing."""

    seed: int
    backends: list[BackendReport]
    missing: dict[str, str]

    @property
    def passed(self) -> bool:
        """Whether every installed array module passed."""
        return bool(self.backends) and all(report.passed for report in self.backends)


class Expected(NamedTuple):
    """A problem, its operands, and the results expected by the oracles."""

    problem: Problem
    operands: Operands
    results: Results
    second_opinion: Array | None
    """The output that SciPy gives; None for a transposed convolution."""
    bounds: Results | None
    """Error bounds of real values; None where the results must be exact."""


def available_backends(first: str) -> tuple[list[str], dict[str, str]]:
    """Return the array modules to verify, the chosen one first, and for every other module why it is missing.

    Parameters
    ----------
    first : str
        The chosen module, which must be installed.

    Raises
    ------
    ValueError, refconv.BackendError
        See :func:`refconv.load_backend`, for the chosen module.

    Examples
    --------
    >>> available_backends("numpy")[0][0]
    'numpy'
    """
    refconv.load_backend(first)
    present, missing = [first], {}
    for name in BACKENDS:
        if name != first:
            try:
                refconv.load_backend(name)
                present.append(name)
            except refconv.BackendError as error:
                missing[name] = str(error)
    return present, missing


def compute(xp: Namespace, problem: Problem, operands: Operands) -> Results:
    """Compute output and gradients with refconv on the array module `xp`; NumPy arrays in and out."""
    x, weight, bias, grad_output = operands.mapped(xp.asarray)
    options = problem.options()
    if problem.transposed:
        y = refconv.conv_transpose(x, weight, bias, **options)
        grads = refconv.conv_transpose_backward(grad_output, x, weight, **options)
    else:
        y = refconv.conv(x, weight, bias, **options)
        grads = refconv.conv_backward(grad_output, x, weight, **options)
    return Results(to_numpy(y), to_numpy(grads.x), _from_module(grads.weight), to_numpy(grads.bias))


def _from_module(array: Any) -> Any:
    return tuple(map(to_numpy, array)) if isinstance(array, tuple) else to_numpy(array)


# Expected results


def draw_expected(seed: int, exact: int, real: int, advance: Advance | None = None) -> list[Expected]:
    """Draw problems and compute their expected results; a third of the problems are transposed.

    Parameters
    ----------
    seed : int
        Seed of the problems.
    exact, real : int
        Number of problems with whole numbers in float32, and with normally distributed numbers in float64.
    advance : Advance, optional
        Called for each problem.

    Examples
    --------
    >>> [case.operands.x.dtype.name for case in draw_expected(0, exact=1, real=1)]
    ['float32', 'float64']
    """
    rng = np.random.default_rng(seed)
    cases = []
    for i in range(exact + real):
        problem = random_problem(rng, transposed=i % 3 == 2)
        if i < exact:
            cases.append(_expect(problem, integer_arrays(problem, rng)))
        else:
            cases.append(_expect(problem, normal_arrays(problem, rng, "float64"), bounded=True))
        if advance is not None:
            advance(1, "computing expected results")
    return cases


def _expect(problem: Problem, operands: Operands, bounded: bool = False) -> Expected:
    if not bounded:
        return Expected(problem, operands, definition_results(problem, operands), _scipy(problem, operands), None)
    # The loops use extended precision if the machine has it.
    loops = definition_results(problem, operands.mapped(lambda array: array.astype(np.longdouble)))
    _, bounds = exact_and_bounds(problem, operands, COMPUTE["float64"])
    return Expected(problem, operands, loops, _scipy(problem, operands), bounds)


def _scipy(problem: Problem, operands: Operands) -> Array | None:
    if problem.transposed:
        return None
    y = scipy_conv(
        problem.to_plain(operands.x),
        operands.weight,
        operands.bias,
        stride=problem.stride,
        padding=problem.padding,
        dilation=problem.dilation,
        groups=problem.groups,
        padding_mode=problem.padding_mode,
    )
    return problem.from_plain(y)


# Comparing


def verify(
    backends: Sequence[str],
    *,
    seed: int = 0,
    exact: int = 300,
    real: int = 60,
    missing: dict[str, str] | None = None,
    run: Run = compute,
    advance: Advance | None = None,
) -> Verification:
    """Compare refconv with its oracles on random problems, for each array module.

    Parameters
    ----------
    backends : sequence of str
        Array modules, all installed.
    seed : int
        Seed of the problems.
    exact, real : int
        Number of problems with whole numbers, and with real numbers.
    missing : dict, optional
        Missing array modules and the reasons, which become part of the result.
    run : callable
        The convolution to verify, by default refconv.
    advance : Advance, optional
        Called for each problem once for the oracles and once for each array module.

    Examples
    --------
    >>> verify(["numpy"], exact=3, real=1).passed
    True
    """
    cases = draw_expected(seed, exact, real, advance)
    reports = []
    for name in backends:
        xp = refconv.load_backend(name)
        report = BackendReport(name, backend_version(name))
        for case in cases:
            _judge(report, xp, case, run)
            if advance is not None:
                advance(1, f"comparing {name}")
        reports.append(report)
    return Verification(seed, reports, dict(missing or {}))


def backend_version(name: str) -> str:
    """Return the version of an array module's package."""
    import importlib

    return str(importlib.import_module(name).__version__)


def _judge(report: BackendReport, xp: Namespace, case: Expected, run: Run) -> None:
    if case.bounds is None:
        report.exact_problems += 1
    else:
        report.real_problems += 1
    try:
        actual = run(xp, case.problem, case.operands)
    except Exception as error:  # a broken implementation may raise anything, which is a finding and not a crash
        report.failures.append(f"{type(error).__name__}: {error}, on {case.problem}")
        return
    found = _compare(report, case, actual) or _identities(report, case, actual)
    if found:
        report.failures.append(f"{'; '.join(found)}, on {case.problem}")


def _compare(report: BackendReport, case: Expected, actual: Results) -> list[str]:
    found = []
    for part in Results._fields:
        bound = None if case.bounds is None else getattr(case.bounds, part)
        found += _differences(report, part, getattr(actual, part), getattr(case.results, part), bound)
    if case.second_opinion is not None:
        # SciPy sums float64 in another order, so its real values may have errors as large as ours.
        bound = None if case.bounds is None else 2 * case.bounds.y
        found += _differences(report, "y (SciPy)", actual.y, case.second_opinion, bound, measure=False)
    return found


def _differences(
    report: BackendReport, part: str, actual: Any, expected: Any, bound: Any, measure: bool = True
) -> list[str]:
    if isinstance(expected, tuple):
        if not isinstance(actual, tuple) or len(actual) != len(expected):
            return [f"{part} does not have one array per group"]
        bounds = bound or (None,) * len(expected)
        found = []
        for g, (a, e, b) in enumerate(zip(actual, expected, bounds, strict=True)):
            found += _differences(report, f"{part}[{g}]", a, e, b, measure)
        return found
    report.comparisons += 1
    if actual.shape != expected.shape:
        return [f"{part} has shape {actual.shape}, not {expected.shape}"]
    if bound is None:
        wrong = int(np.sum(actual != expected)) if actual.dtype == expected.dtype else actual.size
        return [f"{part} is wrong in {wrong} of {actual.size} elements"] if wrong else []
    error = np.abs(actual - expected)
    ratio = np.where(error == 0, 0, np.inf)
    np.divide(error, bound, out=ratio, where=bound > 0, casting="same_kind")
    worst = float(np.max(ratio, initial=0))
    if measure:
        report.worst_error = max(report.worst_error, worst)
    return [] if worst <= 1 else [f"the error of {part} is {worst:.3g} times its bound"]  # NaN too is a failure


def _identities(report: BackendReport, case: Expected, actual: Results) -> list[str]:
    """Check ⟨g, y − bias⟩ = ⟨grad_x, x⟩ = ⟨grad_w, w⟩ and ⟨grad_bias, bias⟩, exactly, on whole numbers."""
    if case.bounds is not None:
        return []
    operands, found = case.operands, []
    left = inner(operands.grad_output, actual.y)
    if operands.bias is not None:
        left -= inner(actual.grad_bias, operands.bias)
    for name, grad, value in (
        ("x", actual.grad_x, operands.x),
        ("weight", actual.grad_weight, operands.weight),
    ):
        report.identities += 1
        right = inner(grad, value)
        if left != right:
            found.append(f"⟨grad_output, conv⟩ = {left:g} but ⟨grad_{name}, {name}⟩ = {right:g}")
    return found
