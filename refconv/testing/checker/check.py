"""The checker: compare someone's convolution with the definition, and name its mistake."""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from refconv.integers import as_bool, as_int, is_sequence, shown
from refconv.testing.checker.calls import Caller
from refconv.testing.checker.cases import Case
from refconv.testing.checker.diagnose import Run, diagnosed
from refconv.testing.checker.examine import (
    BACKWARD,
    CHECKS,
    PARTS,
    VALUE_CHECKS,
    Complaint,
    Observation,
    Prepared,
    examine,
)
from refconv.testing.checker.explained import explained
from refconv.testing.checker.plan import SUPPORTS, plan
from refconv.testing.checker.report import CheckReport, Failure, ordered
from refconv.testing.oracles.bounds import PRECISIONS, real_dtype
from refconv.testing.regimes import regimes_of

FORWARD_ARGUMENTS = ("x", "weight", "bias", "stride", "padding", "dilation", "groups")
BACKWARD_ARGUMENTS = ("grad_output", "x", "weight", "stride", "padding", "dilation", "groups")
DTYPES = (
    "float16", "float32", "float64", "complex64", "complex128",
    "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
)  # fmt: skip

KEPT = 2000
"""First cases that are kept for the diagnosis; later failing ones are added, up to twice as many in total."""


def check_conv(
    forward: Callable[..., Any],
    backward: Callable[..., Any] | None = None,
    *,
    spatial_dims: int = 2,
    supports: Sequence[str] = ("bias", "stride", "padding", "dilation", "groups"),
    dtype: Any = "float32",
    output_dtype: Any = None,
    transposed: bool = False,
    cases: int = 200,
    seed: int = 0,
    time_limit: float = 10.0,
    backward_needs: Sequence[Sequence[str]] = (),
    pairs: bool = True,
    progress: Callable[[int, int, Case], object] | None = None,
) -> CheckReport:
    """Check someone's convolution, and its backward pass, against the definition.

    Problems are run from the smallest to larger ones, so that the first failure is minimal, and are the same in every
    run. They cover every regime that `supports` allows: the layers of well-known networks, and sizes on both sides of
    every power of two (:mod:`refconv.testing.regimes`). A function may raise NotImplementedError: such problems are
    counted as not supported, not as checked. Whole numbers are compared exactly: any correct direct method, in any
    order of summation, must agree bit for bit. Real values are compared within :func:`error_bound`. Where a check
    fails, the results are compared with a catalogue of wrong implementations
    (:data:`refconv.testing.mutants.CATALOGUE`), and the mistakes that give the same results are named.

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
        Features that the implementation claims, among "bias", "stride", "padding", "dilation", "groups",
        "asymmetric_padding" (padding is then a tuple of (before, after) pairs) and, if transposed, "output_padding"
        (then passed as a keyword argument). Problems use no other features. Three more words narrow the problems
        down: "equal_axes" (kernel, stride, padding and dilation are the same along all axes), "depthwise_only" (as many
        groups as input channels) and "stride_or_dilation" (one of them is 1). With "causal", for one spatial axis,
        in some problems padding is the word "causal" instead of a tuple: dilation·(k−1) zeros before, none after.
    dtype : dtype or str
        Data type of all operands, which the results must have too.
    output_dtype : dtype or str, optional
        A wider data type of the same kind that the output must have, such as "int32" for int8 operands; gradients keep
        the operands' type. The products of whole numbers then exceed the operands' type, so that a sum that wraps
        around is noticed.
    transposed : bool
        Whether it is a transposed convolution, whose weight is (C, K/G, k1, …, kd).
    cases : int
        Number of random problems, at least 1, besides the problems for the regimes of :mod:`refconv.testing.regimes`.
    seed : int
        Another seed gives other numbers and other random problems.
    time_limit : float
        Seconds after which a call counts as hanging.
    backward_needs : sequence of tuples of str
        Subsets of ("x", "weight", "bias"). `backward` is then called a second time in each case, with one of them in
        turn as the keyword argument ``needs``; it must return these gradients, and may return anything in place of the
        others.
    pairs : bool
        Whether to run pairs of regimes too. Without them, a check of a slow function takes half the time.
    progress : callable, optional
        ``progress(index, total, case)`` is called before each case.

    Returns
    -------
    CheckReport
        ``print`` it; or call ``raise_if_failed()`` in a test.

    Raises
    ------
    TypeError, ValueError
        If an argument of `check_conv` is wrong: not callable, a signature without these arguments, an unknown word.
        Mistakes of the checked functions are failures in the report instead.

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
    words = _check_supports(supports, spatial_dims, transposed)
    options = ["output_padding"] if "output_padding" in words else []
    _check_callable(forward, "forward", FORWARD_ARGUMENTS, options)
    subsets = _check_needs(backward_needs)
    if backward is not None:
        _check_callable(backward, "backward", BACKWARD_ARGUMENTS, options + ["needs"] * bool(subsets))
    elif subsets:
        raise ValueError(f"backward_needs needs a backward function; got {shown(backward_needs)} and backward=None")
    name = _check_dtype(dtype, "dtype")
    wide = None if output_dtype is None else _check_wider(output_dtype, name)
    number, seed = as_int(cases, "cases", 1), as_int(seed, "seed", 0)
    if isinstance(time_limit, bool) or not isinstance(time_limit, int | float) or not time_limit > 0:
        raise ValueError(f"time_limit must be a positive number of seconds; got {shown(time_limit)}")
    settings: dict[str, Any] = {
        "spatial_dims": spatial_dims, "supports": list(words), "dtype": name, "transposed": transposed,
        "cases": number, "seed": seed, "backward": backward is not None,
    }  # fmt: skip
    if wide is not None:
        settings["output_dtype"] = wide
    if not as_bool(pairs, "pairs"):
        settings["pairs"] = False
    if subsets:
        settings["backward_needs"] = [list(subset) for subset in subsets]
    last = [bool(pairs), wide] if wide is not None else [] if pairs else [False]  # a recipe shows no defaults
    arguments = (spatial_dims, words, transposed, name, number, seed, *last)
    total, cases_in_order = _planned(*arguments)
    with np.errstate(all="ignore"), Caller(time_limit) as call:
        record = Record(f"plan{arguments}", name, wide or name)
        for index, prepared in enumerate(cases_in_order):
            if progress is not None:
                progress(index, total, prepared.case)
            needs = subsets[index % len(subsets)] if subsets else ()
            record.add(prepared, examine(prepared, forward, backward, call, needs))
            if record.stopped:
                break
        return record.report(forward, backward, call, settings)


def _planned(*arguments: Any) -> tuple[int, Iterable[Prepared]]:
    """Return the number of cases of a plan, and the cases, which are cached if the plan is of usual size."""
    planned = _usual_plan(*arguments)
    return (len(planned), planned) if isinstance(planned, list) else (len(planned), map(Prepared, planned))


@functools.lru_cache(maxsize=4)
def _usual_plan(*arguments: Any) -> list[Prepared] | plan:
    planned = plan(*arguments)
    return [Prepared(case) for case in planned] if len(planned) <= KEPT else planned


class Record:
    """The observations so far, in bounded memory for any number of cases."""

    def __init__(self, planned: str, *dtypes: str) -> None:
        self.planned = planned
        self.cases = 0
        self.made: set[str] = set()
        self.failed: Counter[str] = Counter()
        self.notes: dict[str, None] = {}
        self.regimes: dict[str, int] = {}
        self.failed_regimes: Counter[str] = Counter()
        self.unsupported: Counter[str] = Counter()
        self.runs: list[Run] = []  # the first cases, and later ones that failed
        self.stopped = False
        self.inexact: set[str] = set()  # the results that are wrong on whole numbers
        self._first: dict[tuple[str, str], Failure] = {}
        self._precisions: dict[str, Counter[str]] = {}
        known = [name for dtype in dtypes for name, _ in PRECISIONS.get(real_dtype(dtype), ())]
        self._order = [*dict.fromkeys(known), "none"]

    def add(self, prepared: Prepared, seen: Observation) -> None:
        """Add one case."""
        if self.cases < KEPT or (seen.complaints and len(self.runs) < 2 * KEPT):
            self.runs.append((prepared, seen))
        for complaint in seen.complaints:
            if (complaint.check, complaint.part) not in self._first:
                self._first[complaint.check, complaint.part] = self._failure(prepared, complaint)
        self.failed.update({complaint.check for complaint in seen.complaints})
        self.made |= seen.made
        self.notes |= dict.fromkeys(seen.notes)
        for part, found in seen.precisions.items():
            self._precisions.setdefault(part, Counter())[found or "none"] += 1
        self.unsupported.update(set(seen.unsupported))
        regimes = regimes_of(prepared.case.problem)
        if seen.complaints:
            self.failed_regimes.update(regimes)
        for regime in regimes:
            self.regimes[regime] = self.regimes.get(regime, 0) + ("forward" not in seen.unsupported)
        self.cases += 1
        self.stopped |= seen.stopped

    def _failure(self, prepared: Prepared, complaint: Complaint) -> Failure:
        c = complaint
        recipe = f"{self.planned}[{self.cases}]" if c.case is prepared.case else None
        copies: dict[str, Any] = c.case.operands.mapped(np.copy)._asdict()
        case = replace(c.case, **copies)  # the plan is kept for the next check
        return Failure(c.check, case, c.message, part=c.part, expected=c.expected, actual=c.actual, recipe=recipe)

    def report(
        self,
        forward: Callable[..., Any],
        backward: Callable[..., Any] | None,
        call: Caller,
        settings: Mapping[str, Any],
    ) -> CheckReport:
        """Return the report, with names and explanations of the mistakes."""
        failures = self._failures(backward is not None)
        if failures:
            failures = diagnosed(failures, self.runs, settings["transposed"], call)
            if not self.stopped:  # a thread that does not return takes no further call
                supports, dtype = settings["supports"], settings["dtype"]
                failures = explained(failures, self.runs, forward, backward, supports, dtype, call)
        return CheckReport(
            passed=not failures,
            cases_run=self.cases,
            failures=ordered(failures),
            checks={check: self.failed[check] for check in CHECKS if check in self.made},
            precisions={part: found for part in PARTS if part not in self.inexact and (found := self._precision(part))},
            notes=tuple(self.notes),
            regimes=self.regimes,
            failed_regimes=dict(self.failed_regimes),
            unsupported=dict(self.unsupported),
            settings=settings,
        )

    def _failures(self, backward: bool) -> list[Failure]:
        """Return the first, and therefore smallest, failure of each check."""
        for part, function in (("y", "forward"), *([("grad_x", "backward")] if backward else [])):
            if self.unsupported[function] == self.cases:
                self.made.add("call")
                self.failed["call"] += self.cases
                message = f"{function} raised NotImplementedError on every problem: nothing was checked"
                self._first.setdefault(("call", part), Failure("call", self.runs[0][0].case, message, part=part))
        # Rounding is the cause only where whole numbers are right.
        self.inexact = {part for part, check in VALUE_CHECKS.items() if (check, part) in self._first}
        first: dict[str, Failure] = {}
        for (check, part), failure in self._first.items():
            if check != "real values" or part not in self.inexact:
                if check == "real values":
                    failure = replace(failure, message=self._named(failure.message, part))
                first.setdefault(check, replace(failure, cases=self.failed[check]))
        return list(first.values())

    def _precision(self, part: str) -> str | None:
        """Return the precision that all real-valued cases of a result are consistent with, "none" for no precision.

        If the results are float16 numbers in most cases only, there is no evidence for a precision.
        """
        counts = self._precisions.get(part)
        if not counts:
            return None
        worst = max(counts, key=self._order.index)
        others = sum(counts[name] for name in ("tf32", "bfloat16"))
        return "none" if worst != "float16" and counts["float16"] > others > 0 else worst

    def _named(self, message: str, part: str) -> str:
        """Return the message on a real-valued case with the precision of all cases: one case is also within others."""
        found, (start, clause, _) = self._precision(part), message.partition("; consistent with ")
        if not clause or (found == "none" and "no precision" in message):
            return message
        return start if found == "none" else f"{start}{clause}{found}"


# --- The arguments ---------------------------------------------------------------------------------------------------


def _check_callable(function: Any, name: str, arguments: Sequence[str], options: Sequence[str]) -> None:
    listed = ", ".join([*arguments, *(f"{option}=" for option in options)])
    if not callable(function):
        raise TypeError(f"{name} must be a function of ({listed}); got {shown(function)}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a function from C, without a signature
        return
    try:
        signature.bind(*arguments, **dict.fromkeys(options))
    except TypeError as error:
        called = getattr(function, "__name__", "it")
        raise TypeError(f"{name} must take ({listed}); {called}{signature} does not: {error}") from None


def _check_supports(supports: Any, spatial_dims: int, transposed: bool) -> tuple[str, ...]:
    if not is_sequence(supports) and not isinstance(supports, set | frozenset):
        raise TypeError(f"supports must be a sequence of words; got {shown(supports)}")
    for word in supports:
        if word not in SUPPORTS:
            raise ValueError(f"supports may contain only {', '.join(SUPPORTS)}; got {shown(word)}")
    if "output_padding" in supports and not transposed:
        raise ValueError("supports may contain output_padding only with transposed=True")
    if "causal" in supports and (spatial_dims != 1 or transposed):
        raise ValueError("supports may contain causal only with spatial_dims=1 and transposed=False")
    return tuple(word for word in SUPPORTS if word in supports)


def _check_needs(needs: Any) -> tuple[tuple[str, ...], ...]:
    known = tuple(part[5:] for part in BACKWARD)
    if not is_sequence(needs) or not all(is_sequence(subset) for subset in needs):
        raise TypeError(
            f'backward_needs must be a sequence of tuples, such as (("x",), ("weight", "bias")); got {shown(needs)}'
        )
    for subset in needs:
        if not subset or any(word not in known for word in subset):
            raise ValueError(f"each tuple of backward_needs may contain only {', '.join(known)}; got {shown(subset)}")
    return tuple(tuple(word for word in known if word in subset) for subset in needs)


def _check_dtype(dtype: Any, argument: str) -> str:
    try:
        name: str = np.dtype(dtype).name
    except TypeError:
        raise TypeError(f"{argument} must be one of {', '.join(DTYPES)}; got {shown(dtype)}") from None
    if name not in DTYPES or dtype is None:
        raise ValueError(f"{argument} must be one of {', '.join(DTYPES)}; got {shown(dtype)}")
    return name


def _check_wider(output_dtype: Any, dtype: str) -> str | None:
    name = _check_dtype(output_dtype, "output_dtype")
    kinds = [np.dtype(n).kind.replace("u", "i") for n in (dtype, name)]
    if kinds[0] != kinds[1] or not np.can_cast(dtype, name):
        raise ValueError(f"output_dtype must be a data type of the same kind that holds every {dtype}; got {name}")
    return None if name == dtype else name


__all__ = ["Case", "check_conv"]
