"""Where a function fails: the sentence names the condition that decides."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from refconv.testing import check_conv
from refconv.testing.checker.conditions import Condition, conditions
from refconv.testing.checker.plan import plan
from refconv.testing.checker.where import described, where
from refconv.testing.mutants import Conv
from refconv.testing.oracles.problems import Problem
from tests.helpers import long

SUPPORTS = ("bias", "stride", "padding", "dilation", "groups")
ENOUGH = 8
"""Minimum number of problems in which a hidden condition differs from a simpler one."""


@functools.cache
def problems_of(d: int, transposed: bool = False) -> list[Problem]:
    return [case.problem for case in plan(d, SUPPORTS, transposed, "float32", 200, 0) if case.kind == "integers"]


def split(hidden: Callable[[Problem], object], d: int = 2) -> tuple[list[Problem], list[Problem]]:
    problems = problems_of(d)
    return [p for p in problems if hidden(p)], [p for p in problems if not hidden(p)]


def told(holds: np.ndarray, problems: list[Problem]) -> bool:
    """Return whether exactly the problems that satisfy a condition are described."""
    failing, passing = list(itertools.compress(problems, holds)), list(itertools.compress(problems, ~holds))
    best = described(failing, passing)
    return bool(best.chosen) and not best.passing.any()


# --- Conditions of the table -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [6, long(25)])
@pytest.mark.parametrize(("d", "transposed"), [(1, False), (2, False), (2, True), (3, False)])
def test_a_hidden_condition_is_found(d: int, transposed: bool, count: int) -> None:
    problems = problems_of(d, transposed)
    rng = np.random.default_rng(d)
    table = [c for c in conditions(problems, 0) if ENOUGH <= c.met <= len(problems) - ENOUGH]
    for index in rng.permutation(len(table))[:count]:
        assert told(table[index].holds, problems), str(table[index])


@pytest.mark.parametrize(("d", "transposed"), [(1, False), long(2, False), long(2, True)])
def test_a_hidden_pair_of_conditions_is_found(d: int, transposed: bool) -> None:
    problems = problems_of(d, transposed)
    found = [told(one.holds & other.holds, problems) for one, other in hidden_pairs(problems, 25)]
    assert np.mean(found) >= 0.95


def hidden_pairs(problems: list[Problem], count: int) -> Iterator[tuple[Condition, Condition]]:
    rng = np.random.default_rng(len(problems))
    table = list(conditions(problems, 0))
    while count:
        one, other = (table[i] for i in rng.choice(len(table), 2, replace=False))
        both = (one.holds & other.holds).sum()
        if both >= ENOUGH and min(one.met, other.met) - both >= ENOUGH:
            count -= 1
            yield one, other


# --- Conditions as an author thinks of them --------------------------------------------------------------------------


def _left_over(p: Problem, j: int) -> int:
    return (p.size[j] + sum(p.pairs[j]) - p.dilation[j] * (p.kernel[j] - 1) - 1) % p.stride[j]


def _all(p: Problem, kernel: int, stride: int) -> bool:
    return set(p.kernel) == {kernel} and set(p.stride) == {stride}


HIDDEN: dict[str, Callable[[Problem], object]] = {
    "an even kernel side on some axis": lambda p: any(k % 2 == 0 for k in p.kernel),
    "an odd kernel side on axis 0": lambda p: p.kernel[0] % 2,
    "equal kernel sides": lambda p: p.kernel[0] == p.kernel[1],
    "unequal kernel sides": lambda p: p.kernel[0] != p.kernel[1],
    "kernel side greater on axis 0 than on axis 1": lambda p: p.kernel[0] > p.kernel[1],
    "kernel side 3 more than a multiple of 4 on axis 1": lambda p: p.kernel[1] % 4 == 3,
    "as many input as output channels": lambda p: p.c_in == p.c_out,
    "unequal input sizes": lambda p: p.size[0] != p.size[1],
    "unequal strides": lambda p: p.stride[0] != p.stride[1],
    "padding half the kernel side on every axis": lambda p: all(
        b == k // 2 for (b, _), k in zip(p.pairs, p.kernel, strict=True)
    ),
    "elements left over by the stride at least 1 on some axis": lambda p: _left_over(p, 0) or _left_over(p, 1),
    "windows that fit exactly on axis 0": lambda p: not _left_over(p, 0),
    "batch at least 3 and an odd batch": lambda p: p.batch and p.batch > 2 and p.batch % 2,
    "input channels per group at least 9 and not a multiple of 8": lambda p: (c := p.c_in // p.n_groups) > 8 and c % 8,
    "output size at least 17 and not a multiple of 16 on axis 0": lambda p: (n := p.output_size[0]) > 16 and n % 16,
    "output size at least 5 and not a multiple of 4 on axis 1": lambda p: p.output_size[1] > 4 and p.output_size[1] % 4,
    "input positions above 256": lambda p: math.prod(p.size) > 256,
    "reduction length at least 33": lambda p: p.c_in // p.n_groups * math.prod(p.kernel) > 32,
    "stride at least 2 and dilation at least 2 on some axis": lambda p: any(
        s > 1 < d for s, d in zip(p.stride, p.dilation, strict=True)
    ),
    "dilation at least 2 on some axis, and stride at least 2 on some axis": lambda p: (
        max(p.dilation) > 1 < max(p.stride)
    ),
    "kernel side 1 and stride 1 on every axis": lambda p: _all(p, 1, 1),
    "stride 2 and kernel side 3 on every axis": lambda p: _all(p, 3, 2),
    "padding 1, stride 1, kernel side 3 and dilation 1 on every axis": lambda p: (
        _all(p, 3, 1) and set(p.pairs) == {(1, 1)} and set(p.dilation) == {1}
    ),
    "stride at least 2 on axis 0": lambda p: p.stride[0] > 1,
    "stride above the kernel side on some axis": lambda p: any(
        s > k for s, k in zip(p.stride, p.kernel, strict=True)
    ),
    "one input channel in each of several groups": lambda p: p.c_in == p.groups != 1,
    "groups at least 2 and a bias": lambda p: p.n_groups > 1 and p.bias,
    "groups at least 2 or unequal dilations": lambda p: p.n_groups > 1 or p.dilation[0] != p.dilation[1],
}  # fmt: skip


@pytest.mark.parametrize("said", HIDDEN)
def test_a_condition_of_an_author_is_named(said: str) -> None:
    failing, passing = split(HIDDEN[said])
    assert where(failing, passing) == f"all {len(failing)} problems with {said} fail, and no other"


@pytest.mark.parametrize("said", [*itertools.islice(HIDDEN, 4), "stride at least 2 on axis 0"])
def test_a_condition_is_named_though_some_problems_pass_by_chance(said: str) -> None:
    failing, passing = split(HIDDEN[said])
    n = len(failing)
    by_chance = set(np.random.default_rng(0).choice(n, n // 25, replace=False).tolist())
    lucky = [p for i, p in enumerate(failing) if i in by_chance]
    unlucky = [p for i, p in enumerate(failing) if i not in by_chance]
    sentence = f"{len(unlucky)} of the {n} problems with {said} fail, and no other"
    assert where(unlucky, [*passing, *lucky]) == sentence


# --- Cases without a description -------------------------------------------------------------------------------------


def test_nothing_accidental_is_said() -> None:
    problems = problems_of(2)
    rng = np.random.default_rng(0)
    for share in (0.01, 0.1, 0.5, 0.9, 0.99):
        failed = rng.random(len(problems)) < share
        sentence = where(list(itertools.compress(problems, failed)), list(itertools.compress(problems, ~failed)))
        n = len(problems)
        assert sentence == f"{failed.sum()} of {n} problems fail; their sizes do not tell them from the others"


def test_a_condition_that_excludes_few_passing_problems_is_not_said() -> None:
    problems = problems_of(2)
    rng = np.random.default_rng(0)
    for condition, said in (
        (lambda p: max(p.kernel) > 1, None),
        (lambda p: p.batch and p.batch > 1, "problems with batch at least 2 fail, and no other"),
    ):
        failed = np.array([bool(condition(p)) and rng.random() < 0.25 for p in problems])
        sentence = where(list(itertools.compress(problems, failed)), list(itertools.compress(problems, ~failed)))
        assert sentence is not None
        assert sentence.endswith(said or "do not tell them from the others"), sentence


def test_causal_padding_is_a_condition() -> None:
    words = (*SUPPORTS, "causal")
    problems = [case.problem for case in plan(1, words, False, "float32", 100, 0) if case.kind == "integers"]
    causal = np.array([p.padding == "causal" for p in problems])
    for failed, said in (
        (causal, "causal padding"),
        (causal & np.array([p.kernel[0] > 1 for p in problems]), "nonzero causal padding"),
    ):
        sentence = where(list(itertools.compress(problems, failed)), list(itertools.compress(problems, ~failed)))
        assert sentence == f"all {failed.sum()} problems with {said} fail, and no other"


def test_fewer_than_three_problems_say_nothing() -> None:
    failing, passing = split(HIDDEN["unequal strides"])
    assert where(failing[:2], passing) is where(failing, passing[:2]) is None
    assert where(failing[:3], passing[:3]) is not None


def test_a_sentence_about_one_of_several_checks_says_so() -> None:
    def forward(x: Any, weight: Any, *options: Any) -> Any:
        if len(x) > 2:
            raise ValueError("too many samples")
        return Conv().forward(x, weight, *options) + (len(x) > 1)

    found = {f.check: f.where for f in check_conv(forward, spatial_dims=1, supports=(), pairs=False).failures}
    assert found["values"] is not None
    assert found["values"].startswith("of those that fail no other check, all ")
    assert found["values"].endswith(" problems with batch at least 2 fail, and no other")


def test_a_message_says_which_elements_are_wrong() -> None:
    def message(wrong: Callable[..., None], size: int) -> str:
        def forward(x: Any, weight: Any, bias: Any, *options: Any) -> Any:
            y = Conv().forward(x, weight, bias, *options)
            if y.size >= size:
                wrong(y.reshape(-1))
            return y

        return check_conv(forward, spatial_dims=1, supports=(), cases=1).failures[0].message.split(":")[0]

    def spoil(elements: slice) -> Callable[..., None]:
        return lambda flat: flat.__setitem__(elements, flat[elements] + 1)

    assert message(spoil(slice(None)), 1) == "the output is wrong at its only element"
    assert message(spoil(slice(None)), 2) == "the output is wrong at all 2 elements, first at (0, 0, 0)"
    assert message(spoil(slice(1)), 2) == "the output is wrong at 1 of 2 elements, at (0, 0, 0)"
