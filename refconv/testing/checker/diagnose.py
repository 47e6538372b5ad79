"""The names of the mistakes that explain the failures, found by running the catalogue on the same cases.

A known mistake explains a failure if it gives the same wrong results wherever the two can be compared. Edge cases (an
empty batch, NaN, rounding) are compared separately: a mistake that differs only there is still named, with the
difference.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from typing import Any

from refconv.testing.checker.calls import Caller
from refconv.testing.checker.examine import (
    BACKWARD,
    PARTS,
    RAISED,
    Aspect,
    Observation,
    Prepared,
    aspect_of,
    examine,
)
from refconv.testing.checker.report import Diagnosis, Failure
from refconv.testing.checker.where import where
from refconv.testing.mutants import CATALOGUE, Mutant

Run = tuple[Prepared, Observation]
"""A case, and the observation of the checked function."""

WITNESSES = 24
"""Failing cases of each aspect, and passing ones, on which known mistakes are compared with the checked function."""

FIRST = 3
"""Cases that rule out most mistakes."""

EDGES = {"empty": "an empty batch", "non-finite": "NaN and ∞", "real values": "real values"}
"""Checks in which a known mistake may differ and still explain the rest."""

SHOWN_BY = {
    "memory": {"repeat", "aliasing", "inputs unchanged", "layout"},
    "precision": {"real values", "large numbers"},
}
"""Families whose mistakes always fail one of these checks."""


@dataclass
class _Agreement:
    """How far one mistake and the checked function agree in one aspect, over the compared cases."""

    wrong: set[str] = field(default_factory=set)  # the checks that the mistake fails
    same: int = 0  # cases with the same wrong result
    apart: int = 0  # cases that both fail, one of them with an exception instead of a result
    edges: set[str] = field(default_factory=set)  # the edge checks in which they differ

    def explains(self, check: str) -> bool:
        """Return whether the mistake explains the failure of a check."""
        fails = check in self.wrong or (check == "call" and self.apart > 0)
        return fails and check not in self.edges and self.same >= max(1, self.apart)


def diagnosed(failures: Sequence[Failure], runs: Sequence[Run], transposed: bool, caller: Caller) -> list[Failure]:
    """Return the failures with the known mistakes that explain each, best first.

    If the checked function did not return, `caller` waits for it, and another Caller makes the calls.
    """
    aspects = {aspect_of(failure.check, failure.part) for failure in failures}
    backward = any(seen.keys["values", part] for _, seen in runs for part in BACKWARD)
    hangs = any(seen.stopped for _, seen in runs)
    failing = {a: [run for run in runs if any(c.aspect == a for c in run[1].complaints)] for a in aspects}
    everything = {("values", part) for part in (PARTS if backward else PARTS[:1])}
    checks = {failure.check for failure in failures}
    first, compared = _first(failing), _sample(runs, failing)
    found: dict[int, list[tuple[Any, Mutant, _Agreement]]] = {number: [] for number in range(len(failures))}
    with Caller(5.0) if hangs else contextlib.nullcontext(caller) as call:
        for mutant in CATALOGUE:
            in_order = mutant.family == "memory"  # earlier calls matter: there is no short cut
            if mutant.transposed != transposed or (mutant.endless and not hangs):
                continue
            if not SHOWN_BY.get(mutant.family, checks) & checks:
                continue
            likely = aspects
            if not in_order:
                tried = _agreements(mutant, first, aspects, set(), backward, call)
                likely = {aspect for aspect, agreement in tried.items() if agreement.wrong or agreement.apart}
            if not likely:
                continue
            agreed = _agreements(mutant, compared, likely, everything, backward, call)
            results = sum(not agreed[aspect].edges for aspect in agreed.keys() & everything)
            for number, failure in enumerate(failures):
                agreement = agreed.get(aspect_of(failure.check, failure.part))
                if agreement and agreement.explains(failure.check):
                    score = (not agreement.edges, results, not agreement.apart)
                    found[number].append((score, mutant, agreement))
    return [
        replace(failure, diagnoses=tuple(_ranked(failure, found[number], failing)), where=_where(failure, runs))
        for number, failure in enumerate(failures)
    ]


def _where(failure: Failure, runs: Sequence[Run]) -> str | None:
    """Return where a check fails: among whole numbers, or among real values if only these fail it."""
    for kind in ("integers", "real"):
        regular = [run for run in runs if run[0].case.kind == kind]
        problems = [prepared.case.problem for prepared, _ in regular]
        failed = [any(c.check == failure.check for c in seen.complaints) for _, seen in regular]
        passed = [not any(c.part == failure.part for c in seen.complaints) for _, seen in regular]
        if any(failed):
            text = where(list(compress(problems, failed)), list(compress(problems, passed)))
            elsewhere = sum(failed) + sum(passed) < len(regular)
            return f"of those that fail no other check, {text}" if text and elsewhere else text
    return None


def _first(failing: Mapping[Aspect, Sequence[Run]]) -> list[Run]:
    """Return a few cases of each aspect, which already rule out most mistakes.

    Real-valued cases are avoided if possible: two functions may fail such a case for different reasons, and are then
    examined differently.
    """
    chosen: dict[int, Run] = {}
    for runs in failing.values():
        ordered = sorted(runs, key=lambda run: run[0].case.kind == "real")
        chosen |= {id(run): run for run in ordered[:FIRST]}
    return list(chosen.values())


def _sample(runs: Sequence[Run], failing: Mapping[Aspect, list[Run]]) -> list[Run]:
    """Return the cases to compare on, in order: failing ones of each aspect, passing ones, and all special ones.

    Half of each are the first that were not chosen yet, half are spread over the others.
    """
    chosen = {id(run) for run in runs if run[0].case.kind not in ("integers", "real")}
    passing = [run for run in runs if not run[1].complaints]
    of_check: dict[str, list[Run]] = {}
    for run in runs:
        for check in {c.check for c in run[1].complaints}:
            of_check.setdefault(check, []).append(run)
    chosen |= {id(run) for failed in of_check.values() for run in failed[:FIRST]}
    for sort in (*failing.values(), passing):
        left = [id(run) for run in sort if id(run) not in chosen]
        half = max(0, WITNESSES - len(sort) + len(left)) // 2
        chosen |= {*left[:half], *left[half :: max(1, len(left) // half)]} if half else set()
    return [run for run in runs if id(run) in chosen]


def _agreements(
    mutant: Mutant, runs: Sequence[Run], needed: set[Aspect], others: set[Aspect], backward: bool, call: Caller
) -> dict[Aspect, _Agreement]:
    """Return the aspects in which a mistake never contradicts the observations, except in edge cases.

    The `others` matter only while a `needed` aspect is left.
    """
    implementation, agreed = mutant.make(), {aspect: _Agreement() for aspect in needed | others}
    implementation.output_dtype = next((prepared.case.output_dtype for prepared, _ in runs), None)
    comparable = _precisions if mutant.family == "precision" else _plain
    for prepared, seen in runs:
        own = examine(prepared, implementation.forward, implementation.backward if backward else None, call)
        for aspect, agreement in list(agreed.items()):
            mine, theirs = comparable(own.keys[aspect]), comparable(seen.keys[aspect])
            failed = {c.check for c in own.complaints if c.aspect == aspect}
            # A case ends at its first complaint, so one of the two may have seen less of it.
            if all(map(operator.eq, mine, theirs)):
                differing = _edges_apart(own.keys[aspect], seen.keys[aspect])
                agreement.edges |= differing
                agreement.wrong |= failed - differing
                agreement.same += bool(failed - differing) and len(mine) == len(theirs)
            elif _apart(own, seen, aspect):
                agreement.apart += 1
            else:
                del agreed[aspect]
        if not agreed.keys() & needed or own.stopped:
            break
    return agreed


def _plain(keys: Sequence[tuple[str | None, Any]]) -> list[Any]:
    return [key for check, key in keys if check not in EDGES]


def _precisions(keys: Sequence[tuple[str | None, Any]]) -> list[Any]:
    """Return the keys that identify rounding. Digits of too long whole numbers depend on the order of summation."""
    return [key for check, key in keys if check in ("real values", "large numbers")]


def _edges_apart(mine: Sequence[tuple[str | None, Any]], theirs: Sequence[tuple[str | None, Any]]) -> set[str]:
    """Return the edge checks in which both gave results, but different ones."""
    differing = set()
    for edge in EDGES:
        both = [[key for check, key in keys if check == edge] for keys in (mine, theirs)]
        if not all(map(operator.eq, *both)):
            differing.add(edge)
    return differing


def _apart(own: Observation, seen: Observation, aspect: Aspect) -> bool:
    """Return whether two results cannot be compared because exactly one of the failures is an exception."""
    raised = [any(key == RAISED for _, key in o.keys[aspect]) for o in (own, seen)]
    failed = [r or any(c.aspect == aspect for c in o.complaints) for r, o in zip(raised, (own, seen), strict=True)]
    return all(failed) and raised[0] != raised[1]


def _ranked(
    failure: Failure, matches: Sequence[tuple[Any, Mutant, _Agreement]], failing: dict[Aspect, list[Run]]
) -> list[Diagnosis]:
    scores = sorted({score for score, _, _ in matches}, reverse=True)
    runs = failing[aspect_of(failure.check, failure.part)]
    return [
        Diagnosis(mutant.name, mutant.explanation + _beside(agreement, runs), mutant.hint, rank)
        for rank, best in enumerate(scores, 1)
        for score, mutant, agreement in matches
        if score == best
    ]


def _beside(agreement: _Agreement, runs: Sequence[Run]) -> str:
    """Describe the edge cases in which the checked function differs from a mistake that explains the rest."""
    text = ""
    for edge in sorted(agreement.edges):
        message = next((c.message for _, seen in runs for c in seen.complaints if c.check == edge), None)
        if message is None:
            text += f" Only the named mistake is also wrong for {EDGES[edge]}."
        else:
            text += f" Your function also differs from it for {EDGES[edge]}: {message}."
    return text
