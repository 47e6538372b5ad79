"""The strategies reach the interesting cases, stay valid, and shrink to small problems."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings

import refconv
from refconv.testing.oracles.problems import (
    PADDING_FORMS,
    PADDING_MODES,
    Problem,
    definition_results,
    elements,
    random_problem,
)
from refconv.testing.strategies import ConvProblem, conv_problems, problems
from tests.helpers import Backend, assert_results, long, run

Predicate = Callable[[Problem], bool]


def smallest(predicate: Predicate, **choices: Any) -> Problem:
    return find(
        problems(**choices),
        predicate,
        settings=settings(max_examples=500, database=None),
        random=Random(0),
    )


def spans(p: Problem) -> list[int]:
    return [d * (k - 1) + 1 for k, d in zip(p.kernel, p.dilation, strict=True)]


def inexact(p: Problem) -> bool:
    """Return whether the stride leaves a remainder on some axis."""
    axes = zip(p.size, p.pairs, spans(p), p.stride, strict=True)
    return any((n + b + a - span) % s for n, (b, a), span, s in axes)


def asymmetric(p: Problem) -> bool:
    return any(before != after for before, after in p.pairs)


def overlapping(p: Problem) -> bool:
    reads = [c for ins, _ in p.lists for c in ins]
    return len(set(reads)) < len(reads)


INTERESTING: dict[str, Predicate] = {
    "grouped, strided, dilated and asymmetric together": lambda p: (
        len(p.lists) > 1 and max(p.stride) > 1 and max(p.dilation) > 1 and max(p.kernel) > 1 and asymmetric(p)
    ),
    "K differs from C in every group": lambda p: all(len(i) != len(o) for i, o in p.lists),
    "three axes, not square": lambda p: (
        p.spatial_dims == 3 and len(set(p.size)) > 1 and len(set(p.kernel)) > 1 and len(set(p.output_size)) == 3
    ),
    "stride, dilation and kernel differ from axis to axis": lambda p: (
        p.spatial_dims == 2 and all(len(set(a)) == 2 for a in (p.stride, p.dilation, p.kernel))
    ),
    "negative padding on one side": lambda p: any(min(pair) < 0 < max(pair) for pair in p.pairs),
    "unequal groups": lambda p: len({(len(i), len(o)) for i, o in p.lists}) > 1,
    "unbatched and channels last": lambda p: p.batch is None and p.channels_last and len(p.lists) > 1,
    "depthwise with a multiplier": lambda p: p.groups not in (1,) and p.groups == p.c_in and p.c_out == 2 * p.c_in,
    "no bias": lambda p: not p.bias,
    "several samples": lambda p: p.batch == 3,
}
NOT_TRANSPOSED: dict[str, Predicate] = {
    "overlapping groups that leave a channel unread": lambda p: (
        overlapping(p) and len({c for ins, _ in p.lists for c in ins}) < p.c_in
    ),
    "inexact division": inexact,
    "inexact division, grouped and dilated": lambda p: (
        inexact(p) and len(p.lists) > 1 and any(d > 1 and k > 1 for d, k in zip(p.dilation, p.kernel, strict=True))
    ),
    "same padding with an odd element, strided": lambda p: (
        p.padding in ("same", "same_lower") and asymmetric(p) and max(p.stride) > 1
    ),
    "all of the input padded by reflection": lambda p: (
        p.padding_mode == "reflect" and any(max(pair) == n - 1 > 0 for pair, n in zip(p.pairs, p.size, strict=True))
    ),
    "several reflections": lambda p: (
        p.padding_mode == "reflect" and any(max(pair) > n - 1 > 0 for pair, n in zip(p.pairs, p.size, strict=True))
    ),
    "a single element reflected": lambda p: (
        p.padding_mode == "reflect" and any(max(pair) > 0 and n == 1 for pair, n in zip(p.pairs, p.size, strict=True))
    ),
    "a whole turn of circular padding": lambda p: (
        p.padding_mode == "circular" and any(max(pair) == n for pair, n in zip(p.pairs, p.size, strict=True))
    ),
    "more than a turn of circular padding": lambda p: (
        p.padding_mode == "circular" and any(max(pair) > n > 1 for pair, n in zip(p.pairs, p.size, strict=True))
    ),
    "causal padding, dilated": lambda p: p.padding == "causal" and p.dilation[0] > 1 < p.kernel[0],
    "causal padding, strided": lambda p: p.padding == "causal" and p.stride[0] > 1 < p.kernel[0],
    "outputs made of padding only": lambda p: (
        p.padding_mode == "zeros" and any(max(pair) >= span for pair, span in zip(p.pairs, spans(p), strict=True))
    ),
}
TRANSPOSED: dict[str, Predicate] = {
    "output padding beyond the stride": lambda p: any(
        extra >= s for extra, s in zip(p.output_padding, p.stride, strict=True)
    ),
    "output padding where real values land": lambda p: any(
        0 < extra <= after for extra, (_, after) in zip(p.output_padding, p.pairs, strict=True)
    ),
    "same padding that crops an odd element": lambda p: p.padding in ("same", "same_lower") and asymmetric(p),
    "same padding shorter than n·stride": lambda p: (
        p.padding in ("same", "same_lower")
        and any(m < n * s for m, n, s in zip(p.output_size, p.size, p.stride, strict=True))
    ),
    "an output size for numbers": lambda p: (
        p.wanted_size != () and not isinstance(p.padding, str) and max(p.stride) > 1
    ),
    "several outputs per group": lambda p: (
        isinstance(p.groups, int) and p.groups > 1 and p.c_out > p.groups and p.c_in > p.groups
    ),
    "gaps between the taps that no input fills": lambda p: any(
        s > d * (k - 1) + 1 and n > 1 for n, s, d, k in zip(p.size, p.stride, p.dilation, p.kernel, strict=True)
    ),
}


def threes(p: Problem, padding: int = 1) -> bool:
    steps = {*p.kernel} == {3} and {*p.stride} == {1} and {*p.dilation} == {1}
    return steps and {n for pair in p.pairs for n in pair} == {padding}


IN_USE: dict[str, Predicate] = {
    "3×3 or the like, stride 1, padding 1": threes,
    "a strided layer of a network": lambda p: {*p.kernel} == {3} and {*p.stride} == {2},
    "depthwise 3×3 or the like": lambda p: {*p.kernel} == {3} and p.groups == p.c_in > 1,
    "a kernel above 4": lambda p: max(p.kernel) > 4,
    "stride above 3": lambda p: max(p.stride) > 3,
    "dilation above 3": lambda p: any(d > 3 and k > 1 for d, k in zip(p.dilation, p.kernel, strict=True)),
    "more than 3 groups": lambda p: len(p.lists) > 3,
    "batch above 3": lambda p: (p.batch or 0) > 3,
    "more than 4 channels in one group": lambda p: max(p.c_in, p.c_out) > 4 and len(p.lists) == 1,
    "more than 16 positions along an axis": lambda p: max(p.output_size) > 16,
    "as many as a power of two": lambda p: {p.batch, p.c_in, p.c_out, *p.output_size} & {8, 16, 32} != set(),
}
"""Cases that 300 problems of any kind must reach: see refconv.testing.regimes."""

LESS_OFTEN = ("dilation above 3", "more than 16 positions along an axis", "a strided layer of a network")
"""Cases that Hypothesis may miss among 300 examples, because its examples resemble one another."""

RARER: dict[str, Predicate] = {
    "padding above 4": lambda p: p.transposed or max(map(max, p.pairs)) > 4,
    "more than 8 groups": lambda p: len(p.lists) > 8,
    "batch above 8": lambda p: (p.batch or 0) > 8,
    "more than 8 input channels": lambda p: p.c_in > 8 and len(p.lists) == 1,
    "more than 8 output channels": lambda p: p.c_out > 8 and len(p.lists) == 1,
}
"""Cases that 1,200 seeds must reach."""


def drawn(count: int = 600, **choices: Any) -> list[Problem]:
    """Return problems drawn by Hypothesis."""
    seen: list[Problem] = []

    @settings(max_examples=count, phases=[Phase.generate])
    @given(problems(**choices))
    def collect(problem: Problem) -> None:
        seen.append(problem)

    collect()
    return seen


def missed(predicates: dict[str, Predicate], seen: Sequence[Problem]) -> list[str]:
    return [name for name, predicate in predicates.items() if not any(map(predicate, seen))]


def test_reaches_the_interesting_problems() -> None:
    seen = drawn()
    assert missed(INTERESTING | NOT_TRANSPOSED, seen) == []
    assert missed(EMPTY, seen) == list(EMPTY)
    assert {p.spatial_dims for p in seen} == {1, 2, 3}
    padded = [p for p in seen if any(max(pair) > 0 for pair in p.pairs)]
    assert {(p.padding_mode, p.spatial_dims) for p in padded} == set(itertools.product(PADDING_MODES, (1, 2, 3)))
    forms = {(p.padding_mode, p.padding) for p in padded if isinstance(p.padding, str)}
    assert forms >= set(itertools.product(PADDING_MODES, ("same", "same_lower")))
    assert {form for _, form in forms} == {"same", "same_lower", "causal"}


def test_reaches_the_interesting_transposed_problems() -> None:
    seen = drawn(transposed=True)
    assert missed(INTERESTING | TRANSPOSED, seen) == []
    assert missed(EMPTY, seen) == list(EMPTY)


@pytest.mark.parametrize("transposed", [False, True])
def test_reaches_what_is_in_use(transposed: bool) -> None:
    asked = {name: place for name, place in IN_USE.items() if name not in LESS_OFTEN}
    assert missed(asked, drawn(300, transposed=transposed)) == []
    rng = np.random.default_rng(0)
    seen = [random_problem(rng, transposed=transposed) for _ in range(1200)]
    assert missed(IN_USE, seen[:300]) == missed(RARER, seen) == []


@pytest.mark.parametrize("transposed", [False, long(True)])
def test_shrinks_to_the_smallest_problem(transposed: bool) -> None:
    p = smallest(lambda p: True, transposed=transposed)
    assert (p.batch, p.c_in, p.c_out, p.size, p.kernel, p.groups) == (1, 1, 1, (1,), (1,), 1)
    assert (p.stride, p.dilation, p.padding, p.padding_mode) == ((1,), (1,), ((0, 0),), "zeros")


@pytest.mark.long
def test_shrinks_to_the_smallest_problem_with_groups_and_steps() -> None:
    p = smallest(lambda p: len(p.lists) > 1)
    assert (p.c_in, p.c_out, p.size, p.kernel, p.groups) == (2, 2, (1,), (1,), 2)
    p = smallest(lambda p: max(p.output_size) > 1 and max(p.stride) > 1 and max(p.dilation) > 1 < max(p.kernel))
    assert p.c_in == p.c_out == p.batch == 1
    assert elements(p) <= 10


@given(problems(), problems(transposed=True))
def test_problems_are_valid(plain: Problem, transposed: Problem) -> None:
    for p in (plain, transposed):
        assert min(p.output_size) >= 1
        assert min(p.size) >= 1
        written = sorted(k for _, outs in p.lists for k in outs)
        assert written == list(range(p.c_out))
        assert all(ins and len(set(ins)) == len(ins) and set(ins) <= set(range(p.c_in)) for ins, _ in p.lists)
        assert p.padding != "causal" or (p.spatial_dims, p.transposed) == (1, False)
    assert all(
        extra < max(s, d)
        for extra, s, d in zip(transposed.output_padding, transposed.stride, transposed.dilation, strict=True)
    )
    if transposed.padding in ("same", "same_lower") and not transposed.wanted_size:
        sizes = zip(transposed.size, transposed.stride, strict=True)
        assert transposed.output_size == tuple(n * s for n, s in sizes)


EMPTY: dict[str, Predicate] = {
    "an empty batch": lambda p: p.batch == 0,
    "a group that reads no channel": lambda p: any(outs and not ins for ins, outs in p.lists),
    "a group that writes no channel": lambda p: any(ins and not outs for ins, outs in p.lists),
    "a group that does neither": lambda p: any(not ins and not outs for ins, outs in p.lists),
    "an empty group with stride and dilation": lambda p: (
        any(not ins for ins, _ in p.lists) and len(p.lists) > 1 and max(p.stride) > 1 and max(p.dilation) > 1
    ),
}


@pytest.mark.parametrize("transposed", [False, True])
def test_reaches_empty_problems_on_request(transposed: bool) -> None:
    assert missed(EMPTY, drawn(transposed=transposed, empty=True)) == []


@pytest.mark.parametrize("transposed", [False, True])
def test_empty_problems_are_valid(backend: Backend, transposed: bool) -> None:
    @given(conv_problems(transposed=transposed, empty=True))
    def check(case: ConvProblem) -> None:
        assert_results(backend, run(backend, *case), definition_results(*case))

    check()


def test_draws_only_the_given_choices() -> None:
    seen = drawn(
        200, spatial_dims=2, groupings=["depthwise"], padding_forms=("pairs", "same"), padding_modes=("reflect",)
    )
    assert {p.spatial_dims for p in seen} == {2}
    assert all(p.groups == p.c_in and p.padding_mode == "reflect" for p in seen)
    assert {p.padding if isinstance(p.padding, str) else "pairs" for p in seen} == {"pairs", "same"}
    seen = drawn(200, spatial_dims=(1,), padding_forms=("causal",))
    assert {p.padding for p in seen} == {"causal"}
    seen = drawn(200, layouts=False, crops=False)
    assert not any(p.batch is None or p.channels_last or min(min(pair) for pair in p.pairs) < 0 for p in seen)


@pytest.mark.parametrize("name", ["unequal groups", long("inexact division")])
def test_shrinks_what_a_failure_does_not_need(name: str) -> None:
    p = smallest((INTERESTING | NOT_TRANSPOSED)[name])
    assert elements(p) <= 12, p
    assert (p.batch, p.padding_mode, p.channels_last, p.bias) == (1, "zeros", False, False), p


def test_shrinks_to_the_smallest_problem_of_a_form() -> None:
    p = smallest(lambda p: p.padding == "same")
    assert (p.c_in, p.c_out, p.size, p.kernel, p.groups, p.bias) == (1, 1, (1,), (1,), 1, False)
    p = smallest(lambda p: any(not ins for ins, _ in p.lists), empty=True)
    assert (p.batch, p.lists, p.c_in, p.size) == (1, [([], [0])], 1, (1,))


def test_cases_shrink_to_the_smallest_problem_and_first_type() -> None:
    case = find(
        conv_problems(dtypes=("float64", "int8")), lambda c: True, settings=settings(database=None), random=Random(0)
    )
    assert (case.x.shape, case.x.dtype, case.bias) == ((1, 1, 1), np.float64, None)
    assert case.problem == smallest(lambda p: True)


@given(conv_problems(dtypes="complex64", values="normal"), conv_problems(dtypes="int8", transposed=True))
def test_options_are_those_of_the_convolutions(plain: ConvProblem, transposed: ConvProblem) -> None:
    y = refconv.conv(plain.x, plain.weight, plain.bias, **plain.options)
    assert (y.shape, y.dtype) == (plain.grad_output.shape, np.complex64)
    y = refconv.conv_transpose(transposed.x, transposed.weight, transposed.bias, **transposed.options)
    np.testing.assert_array_equal(y, definition_results(*transposed).y)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"spatial_dims": 0}, ValueError, "spatial_dims must be at least 1"),
        ({"spatial_dims": ()}, ValueError, "spatial_dims must contain at least one number"),
        ({"spatial_dims": 1.5}, TypeError, "spatial_dims must be an integer"),
        ({"transposed": 1}, TypeError, "transposed must be a bool"),
        ({"groupings": "one"}, TypeError, "groupings must be a sequence of strings"),
        ({"groupings": ("two",)}, ValueError, "groupings must contain one or more of one, uniform, .*; got"),
        ({"padding_forms": ()}, ValueError, "padding_forms must contain one or more of pairs"),
        ({"padding_forms": ("causal",)}, ValueError, "padding_forms=.* needs spatial_dims=1"),
        ({"padding_modes": (3,)}, ValueError, "padding_modes must contain one or more of zeros"),
        ({"dtypes": "float8"}, ValueError, "dtypes must contain one or more of float16"),
        ({"values": "uniform"}, ValueError, "values must be 'integers' or 'normal'"),
        ({"values": "normal", "dtypes": ("int8",)}, ValueError, "needs floating-point dtypes; got int8"),
    ],
)
def test_bad_arguments_are_refused_at_once(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        conv_problems(**arguments)


def test_without_hypothesis_the_error_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['hypothesis'] = None\n"
        "import refconv.testing, refconv.testing.gradcheck\n"
        "import refconv.testing.strategies"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: refconv.testing.strategies needs Hypothesis")
    assert last.endswith("pip install hypothesis")


@given(conv_problems(dtypes=("float16", "int8", "complex64")))
def test_cases_have_the_shapes_of_their_problem(case: Any) -> None:
    problem, operands = case
    assert operands.x.shape == problem.x_shape
    assert operands.grad_output.shape == problem.output_shape
    weights = operands.weight if isinstance(operands.weight, tuple) else (operands.weight,)
    if len(weights) > 1:
        assert tuple(w.shape for w in weights) == problem.weight_shapes
    assert (operands.bias is not None) == problem.bias
    assert len({a.dtype for a in (operands.x, operands.grad_output, *weights)}) == 1


def test_seeds_reach_the_same_cases() -> None:
    """A few hundred seeds reach the same cases as Hypothesis, because installations are verified without it."""
    rng = np.random.default_rng(0)
    seen = [random_problem(rng) for _ in range(400)]
    assert missed(INTERESTING | NOT_TRANSPOSED, seen) == []
    form = [p.padding if isinstance(p.padding, str) else "pairs" for p in seen]
    reached = {(p.padding_mode, f, p.spatial_dims) for p, f in zip(seen, form, strict=True)}
    causal = set(itertools.product(PADDING_MODES, ["causal"], (1,)))
    assert reached == set(itertools.product(PADDING_MODES, PADDING_FORMS[:-1], (1, 2, 3))) | causal
    seen = [random_problem(rng, transposed=True) for _ in range(400)]
    assert missed(INTERESTING | TRANSPOSED, seen) == []
    assert max(map(elements, seen)) < 20_000
