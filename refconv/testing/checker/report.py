"""The checker's findings: failures with their smallest cases, and the names of mistakes that explain them."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from refconv.testing.checker.cases import Case
from refconv.testing.checker.examine import CHECKS, TITLES
from refconv.testing.oracles.definition import Array

WIDTH = 110
PRINTED = 64
"""Elements of the largest array that a report prints."""


@dataclass(frozen=True)
class Diagnosis:
    """A known mistake that gives the observed results, except in edge cases that its explanation mentions.

    Attributes
    ----------
    name, explanation, hint : str
        The mistake in a few words and in a sentence; how to fix it.
    rank : int
        1 for the best match. Mistakes that explain equally much share a rank.
    """

    name: str
    explanation: str
    hint: str
    rank: int = 1


@dataclass(frozen=True)
class Failure:
    """A check that failed, with the smallest case that shows it.

    Attributes
    ----------
    check : str
        Name of the check, one of `refconv.testing.checker.examine.CHECKS`.
    case : Case
        The smallest case that failed it.
    message : str
        Description of the fault in that case.
    diagnoses : tuple of Diagnosis
        Known mistakes with the same results in a sample of failing and passing cases, best first; may be empty.
    part : str
        The wrong result: "y", "grad_x", "grad_weight" or "grad_bias".
    expected, actual : numpy.ndarray or None
        The right and the returned result.
    cases : int
        Number of cases that failed this check.
    explanation : str or None
        What the function computes instead, as :func:`refconv.testing.explain_conv` finds it.
    where : str or None
        The sizes of the problems that fail, if at least three do and three pass.
    """

    check: str
    case: Case
    message: str
    diagnoses: tuple[Diagnosis, ...] = ()
    part: str = "y"
    expected: Array | None = None
    actual: Array | None = None
    cases: int = 1
    recipe: str | None = None
    explanation: str | None = None
    where: str | None = None

    def __str__(self) -> str:
        lines = [f"{self.check}: {self.message}", f"smallest case: {self.case}"]
        if self.where:
            lines.append(f"where: {self.where}")
        for name, array in self.case.operands._asdict().items():
            if array is not None and (name != "grad_output" or self.part != "y"):
                lines += _shown(name, array)
        if self.expected is not None:
            lines += _shown("expected", self.expected)
        if self.actual is not None:
            lines += _shown("actual", self.actual)
        if self.expected is not None and self.actual is not None and 1 < self.expected.size == self.actual.size:
            lines += _shown("they differ where True", _differs(self.expected, self.actual))
        if not self.diagnoses:
            lines.append("no known mistake matches")
        for diagnosis in self.diagnoses:
            lead = "consistent with" if diagnosis.rank == 1 else "less likely"
            text = f"{lead}: {diagnosis.name}. {diagnosis.explanation} {diagnosis.hint}"
            lines += textwrap.wrap(text, WIDTH, subsequent_indent="    ")
        for sentence in (self.explanation or "").splitlines():
            lines += textwrap.wrap(sentence, WIDTH, subsequent_indent="    ")
        lines += ["to reproduce:", textwrap.indent(self.snippet(), "    ")]
        return "\n".join(lines)

    def snippet(self) -> str:
        """Return Python lines that repeat the case's call of the checked ``forward`` or ``backward``."""
        case = self.case
        names = ("x", "weight", "bias") if self.part == "y" else ("grad_output", "x", "weight")
        if self.recipe and max(getattr(case, name).size for name in names if getattr(case, name) is not None) > PRINTED:
            lines = ["from refconv.testing.checker.plan import plan", f"case = {self.recipe}"]
            lines += [f"{name} = case.{name}" for name in names]
        else:
            lines = ["import numpy as np", *(f"{name} = {_literal(getattr(case, name))}" for name in names)]
        function = "forward" if self.part == "y" else "backward"
        options = "".join(f", {name}={value}" for name, value in case.options.items())
        lines.append(f"actual = {function}({', '.join(names)}, {', '.join(map(repr, case.integers))}{options})")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Return the failure as plain data."""
        case = self.case
        return {
            "check": self.check,
            "message": self.message,
            "part": self.part,
            "cases": self.cases,
            "where": self.where,
            "case": {
                "kind": case.kind,
                "stride": case.stride,
                "padding": case.padding,
                "dilation": case.dilation,
                "groups": case.groups,
                "output_padding": case.output_padding,
                "output_dtype": case.output_dtype,
                **{name: _plain(array) for name, array in case.operands._asdict().items()},
            },
            "explanation": self.explanation,
            "expected": _plain(self.expected),
            "actual": _plain(self.actual),
            "diagnoses": [
                {"name": d.name, "explanation": d.explanation, "hint": d.hint, "rank": d.rank} for d in self.diagnoses
            ],
            "reproduce": self.snippet(),
        }


@dataclass(frozen=True)
class CheckReport:
    """The outcome of :func:`check_conv`.

    Attributes
    ----------
    passed : bool
        Whether no check failed.
    cases_run : int
        Number of cases that were run: the whole plan, unless a function did not return.
    failures : tuple of Failure
        One for each check that failed, ordered by the size of its case, smallest first.
    checks : dict of str to int
        The checks that ran, and the number of cases in which each failed.
    precisions : dict of str to str
        For each result, the worst precision that its real-valued cases are consistent with ("none" for no rounding
        error at all).
    notes : tuple of str
        Findings that are allowed but remarkable.
    regimes : dict of str to int
        Number of problems in each regime of :mod:`refconv.testing.regimes`, without unsupported ones.
    failed_regimes : dict of str to int
        Number of problems in each regime in which a check failed; regimes without failures are omitted.
    unsupported : dict of str to int
        Number of problems on which "forward" and "backward" raised NotImplementedError; these were not checked.
    settings : dict
        The arguments of the check.
    """

    passed: bool
    cases_run: int
    failures: tuple[Failure, ...]
    checks: Mapping[str, int]
    precisions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    regimes: Mapping[str, int] = field(default_factory=dict)
    failed_regimes: Mapping[str, int] = field(default_factory=dict)
    unsupported: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def raise_if_failed(self) -> None:
        """Raise AssertionError with the whole report if a check failed.

        Raises
        ------
        AssertionError
            If `passed` is False.
        """
        if not self.passed:
            raise AssertionError(str(self))

    def __str__(self) -> str:
        kind = f"{self.settings['spatial_dims']}-d {'transposed ' if self.settings['transposed'] else ''}convolution"
        wide = f" with {self.settings['output_dtype']} output" if self.settings.get("output_dtype") else ""
        what = "forward and backward" if self.settings["backward"] else "forward only"
        head = (
            f"{'passed' if self.passed else 'FAILED'}: {kind} in {self.settings['dtype']}{wide}, {what}, "
            f"{self.cases_run} cases, seed {self.settings['seed']}"
        )
        lines = [head]
        said: dict[str, int] = {}
        for number, failure in enumerate(self.failures, 1):
            if failure.explanation:
                first = said.setdefault(failure.explanation, number)
                if first != number:
                    failure = replace(failure, explanation=f"It computes what [{first}] says.")
            lines += ["", f"[{number}] {failure}"]
        if self.failures:
            lines.append("")
        for name, asserts in CHECKS.items():
            if name in self.checks:
                failed = self.checks[name]
                outcome = f"FAILED ({failed} case{'s' * (failed > 1)})" if failed else "ok"
                lines.append(f"{outcome:>18}  {name}: {asserts}")
            elif (
                not self.passed and self.settings["backward"] and (name != "needs" or "backward_needs" in self.settings)
            ):
                lines.append(f"{'not reached':>18}  {name}: {asserts}")
        known = {part: precision for part, precision in self.precisions.items() if precision != "none"}
        if known:
            parts = ", ".join(f"{TITLES[part]}: {precision}" for part, precision in known.items())
            precision = f"{min(known.values())} precision" if len(set(known.values())) == 1 else "several precisions"
            lines.append(f"consistent with {precision} ({parts})")
        if self.regimes:
            reached = sum(count > 0 for count in self.regimes.values())
            lines.append(f"{reached} regimes of sizes and layers were reached, each by at least one problem")
            missed = [name for name, count in self.regimes.items() if not count]
            if missed:
                lines.append(f"not supported, and so not checked: {'; '.join(missed)}")
        for function, count in self.unsupported.items():
            lines.append(
                f"not supported: {function} raised NotImplementedError on {count} of {self.cases_run} problems"
            )
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)

    def to_json(self) -> str:
        """Return the report as a JSON object."""
        return json.dumps(
            {
                "passed": self.passed,
                "cases_run": self.cases_run,
                "settings": dict(self.settings),
                "checks": [{"check": n, "asserts": CHECKS[n], "failed_cases": k} for n, k in self.checks.items()],
                "precisions": dict(self.precisions),
                "notes": list(self.notes),
                "regimes": dict(self.regimes),
                "failed_regimes": dict(self.failed_regimes),
                "unsupported": dict(self.unsupported),
                "failures": [failure.as_dict() for failure in self.failures],
            },
            indent=2,
        )


def _differs(expected: Array, actual: Array) -> Array:
    return ~((actual == expected) | ((actual != actual) & (expected != expected)))


def _shown(name: str, array: Array) -> list[str]:
    head = f"{name}: {array.dtype}{array.shape}"
    if array.size > PRINTED:
        return [f"{head}, too large to print"]
    text = np.array2string(array, max_line_width=WIDTH, separator=", ")
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) == 1 and len(head) + len(text) < WIDTH:
        return [f"{head} = {text}"]
    return [f"{head} =", *(f"    {line}" for line in lines)]


def _literal(array: Array | None) -> str:
    """Return a Python expression of an array's values."""
    if array is None:
        return "None"
    values = ", ".join(_number(v) for v in array.reshape(-1).tolist())
    return f'np.array([{values}], "{array.dtype}").reshape({array.shape})'


def _number(value: Any) -> str:
    if isinstance(value, float):
        return "np.nan" if value != value else f"{'-' * (value < 0)}np.inf" if abs(value) == np.inf else repr(value)
    if isinstance(value, complex):
        return f"complex({_number(value.real)}, {_number(value.imag)})"
    return repr(value)


def _plain(array: Array | None) -> Any:
    """Return an array as data for JSON: values as numbers, or as strings if they are not finite."""
    if array is None:
        return None

    def number(value: Any) -> Any:
        if isinstance(value, complex):
            return [number(value.real), number(value.imag)]
        return value if np.isfinite(value) else str(value)

    return {"dtype": str(array.dtype), "shape": array.shape, "values": [number(v) for v in array.reshape(-1).tolist()]}


def ordered(failures: Sequence[Failure]) -> tuple[Failure, ...]:
    """Return failures with the smallest case first."""
    return tuple(sorted(failures, key=lambda failure: failure.case.size))
