"""The checker, random problems and strategies reach every regime: no mistake hides in a common size or layer."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from refconv.testing import check_conv
from refconv.testing.checker.cases import Case
from refconv.testing.checker.plan import (
    STEPS,
    SUPPORTS,
    WORK,
    Domain,
    mixed_problem,
    pairs,
    plan,
    systematic,
    witnesses,
    work,
)
from refconv.testing.mutants import Conv, ConvTranspose
from refconv.testing.oracles.problems import Problem
from refconv.testing.regimes import LAYERS, SIZES, SPECIAL, Layer, axes_of, regimes_of, sizes_of

USUAL = SUPPORTS[:5]


def each(numbers: Any, value: int) -> bool:
    return set(numbers) == {value}


def depth(p: Problem) -> int:
    return p.c_in // int(p.groups)  # type: ignore[arg-type]


def threes(p: Problem, stride: int, padding: int, dilation: int = 1) -> bool:
    steps = each(p.kernel, 3) and each(p.stride, stride) and each(p.dilation, dilation)
    return steps and each(p.pairs, (padding, padding))  # type: ignore[arg-type]


HIDING_PLACES: dict[str, Callable[[Problem], bool]] = {
    "3×3, stride 1, padding 1": lambda p: threes(p, 1, 1),
    "3×3, stride 2, padding 1": lambda p: threes(p, 2, 1),
    "depthwise 3×3": lambda p: each(p.kernel, 3) and p.groups == p.c_in > 1,
    "depthwise 3×3, dilated": lambda p: each(p.kernel, 3) and p.groups == p.c_in > 1 and min(p.dilation) > 1,
    "a kernel above 3": lambda p: max(p.kernel) > 3,
    "a kernel of 5 with padding 2": lambda p: each(p.kernel, 5) and each(p.pairs, (2, 2)),  # type: ignore[arg-type]
    "a kernel of 7 with stride 2": lambda p: each(p.kernel, 7) and each(p.stride, 2),
    "an even kernel above 4": lambda p: any(k > 4 and k % 2 == 0 for k in p.kernel),
    "a kernel of 11": lambda p: max(p.kernel) == 11,
    "stride above 3": lambda p: max(p.stride) > 3,
    "dilation above 3": lambda p: any(d > 3 and k > 1 for d, k in zip(p.dilation, p.kernel, strict=True)),
    "padding above 3": lambda p: max(map(max, p.pairs)) > 3,
    "padding above the kernel": lambda p: any(a[0] > k > 1 for a, k in zip(p.pairs, p.kernel, strict=True)),
    "more than 3 groups": lambda p: int(p.groups) > 3,  # type: ignore[arg-type]
    "more than 3 groups of several channels": lambda p: int(p.groups) > 3 and depth(p) > 3,  # type: ignore[arg-type]
    "exactly 32 groups": lambda p: p.groups == 32,
    "batch above 3": lambda p: (p.batch or 0) > 3,
    "batch above 16": lambda p: (p.batch or 0) > 16,
    "more than 16 input channels a group": lambda p: depth(p) > 16,
    "more than 16 output channels": lambda p: p.c_out > 16 and p.groups == 1,
    "more than 8 channels in and out": lambda p: depth(p) > 8 and p.c_out > 8 and p.groups == 1,
    "height above 16": lambda p: p.size[0] > 16,
    "width above 32": lambda p: p.size[-1] > 32,
    "output columns left over of 8": lambda p: p.output_size[-1] > 8 and p.output_size[-1] % 8 > 0,
    "more than 64 positions": lambda p: int(np.prod(p.output_size)) > 64,
    "sums of more than 32 terms": lambda p: depth(p) * int(np.prod(p.kernel)) > 32,
    "many samples of many positions": lambda p: (p.batch or 0) > 4 and int(np.prod(p.output_size)) > 8,
    "3×3 with many channels": lambda p: threes(p, 1, 1) and depth(p) > 8,
    "3×3 with many samples": lambda p: threes(p, 1, 1) and (p.batch or 0) > 8,
    "3×3 with a wide image": lambda p: threes(p, 1, 1) and p.size[-1] > 8,
    "3×3 with many groups": lambda p: threes(p, 1, 1) and int(p.groups) > 8,  # type: ignore[arg-type]
    "strided groups": lambda p: int(p.groups) > 4 and max(p.stride) > 1,  # type: ignore[arg-type]
    "no bias": lambda p: not p.bias,
}
SEVERAL_AXES: dict[str, Callable[[Problem], bool]] = {
    "output rows left over of 8": lambda p: p.output_size[0] > 8 and p.output_size[0] % 8 > 0,
    "a tall image": lambda p: p.size[0] > 8 * p.size[-1],
    "1×k": lambda p: p.kernel[0] == 1 and p.kernel[-1] >= 3,
    "k×1": lambda p: p.kernel[-1] == 1 and p.kernel[0] >= 3,
    "unequal strides": lambda p: len(set(p.stride)) > 1 and min(p.kernel) > 1,
}


# --- A mistake in one regime -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("d", "transposed"), [(1, False), (2, False), (3, False), (2, True)])
def test_every_hiding_place_is_visited_with_whole_numbers(d: int, transposed: bool) -> None:
    problems = [case.problem for case in plan(d, USUAL, transposed, "float32", 1, 0) if case.kind == "integers"]
    places = HIDING_PLACES | (SEVERAL_AXES if d > 1 else {})
    if d == 3:
        places = {name: place for name, place in places.items() if name != "a kernel of 11"}
    if transposed:
        places = {name: place for name, place in places.items() if "of 7 with" not in name and "of 5 with" not in name}
    assert [name for name, place in places.items() if not any(map(place, problems))] == []


def spoilt(place: Callable[[Case], bool], part: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return a convolution with one wrong element, in y, grad_x or grad_weight, in one regime only."""
    right = Conv()

    def wrong(result: Any, *integers: Any) -> Any:
        if place(*integers) and result.size:
            result = result.copy()
            result.reshape(-1)[result.size // 2] += 1
        return result

    def forward(x: Any, weight: Any, bias: Any, *integers: Any) -> Any:
        y = right.forward(x, weight, bias, *integers)
        return wrong(y, x, weight, *integers) if part == 0 else y

    def backward(g: Any, x: Any, weight: Any, *integers: Any) -> Any:
        grads = list(right.backward(g, x, weight, *integers))
        if part:
            grads[part - 1] = wrong(grads[part - 1], x, weight, *integers)
        return tuple(grads)

    return forward, backward


@pytest.mark.thinned(4)
@pytest.mark.parametrize("part", [0, 1, 2], ids=["y", "grad_x", "grad_weight"])
@pytest.mark.parametrize(
    "place",
    [
        lambda x, w, stride, padding, dilation, groups: w.shape[2:] == (3, 3) and stride == padding == (1, 1),
        lambda x, w, stride, padding, dilation, groups: groups > 3 and len(w) > groups,
        lambda x, w, stride, padding, dilation, groups: x.shape[0] > 3 and w.shape[1] > 16,
    ],
    ids=["3x3", "groups", "batch and channels"],
)
def test_one_wrong_element_in_one_regime_is_caught(place: Any, part: int) -> None:
    report = check_conv(*spoilt(place, part), cases=1)
    assert {failure.check for failure in report.failures} & {"values", "grad_x", "grad_weight"}
    assert {failure.part for failure in report.failures} == {("y", "grad_x", "grad_weight")[part]}


# --- No regime is left out -------------------------------------------------------------------------------------------


def possible(layer: Layer, d: int, supports: tuple[str, ...]) -> bool:
    """Return whether an implementation with this support can be checked on a layer."""
    steps = layer.steps(d)
    if steps is None:
        return False
    _, stride, padding, dilation = steps
    return (
        ("stride" in supports or each(stride, 1))
        and ("padding" in supports or "asymmetric_padding" in supports or each(padding, 0))
        and ("dilation" in supports or each(dilation, 1))
        and ("output_padding" in supports or layer.output_padding == 0)
        and (
            "groups" in supports or layer.groups == 1 or ("depthwise_only" in supports and layer.groups == "depthwise")
        )
        and (layer.groups in (1, "depthwise") or "depthwise_only" not in supports)
        and ("equal_axes" not in supports or all(len(set(numbers)) == 1 for numbers in steps))
        and ("stride_or_dilation" not in supports or max(stride) == 1 or max(dilation) == 1)
    )


def possible_sizes(supports: tuple[str, ...], d: int) -> set[str]:
    names = {"batch", "output channels per group", "output columns", "input columns", "output positions"}
    if "depthwise_only" not in supports:
        names |= {"input channels per group", "reduction length"}
    names |= {"output rows", "input rows"} if d > 1 else set()
    names |= {"groups"} if {"groups", "depthwise_only"} & set(supports) else set()
    names |= {name for name in ("stride", "dilation") if name in supports}
    padded = {"padding", "asymmetric_padding"} & set(supports)
    names |= {"padding"} if padded and (d < 4 or "equal_axes" not in supports) else set()
    names |= {"kernel side"} if d < 4 or "equal_axes" not in supports else set()
    return {f"{name} {size}" for name in names for size in SIZES[name]}


WORDS = [
    *((word,) for word in ("bias", "stride", "padding", "dilation", "groups", "asymmetric_padding", "depthwise_only")),
    (),
    USUAL,
    (*USUAL, "asymmetric_padding"),
    (*USUAL, "equal_axes"),
    (*USUAL, "stride_or_dilation"),
    ("stride", "padding", "dilation", "depthwise_only", "equal_axes", "stride_or_dilation"),
    ("bias", "stride", "padding", "equal_axes"),
]


@pytest.mark.thinned(12)
@pytest.mark.parametrize(
    ("supports", "transposed", "d"),
    [
        *((words, False, d) for d in (1, 2, 3) for words in WORDS),
        *((words, True, 1 + number % 3) for number, words in enumerate(WORDS)),
        (USUAL, False, 4),
        ((*USUAL, "equal_axes"), True, 4),
    ],
)
def test_no_possible_regime_is_empty(supports: tuple[str, ...], transposed: bool, d: int) -> None:
    if transposed:
        supports = (*supports, "output_padding")
    cases = list(plan(d, supports, transposed, "float32", 1, 0))
    domain = Domain(d, supports, transposed)
    assert all(domain.contains(case.problem) for case in cases)
    for kind in ("integers", "real"):
        found = Counter(name for case in cases if case.kind == kind for name in regimes_of(case.problem))
        layers = {layer.title() for layer in LAYERS if layer.transposed == transposed and possible(layer, d, supports)}
        missing = (layers | possible_sizes(supports, d)) - set(found)
        assert {name for name in missing if d < 4 or "kernel" not in name} == set()


def test_the_name_of_a_layer_says_what_is_not_plain() -> None:
    for layer in LAYERS:
        numbers = layer.title().rpartition(": ")[2].split(", ")
        usual = {"stride": 1, "padding": 0, "dilation": 1, "output padding": 0}
        said = {name for name in usual if any(number.startswith(f"{name} ") for number in numbers)}
        assert said == {name for name in usual if getattr(layer, name.replace(" ", "_")) != usual[name]}
        groups = {1: None, "depthwise": "depthwise"}.get(layer.groups, f"{layer.groups} groups")
        assert (numbers[-1] if "group" in numbers[-1] or numbers[-1] == "depthwise" else None) == groups


def test_each_relation_has_a_small_problem_that_shows_it() -> None:
    asked = [Domain(d, SUPPORTS[:7], transposed) for d in (1, 2, 3) for transposed in (False, True)]
    found = {s.name for domain in asked for p in witnesses(domain) for s in SPECIAL if s.test(p, axes_of(p))}
    assert found | {"no bias"} == {special.name for special in SPECIAL}
    assert any("no bias" in regimes_of(problem) for problem in systematic(asked[0])[0])


@pytest.mark.parametrize("size", ["batch", "groups", "input channels per group", "output channels per group"])
def test_a_bias_is_tried_at_every_size(size: str) -> None:
    for domain in (Domain(2, USUAL, False), Domain(1, USUAL, True)):
        biased = [p for p in witnesses(domain) if p.bias]
        assert set(SIZES[size]) <= {n for p in biased for n in sizes_of(p)[size]}


@pytest.mark.parametrize("transposed", [False, True])
def test_every_pair_of_small_numbers_occurs(transposed: bool) -> None:
    rows = [p for p in pairs(Domain(2, SUPPORTS[:7], transposed)) if len(set(p.kernel)) == 1]
    numbers = [
        {
            "kernel": set(p.kernel),
            "stride": set(p.stride),
            "dilation": set(p.dilation),
            "padding": {n for pair in p.pairs for n in pair},
            "batch": {p.batch},
            "c_in": {depth(p)},
            "c_out": {p.c_out // int(p.groups)},  # type: ignore[arg-type]
            "groups": {p.groups},
        }
        for p in rows
    ]
    for one, other in itertools.combinations(numbers[0], 2):
        for a, b in itertools.product(STEPS[one], STEPS[other]):
            assert any(a in row[one] and b in row[other] for row in numbers), (one, a, other, b)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_every_pair_of_sizes_and_of_a_layer_and_a_size_is_covered(d: int) -> None:
    """Sizes are grouped in bands between powers of two; pairs that exceed a problem's maximum work are left out."""
    rows = pairs(Domain(d, USUAL, False))
    assert max(map(work, rows)) <= WORK * 8
    sizes = [
        {
            "batch": p.batch,
            "c_in": depth(p),
            "c_out": p.c_out // int(p.groups),  # type: ignore[arg-type]
            "groups": p.groups,
            "columns": p.output_size[-1],
            **({"rows": p.output_size[0]} if d > 1 else {}),
        }
        for p in rows
    ]
    bands = [(1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (17, 33)]
    for one, other in itertools.combinations(sizes[0], 2):
        for (a, b), (c, e) in itertools.product(bands, bands):
            if a * c <= WORK // 9:  # any layer with so few taps may take part
                assert any(a <= row[one] <= b and c <= row[other] <= e for row in sizes), (one, a, other, c)  # type: ignore[operator]


def test_a_report_counts_the_regimes_and_what_was_not_supported() -> None:
    def forward(x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
        if max(dilation) > 1:
            raise NotImplementedError("no dilation")
        return Conv().forward(x, weight, bias, stride, padding, dilation, groups)

    report = check_conv(forward, Conv().backward, cases=1, pairs=False)
    assert report.passed
    assert report.unsupported["forward"] > 50
    assert "backward" not in report.unsupported
    assert report.regimes["dilation 8"] == 0 < report.regimes["stride 8"]
    text = str(report)
    assert "forward raised NotImplementedError on" in text
    assert "dilation 8" in text
    assert "kernel 3, padding 1" not in text


def test_what_is_never_supported_does_not_pass() -> None:
    def nothing(*_: Any) -> Any:
        raise NotImplementedError

    (failure,) = check_conv(nothing, cases=1, pairs=False).failures
    assert (failure.check, failure.part) == ("call", "y")
    assert "on every problem" in failure.message
    (failure,) = check_conv(Conv().forward, nothing, cases=1, pairs=False).failures
    assert (failure.check, failure.part) == ("call", "grad_x")
    assert "backward raised NotImplementedError on every problem" in failure.message


# --- Claimed words ---------------------------------------------------------------------------------------------------

PLAIN = Problem(1, 2, 2, (6, 6), (2, 2), (1, 1), (1, 1), ((0, 0), (0, 0)), bias=False)
CLAIMED: dict[str, dict[str, Any]] = {
    "bias": {"bias": True},
    "stride": {"stride": (1, 2)},
    "padding": {"padding": ((1, 1), (0, 0))},
    "dilation": {"dilation": (2, 1)},
    "groups": {"groups": 2},
    "asymmetric_padding": {"padding": ((0, 0), (0, 1))},
}
REFUSED: dict[str, list[dict[str, Any]]] = {
    "equal_axes": [CLAIMED["stride"], CLAIMED["padding"], CLAIMED["dilation"], {"kernel": (2, 1)}],
    "depthwise_only": [{}, {"c_in": 4, "groups": 2}],
    "stride_or_dilation": [CLAIMED["stride"] | CLAIMED["dilation"]],
}


@pytest.mark.parametrize("word", CLAIMED)
def test_a_domain_contains_a_problem_only_if_its_feature_is_claimed(word: str) -> None:
    problem = replace(PLAIN, **CLAIMED[word])
    assert Domain(2, (word,), False).contains(problem)
    others = set(CLAIMED) - {word} - ({"asymmetric_padding"} if word == "padding" else set())
    assert not Domain(2, tuple(others), False).contains(problem)


@pytest.mark.parametrize("word", REFUSED)
def test_narrower_words_leave_out_problems(word: str) -> None:
    for change in REFUSED[word]:
        problem = replace(PLAIN, **change)
        assert Domain(2, tuple(CLAIMED), False).contains(problem)
        assert not Domain(2, (*CLAIMED, word), False).contains(problem)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_random_problems_use_all_that_is_claimed(words: tuple[str, ...], transposed: bool) -> None:
    rng, domain = np.random.default_rng(0), Domain(2, words, transposed)
    problems = [mixed_problem(rng, domain, 3) for _ in range(200)]
    padded = {"padding", "asymmetric_padding"} & set(words)
    for expected, seen in (
        ("bias" in words, lambda p: p.bias),
        ("stride" in words, lambda p: max(p.stride) > 1),
        ("dilation" in words, lambda p: max(p.dilation) > 1),
        (bool({"groups", "depthwise_only"} & set(words)), lambda p: p.groups > 1),
        (bool(padded), lambda p: any(before for before, _ in p.pairs)),
        (bool(padded), lambda p: any(after for _, after in p.pairs)),
        ("asymmetric_padding" in words, lambda p: any(before > after for before, after in p.pairs)),
        ("asymmetric_padding" in words, lambda p: any(before < after for before, after in p.pairs)),
        (True, lambda p: p.batch > 3),  # a size beyond the usual ones
        ("equal_axes" not in words, lambda p: len(set(p.kernel)) > 1),
        (True, lambda p: len(set(p.size)) > 1),
    ):
        assert any(map(seen, problems)) == expected


# --- Narrow domains --------------------------------------------------------------------------------------------------


def test_a_layer_with_one_stride_and_one_padding_passes() -> None:
    def forward(x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
        ((s,), (p,), (d,)) = map(set, (stride, padding, dilation))  # raises where the axes differ
        assert d == groups == 1
        return Conv().forward(x, weight, bias, (s, s), (p, p), (1, 1), 1)

    words = ("bias", "stride", "padding")
    check_conv(forward, supports=(*words, "equal_axes"), cases=50).raise_if_failed()
    assert check_conv(forward, supports=words, cases=1, pairs=False).failures[0].check == "call"


@pytest.mark.parametrize("transposed", [False, True])
def test_depthwise_and_stride_or_dilation_are_kept_to(transposed: bool) -> None:
    right = (ConvTranspose if transposed else Conv)()

    def forward(x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
        assert groups == x.shape[1]
        assert max(stride) == 1 or max(dilation) == 1
        return right.forward(x, weight, bias, stride, padding, dilation, groups)

    words = ("bias", "stride", "padding", "dilation", "depthwise_only", "stride_or_dilation")
    report = check_conv(forward, right.backward, supports=words, transposed=transposed, cases=50, pairs=False)
    report.raise_if_failed()
    assert report.regimes["groups 33"] > 0
