"""The checker: someone's convolution against the definition, and the name of the mistake if it is wrong."""

from __future__ import annotations

import dataclasses
import inspect
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from refconv.integers import as_bool, as_int, is_sequence, shown
from refconv.testing.checker.calls import Caller
from refconv.testing.checker.cases import SUPPORTS, Case, plan
from refconv.testing.checker.examine import (
    BACKWARD,
    CHECKS,
    PARTS,
    RAISED,
    Aspect,
    Observation,
    Prepared,
    aspect_of,
    examine,
)
from refconv.testing.checker.report import CheckReport, Diagnosis, Failure, ordered
from refconv.testing.mutants import CATALOGUE, Mutant
from refconv.testing.oracles.bounds import PRECISIONS, real_dtype

FORWARD_ARGUMENTS = ("x", "weight", "bias", "stride", "padding", "dilation", "groups")
BACKWARD_ARGUMENTS = ("grad_output", "x", "weight", "stride", "padding", "dilation", "groups")
DTYPES = (
    "float16", "float32", "float64", "complex64", "complex128",
    "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
)  # fmt: skip

Score = tuple[int, bool]
"""How well a mistake explains a failure: how many results agree, and whether in every case."""


def check_conv(
    forward: Callable[..., Any],
    backward: Callable[..., Any] | None = None,
    *,
    spatial_dims: int = 2,
    supports: Sequence[str] = ("bias", "stride", "padding", "dilation", "groups"),
    dtype: Any = "float32",
    transposed: bool = False,
    cases: int = 200,
    seed: int = 0,
    time_limit: float = 10.0,
    progress: Callable[[int, int, Case], object] | None = None,
) -> CheckReport:
    """Check someone's convolution, and its backward pass, against the definition.

    Problems go from the smallest to larger ones, so that the first failure is minimal, and are the same on every
    run. Whole numbers are compared exactly: any correct direct method, in any order of summation, must agree bit for
    bit. Real values are compared within :func:`error_bound`. Where a check fails, the results are matched against a
    catalogue of wrong implementations (:data:`refconv.testing.mutants.CATALOGUE`), and the mistakes that give the very
    same results are named.

    Parameters
    ----------
    forward : callable
        ``forward(x, weight, bias, stride, padding, dilation, groups) -> y``, called with NumPy arrays (N, C, D1, …, Dd)
        and (K, C/G, k1, …, kd), tuples of ints and the int groups; bias is an array (K,) or None. It may return
        anything that ``numpy.asarray`` or DLPack understands.
    backward : callable, optional
        ``backward(grad_output, x, weight, stride, padding, dilation, groups) -> (grad_x, grad_weight, grad_bias)``.
        Without it only the forward pass is checked.
    spatial_dims : int
        Number of spatial axes d, at least 1.
    supports : sequence of str
        What the implementation claims, among "bias", "stride", "padding", "dilation", "groups",
        "asymmetric_padding" (padding is then a tuple of (before, after) pairs) and, if transposed, "output_padding"
        (then passed as a keyword argument). What is not claimed is not used.
    dtype : dtype or str
        Data type of all operands, which the results must have too.
    transposed : bool
        Whether it is a transposed convolution, whose weight is (C, K/G, k1, …, kd).
    cases : int
        How many problems, at least 1.
    seed : int
        Other seeds give other numbers and other random problems.
    time_limit : float
        Seconds after which a call counts as hanging.
    progress : callable, optional
        Called as ``progress(index, total, case)`` before each case.

    Returns
    -------
    CheckReport
        ``print`` it; or call ``raise_if_failed()`` in a test.

    Raises
    ------
    TypeError, ValueError
        If an argument here is wrong: not callable, a signature without these arguments, an unknown word. Whatever the
        checked functions do wrong is a failure in the report instead.

    Examples
    --------
    >>> import numpy as np
    >>> from refconv.testing import check_conv
    >>> def forward(x, weight, bias, stride, padding, dilation, groups):
    ...     rows = [[sum(map(np.convolve, sample, kernel)) for kernel in weight] for sample in x]
    ...     k = weight.shape[2]
    ...     return np.reshape(rows, (len(x), len(weight), -1))[:, :, k - 1 : x.shape[2]].astype(x.dtype)
    >>> report = check_conv(forward, spatial_dims=1, supports=())
    >>> report.passed, report.failures[0].diagnoses[0].name, report.failures[0].case.x_shape
    (False, 'kernel flipped in the forward pass', (1, 1, 2))
    """
    transposed = as_bool(transposed, "transposed")
    spatial_dims = as_int(spatial_dims, "spatial_dims", 1, 6)
    words = _check_supports(supports, transposed)
    options = ["output_padding"] if "output_padding" in words else []
    _check_callable(forward, "forward", FORWARD_ARGUMENTS, options)
    if backward is not None:
        _check_callable(backward, "backward", BACKWARD_ARGUMENTS, options)
    name = _check_dtype(dtype)
    number, seed = as_int(cases, "cases", 1), as_int(seed, "seed", 0)
    if isinstance(time_limit, bool) or not isinstance(time_limit, int | float) or not time_limit > 0:
        raise ValueError(f"time_limit must be a positive number of seconds; got {shown(time_limit)}")
    prepared = [Prepared(case) for case in plan(spatial_dims, words, transposed, name, number, seed)]
    with np.errstate(all="ignore"), Caller(time_limit) as call:
        seen = list(_examined(prepared, forward, backward, call, progress))
        failures = _failures(prepared, seen, f"plan({spatial_dims}, {words}, {transposed}, {name!r}, {number}, {seed})")
        if failures:
            failures = [_diagnosed(failure, matches) for failure, matches in _matched(failures, prepared, seen)]
    settings = {
        "spatial_dims": spatial_dims, "supports": list(words), "dtype": name, "transposed": transposed,
        "cases": number, "seed": seed, "backward": backward is not None,
    }  # fmt: skip
    return CheckReport(
        passed=not failures,
        cases_run=len(seen),
        failures=ordered(failures),
        checks=_checks(failures, seen),
        precisions=_precisions(seen, name),
        notes=tuple(dict.fromkeys(note for observation in seen for note in observation.notes)),
        settings=settings,
    )


def _examined(
    prepared: Sequence[Prepared],
    forward: Callable[..., Any],
    backward: Callable[..., Any] | None,
    call: Caller,
    progress: Callable[[int, int, Case], object] | None,
) -> Iterable[Observation]:
    for index, case in enumerate(prepared):
        if progress is not None:
            progress(index, len(prepared), case.case)
        observation = examine(case, forward, backward, call)
        yield observation
        if observation.stopped:
            return


# --- From observations to failures -----------------------------------------------------------------------------------


def _failures(prepared: Sequence[Prepared], seen: Sequence[Observation], plan_of: str) -> list[Failure]:
    """Return the first, and so smallest, failure of each check."""
    found: dict[str, Failure] = {}
    counts: dict[str, int] = {}
    for index, observation in enumerate(seen):
        for check in {complaint.check for complaint in observation.complaints}:
            counts[check] = counts.get(check, 0) + 1
        for c in observation.complaints:
            if c.check not in found:
                planned = c.case is prepared[index].case
                recipe = f"list({plan_of})[{index}]" if planned else None
                found[c.check] = Failure(
                    c.check, c.case, c.message, part=c.part, expected=c.expected, actual=c.actual, recipe=recipe
                )
    return [dataclasses.replace(failure, cases=counts[check]) for check, failure in found.items()]


def _checks(failures: Sequence[Failure], seen: Sequence[Observation]) -> dict[str, int]:
    """Return the checks that came to be made, with the number of cases that failed each."""
    made = {check for observation in seen for check in observation.made}
    failed = {failure.check: failure.cases for failure in failures}
    return {check: failed.get(check, 0) for check in CHECKS if check in made}


def _precisions(seen: Sequence[Observation], dtype: str) -> dict[str, str]:
    """Return the worst precision of each result over all real-valued cases."""
    order = [name for name, _ in PRECISIONS.get(real_dtype(dtype), ())] + ["none"]
    worst: dict[str, str] = {}
    for part in PARTS:
        found = [o.precisions[part] or "none" for o in seen if part in o.precisions]
        if found:
            worst[part] = max(found, key=order.index)
    return worst


# --- Diagnosis -------------------------------------------------------------------------------------------------------


@dataclass
class _Agreement:
    """How far one mistake and the checked function agree in one aspect, over the cases that were run."""

    wrong: set[str] = field(default_factory=set)  # the checks that the mistake fails
    same: int = 0  # cases with the same wrong result
    apart: int = 0  # cases that both fail, one of them with an exception in place of a result

    def explains(self, check: str) -> bool:
        """Tell whether the mistake explains that a check fails."""
        return self.same >= max(1, self.apart) and (check in self.wrong or (check == "call" and self.apart > 0))


def _matched(
    failures: Sequence[Failure], prepared: Sequence[Prepared], seen: Sequence[Observation]
) -> list[tuple[Failure, list[tuple[Mutant, Score]]]]:
    """Return, for each failure, the mistakes that explain it, and how well."""
    found: list[tuple[Failure, list[tuple[Mutant, Score]]]] = [(failure, []) for failure in failures]
    aspects = {aspect_of(failure.check, failure.part) for failure in failures}
    runs = list(zip(prepared, seen, strict=False))
    witnesses = {a: [run for run in runs if any(c.aspect == a for c in run[1].complaints)][:3] for a in aspects}
    backward = any(o.keys["values", part] for o in seen for part in BACKWARD)
    hangs = any(o.stopped for o in seen)
    everything = {("values", part) for part in (PARTS if backward else PARTS[:1])}
    for mutant in CATALOGUE:
        if mutant.transposed != prepared[0].case.problem.transposed or (mutant.endless and not hangs):
            continue
        # Three cases that show the failure rule out most mistakes; what is left must agree in every case.
        # Mistakes of memory depend on earlier calls: they are compared in order, without this short cut.
        in_order = mutant.family == "memory"
        likely = {a for a in aspects if _fits(mutant, runs if in_order else witnesses[a], a, backward)}
        if likely:
            agreed = _agreements(mutant, runs, likely | everything, backward)
            results = len(agreed.keys() & everything)
            for failure, matches in found:
                agreement = agreed.get(aspect_of(failure.check, failure.part))
                if agreement and agreement.explains(failure.check):
                    matches.append((mutant, (results, not agreement.apart)))
    return found


def _fits(mutant: Mutant, runs: Iterable[tuple[Prepared, Observation]], aspect: Aspect, backward: bool) -> bool:
    """Tell whether a mistake fails too in some cases of failure, and never in another way."""
    agreement = _agreements(mutant, runs, {aspect}, backward).get(aspect)
    return agreement is not None and bool(agreement.wrong or agreement.apart)


def _agreements(
    mutant: Mutant, runs: Iterable[tuple[Prepared, Observation]], aspects: set[Aspect], backward: bool
) -> dict[Aspect, _Agreement]:
    """Return the aspects in which a mistake is never at odds with what was observed."""
    implementation, agreed = mutant.make(), {aspect: _Agreement() for aspect in aspects}
    with Caller(5.0) as call:
        for case, observed in runs:
            own = examine(case, implementation.forward, implementation.backward if backward else None, call)
            for aspect, agreement in list(agreed.items()):
                mine, theirs = own.keys[aspect], observed.keys[aspect]
                failed = {c.check for c in own.complaints if c.aspect == aspect}
                # A case ends at its first complaint, so that one of the two may have seen less of it.
                if all(map(operator.eq, mine, theirs)):
                    agreement.wrong |= failed
                    agreement.same += bool(failed) and len(mine) == len(theirs)
                elif _apart(own, observed, aspect):
                    agreement.apart += 1
                else:
                    del agreed[aspect]
            if not agreed or own.stopped:
                break
    return agreed


def _apart(own: Observation, observed: Observation, aspect: Aspect) -> bool:
    """Tell whether two results cannot be compared, because one of two failures is an exception."""
    raised = [RAISED in o.keys[aspect] for o in (own, observed)]
    failed = [r or any(c.aspect == aspect for c in o.complaints) for r, o in zip(raised, (own, observed), strict=True)]
    return all(failed) and raised[0] != raised[1]


def _diagnosed(failure: Failure, matches: Sequence[tuple[Mutant, Score]]) -> Failure:
    scores = sorted({score for _, score in matches}, reverse=True)
    diagnoses = [
        Diagnosis(mutant.name, mutant.explanation, mutant.hint, rank)
        for rank, best in enumerate(scores, 1)
        for mutant, score in matches
        if score == best
    ]
    return dataclasses.replace(failure, diagnoses=tuple(diagnoses))


# --- The arguments ---------------------------------------------------------------------------------------------------


def _check_callable(function: Any, name: str, arguments: Sequence[str], options: Sequence[str]) -> None:
    listed = ", ".join([*arguments, *(f"{option}=" for option in options)])
    if not callable(function):
        raise TypeError(f"{name} must be a function of ({listed}); got {shown(function)}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a function without one, from C
        return
    try:
        signature.bind(*arguments, **dict.fromkeys(options))
    except TypeError as error:
        called = getattr(function, "__name__", "it")
        raise TypeError(f"{name} must take ({listed}); {called}{signature} does not: {error}") from None


def _check_supports(supports: Any, transposed: bool) -> tuple[str, ...]:
    if not is_sequence(supports) and not isinstance(supports, set | frozenset):
        raise TypeError(f"supports must be a sequence of words; got {shown(supports)}")
    for word in supports:
        if word not in SUPPORTS:
            raise ValueError(f"supports must hold only {', '.join(SUPPORTS)}; got {shown(word)}")
    if "output_padding" in supports and not transposed:
        raise ValueError("supports may hold output_padding only with transposed=True")
    return tuple(word for word in SUPPORTS if word in supports)


def _check_dtype(dtype: Any) -> str:
    try:
        name: str = np.dtype(dtype).name
    except TypeError:
        raise TypeError(f"dtype must be one of {', '.join(DTYPES)}; got {shown(dtype)}") from None
    if name not in DTYPES or dtype is None:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}; got {shown(dtype)}")
    return name


__all__ = ["Case", "check_conv"]
