"""The result of an exercise's check, as a learner reads it: the call, then its arrays, then names of mistakes."""

from __future__ import annotations

import dataclasses
import re
import sysconfig
import textwrap
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from refconv.testing.checker.calls import converted
from refconv.testing.checker.report import PRINTED, WIDTH, CheckReport, Diagnosis
from refconv.testing.oracles.definition import Array

_LIBRARIES = (str(Path(__file__).resolve().parents[2]), *(sysconfig.get_paths()[n] for n in ("stdlib", "purelib")))
"""Folders whose code is not a learner's."""
SHORT = 8
"""Maximum number of elements of an array that is written out in a call."""
_RESULTS = ("call", "type", "shape", "dtype", "values", "grad_x")
"""Checks of a piece's result, which its call shows."""


@dataclass(frozen=True)
class Verdict:
    """The result of an exercise's check; print it.

    Attributes
    ----------
    name : str
        The function that was checked.
    report : CheckReport
        The whole report of the convolution that contains the function.
    call : str
        The call in the smallest failing case. For a piece, also its arrays, the returned result and the right one.
    slips : tuple of Diagnosis
        Slips of programming that explain a failure; the catalogue of wrong convolutions does not contain them.
    piece : bool
        Whether the function is a piece of a convolution rather than a whole pass.
    """

    name: str
    report: CheckReport
    call: str = ""
    slips: tuple[Diagnosis, ...] = ()
    piece: bool = False

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return self.report.passed

    @property
    def diagnoses(self) -> tuple[Diagnosis, ...]:
        """Known mistakes that explain the smallest failing case."""
        return () if self.passed else (*self.slips, *self.report.failures[0].diagnoses)

    def __str__(self) -> str:
        if self.passed:
            return f"passed: {self.name} is right in all {self.report.cases_run} cases"
        failure = self.report.failures[0]
        if failure.check == "call" and "NotImplementedError" in failure.message:
            return f"FAILED: {self.name} is not written yet"
        head = [f"FAILED: {self.name}", *([self.call] if self.call else [])]
        if self.piece:
            beyond = [] if failure.check in _RESULTS else [f"{failure.check}: {failure.message}"]
            return "\n".join([*head, *beyond, *named(self.diagnoses)])
        explanation = None if self.slips else failure.explanation
        failure = dataclasses.replace(failure, diagnoses=self.diagnoses, explanation=explanation)
        kind = "forward" if failure.part == "y" else "backward"
        message, _, *rest = str(failure).replace(f"actual = {kind}(", f"actual = {self.name}(").splitlines()
        message = message.removeprefix("call: ").replace(f"{kind} raised ", "raised ", 1)
        return "\n".join([*head, at_line(message), *rest])


def named(diagnoses: Iterable[Diagnosis]) -> list[str]:
    """Return the lines that name mistakes."""
    lines = []
    for mistake in diagnoses:
        lead = "consistent with" if mistake.rank == 1 else "less likely"
        text = f"{lead}: {mistake.name}. {mistake.explanation} {mistake.hint}"
        lines += textwrap.wrap(text, WIDTH, subsequent_indent="    ")
    return lines


def called(
    call: str, arrays: Mapping[str, Array], attempted: tuple[Any, str], right: Array, must: str = "the shape"
) -> str:
    """Return a call, its arrays, its result as :func:`attempt` returned it, and the right result.

    `must` describes in words the shape that the result must have.
    """
    lines = [call, *(f"{name} =\n{shown(array)}" for name, array in arrays.items())]
    value, error = attempted
    actual = None if error else converted(value)
    if error:
        lines.append(error)
    elif not isinstance(actual, np.ndarray):
        lines.append(f"returned {actual}, not an array of numbers")
    elif actual.shape != right.shape:
        lines.append(f"returned shape {actual.shape}; it must return {must} = {right.shape}")
    elif actual.dtype != right.dtype:
        lines.append(f"returned data type {actual.dtype}; it must be {right.dtype}, as that of the argument")
    elif np.array_equal(actual, right):
        lines.append("returned the right numbers")
    else:
        lines.append(f"returned\n{shown(actual)}\nand should return\n{shown(right)}")
    return "\n".join(lines)


def shown(array: Array) -> str:
    """Return an array as text, or its shape if it is large."""
    return str(array) if array.size <= PRINTED else f"({array.shape}, too large to print)"


def attempt(function: Callable[..., Any], *arguments: Any) -> tuple[Any, str]:
    """Return what a function returns and "", or None and the exception that it raised, with the learner's line."""
    try:
        return function(*arguments), ""
    except NotImplementedError:
        raise
    except Exception as error:  # any exception is for the learner to read
        cut(error)
        frames = traceback.extract_tb(error.__traceback__)
        own = [f" (line {f.lineno}, in {f.name})" for f in frames if not f.filename.startswith(_LIBRARIES)]
        return None, f"raised {raised(error)}{own[-1] if own else ''}"


def cut(error: BaseException) -> None:
    """Let an exception's traceback end in the learner's own code, not in a library that it calls."""
    trace = last = error.__traceback__
    while trace is not None:
        if not trace.tb_frame.f_code.co_filename.startswith(_LIBRARIES):
            last = trace
        trace = trace.tb_next
    if last is not None:
        last.tb_next = None


def raised(error: BaseException) -> str:
    """Return an exception in words, even if its own message cannot be made."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return f"{type(error).__name__}, which cannot be printed"


def at_line(message: str) -> str:
    """Return a checker's message about an exception with the line of a cell in place of a file's name."""

    def line(place: re.Match[str]) -> str:
        file, number, function = place.groups()
        return "" if file.startswith(_LIBRARIES) else f" (line {number}, in {function})"

    return re.sub(r" \(([^()]*):(\d+) in ([^()]+)\)$", line, message)


def name_of(function: Callable[..., Any]) -> str:
    """Return a function's name."""
    return str(getattr(function, "__name__", "the function"))


def listed(arguments: Sequence[Any]) -> str:
    """Return arguments as text for a call, long arrays by their shape.

    >>> listed([3, np.ones(2), np.ones((64, 8))])
    '3, [1. 1.], array(64, 8)'
    """
    long = [isinstance(one, np.ndarray) and one.size > SHORT for one in arguments]
    return ", ".join(f"array{one.shape}" if cut else str(one) for one, cut in zip(arguments, long, strict=True))


def must_pass(verdict: object) -> None:
    """Print the result of a check and, for a grader that needs an error, raise an exception unless it passed.

    Raises
    ------
    AssertionError
        With the first line of the verdict.

    Examples
    --------
    >>> from refconv.testing.exercises import check_out_size
    >>> must_pass(check_out_size(lambda n, k, stride, padding, dilation: 0))
    Traceback (most recent call last):
        ...
    AssertionError: FAILED: out_size
    """
    print(verdict)  # noqa: T201
    found = str(verdict)
    if not found.startswith("passed: "):
        raise AssertionError(found.split("\n", 1)[0])
