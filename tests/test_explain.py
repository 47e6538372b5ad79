"""Explanations state correctly what a convolution computes: right ones, catalogued mistakes, and new mistakes."""

import dataclasses
import itertools
import json
import math
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refconv.testing import check_conv, explain_conv
from refconv.testing.checker.calls import Caller
from refconv.testing.checker.cases import make_case
from refconv.testing.checker.plan import SUPPORTS as ALL_WORDS
from refconv.testing.checker.plan import Domain, systematic
from refconv.testing.explain import explain, readout, standard_problem
from refconv.testing.explain.causes import shift_causes, size_rules
from refconv.testing.explain.fit import fit_axes
from refconv.testing.explain.names import Names, listed, those
from refconv.testing.explain.pointwise import Result, function_of_right
from refconv.testing.explain.problems import another
from refconv.testing.explain.session import Second
from refconv.testing.explain.table import ROLES, Asked, line_triples, row_set
from refconv.testing.explain.words import axes_sentences, multiplied
from refconv.testing.mutants import CATALOGUE, Conv, ConvTranspose
from refconv.testing.oracles.problems import Problem
from refconv.testing.oracles.trilinear import exact_results
from tests.correct_convolutions import CORRECT
from tests.helpers import long

sys.path.insert(0, str(Path(__file__).parent.parent / "docs"))
import make_explanations

sys.path.pop(0)

SUPPORTS = ("bias", "stride", "padding", "dilation", "groups")
STRIDE, DILATION, PADDING = (2, 8), (3, 6), (4, 1)
T, L = 6, 15  # taps and output positions of the standard problem of two axes


def forward_of(function, **options):
    return explain_conv(function, **{"time_limit": 600.0} | options).parts["forward"]


def backward_of(part, change, **options):
    """Explain one gradient of the right one after a change."""

    class Changed(Conv):
        pass

    setattr(Changed, part, change)
    wrong = Changed()
    explanation = explain_conv(wrong.forward, wrong.backward, **options)
    others = [p for name, p in explanation.parts.items() if name != part]
    assert all(p.is_right for p in others), explanation.text
    return explanation.parts[part]


# --- Right ones ------------------------------------------------------------------------------------------------------


@pytest.mark.thinned(7)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("more", [(), ("asymmetric_padding", "output_padding"), ("equal_axes", "stride_or_dilation")])
def test_right_convolutions_are_right(d, transposed, more):
    right = (ConvTranspose if transposed else Conv)()
    words = tuple(w for w in more if transposed or w != "output_padding")
    problem = standard_problem(d, (*SUPPORTS, *words), transposed)
    explanation = explain_conv(
        right.forward, right.backward, spatial_dims=d, transposed=transposed, supports=(*SUPPORTS, *words)
    )
    assert explanation.is_linear
    assert explanation.is_convolution, explanation.text
    for part in explanation.parts.values():
        assert part.is_right, part.text
        assert (part.factor, part.samples, part.missing, part.extra) == (1, "right", 0, 0)
    for name in ("forward", "grad_x", "grad_weight"):
        part = explanation.parts[name]
        assert part.stride == problem.stride
        assert part.dilation == tuple(
            dil if k > 1 else None for dil, k in zip(problem.dilation, problem.kernel, strict=True)
        )
        assert part.padding == tuple(before for before, _ in problem.pairs)
        assert not any(part.flipped)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param(name, dtype, marks=() if name in ("im2col", "channels last") else pytest.mark.long)
        for name, dtype in zip(CORRECT, itertools.cycle(["float32", "float16", "complex64", "int32"]), strict=False)
    ],
)
def test_other_right_convolutions_in_their_dtypes(name, dtype):
    pair = CORRECT[name]
    if dtype not in pair.dtypes:
        dtype = pair.dtypes[-1]
    explanation = explain_conv(pair.forward, pair.backward, dtype=dtype, time_limit=600.0)  # some are slow
    assert all(part.is_right for part in explanation.parts.values()), explanation.text


@pytest.mark.thinned(8)
@pytest.mark.parametrize("dtype", ["float64", "complex128", "int8", "uint8", "int16", "uint32", "int64"])
def test_whole_numbers_in_every_dtype(dtype):
    right, wrong = Conv(), ignores_stride
    explanation = explain_conv(right.forward, right.backward, dtype=dtype)
    assert all(part.is_right for part in explanation.parts.values()), explanation.text
    assert forward_of(wrong, dtype=dtype).stride == (1, 1)


@pytest.mark.parametrize("supports", [(), ("stride",), ("padding", "dilation"), ("bias", "groups", "depthwise_only")])
def test_unclaimed_features_are_not_used(supports):
    seen = []

    def forward(x, weight, bias, stride, padding, dilation, groups):
        seen.append((bias is None, set(stride), set(padding), set(dilation), groups))
        return Conv().forward(x, weight, bias, stride, padding, dilation, groups)

    assert forward_of(forward, supports=supports).is_right
    no_bias, stride, padding, dilation, groups = seen[0]
    assert no_bias == ("bias" not in supports)
    assert (stride != {1}) == ("stride" in supports)
    assert (padding != {0}) == ("padding" in supports)
    assert (dilation != {1}) == ("dilation" in supports)
    assert groups == (4 if "depthwise_only" in supports else 2 if "groups" in supports else 1)


@pytest.mark.parametrize("transposed", [False, True])
def test_standard_problems_use_only_what_is_claimed(transposed):
    words = [word for word in ALL_WORDS if transposed or word != "output_padding"]
    for d, count in itertools.product((1, 2, 3), range(len(words) + 1)):
        for claimed in itertools.combinations([word for word in words if d == 1 or word != "causal"], count):
            assert Domain(d, claimed, transposed).contains(standard_problem(d, claimed, transposed)), (d, claimed)


def test_standard_problems_tell_mistakes_apart_by_size():
    for transposed, part in ((False, "forward"), (True, "forward"), (False, "grad_x")):
        problem = standard_problem(2, SUPPORTS, transposed)
        sizes = [tuple(size) for _, size in size_rules(problem, part)][:7]
        assert len(set(sizes)) == len(sizes)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_rule_for_sizes_is_true_of_a_convolution_with_those_numbers(d):
    p = standard_problem(d, (*SUPPORTS, "asymmetric_padding"))
    changes = {
        "what stride 1 gives": {"stride": (1,) * d},
        "what dilation 1 gives": {"dilation": (1,) * d},
        "what stride and dilation exchanged give": {"stride": p.dilation, "dilation": p.stride},
        "what no padding gives": {"padding": ((0, 0),) * d},
        "what the padding before alone gives": {"padding": tuple((before, 0) for before, _ in p.pairs)},
        "what the padding k // 2 gives": {"padding": tuple((k // 2, k // 2) for k in p.kernel)},
    }
    for name, numbers in {"stride": p.stride, "padding": p.pairs, "dilation": p.dilation}.items() if d > 1 else ():
        changes[f"what the {name}s in reverse order give"] = {name: numbers[::-1]}
        changes[f"what the {name} of axis 0 on all axes gives"] = {name: numbers[:1] * d}
    rules = dict(size_rules(p, "forward"))
    assert {name: rules[name] for name in changes} == {
        name: dataclasses.replace(p, **change).output_size for name, change in changes.items()
    }
    if d > 1:
        assert rules["that of axis 0 on all axes"] == p.output_size[:1] * d
        assert rules["that of the last axis on all axes"] == p.output_size[-1:] * d


def test_only_a_list_that_is_cut_ends_in_an_ellipsis():
    assert [listed(range(n), 3) for n in (2, 3, 4)] == ["0, 1", "0, 1, 2", "0, 1, 2, …"]


# --- New mistakes in the forward pass --------------------------------------------------------------------------------


def built(
    *,
    read=lambda a, o, t, n, asked: asked(o, t),
    channel=lambda k, c, cols, rows, groups: k // rows * cols + c,
    row=lambda k, rows: k,
    factor=lambda o, t, k: 1,
    border=lambda i, n: None,
    outputs=None,
    scale=lambda w: 1,
):
    """Return a convolution made of exchangeable pieces: the element and channel that are read, and the weight row."""

    def forward(x, weight, bias, stride, padding, dilation, groups):
        sizes = [
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
        ]
        sizes = sizes if outputs is None else outputs(sizes)
        y = np.zeros((len(x), len(weight), *sizes), x.dtype)
        rows, cols = len(weight) // groups, weight.shape[1]
        triples = [(k, c, channel(k, c, cols, rows, groups)) for k, c in np.ndindex(len(weight), cols)]
        ks, cs, sources = (list(column) for column in zip(*(t for t in triples if t[2] is not None), strict=True))
        for o in np.ndindex(*sizes):
            for t in np.ndindex(*weight.shape[2:]):
                place = []
                for a, n in enumerate(x.shape[2:]):

                    def asked(oa, ta, a=a):
                        return stride[a] * oa + dilation[a] * ta - padding[a]

                    asked.stride, asked.taps, asked.padding = stride, weight.shape[2 + a], padding
                    asked.positions, asked.dilation = sizes[a], dilation
                    i = read(a, o[a], t[a], n, asked)
                    place.append(i if i is None or 0 <= i < n else border(i, n))
                if None in place:
                    continue
                values = x[(slice(None), sources, *place)] * weight[([row(k, rows) for k in ks], cs, *t)]
                values *= np.array([factor(o, t, k) for k in ks], x.dtype)
                np.add.at(y, (slice(None), ks, *o), values)
        y *= np.asarray(scale(weight), y.dtype)
        return y if bias is None else y + bias.reshape(-1, *[1] * len(sizes))

    return forward


ignores_stride = built(read=lambda a, o, t, n, asked: asked(0, t) + o)

CHANGED = {
    "stride one more along axis 0": (
        {"read": lambda a, o, t, n, asked: asked(o, t) + o * (a == 0)},
        {"stride": (3, 8), "dilation": DILATION, "padding": PADDING, "is_convolution": True},
        "the stride is one more than asked",
    ),
    "dilation doubled": (
        {"read": lambda a, o, t, n, asked: 2 * asked(o, t) - asked(o, 0)},
        {"dilation": (6, 12), "stride": STRIDE},
        "the dilation is doubled",
    ),
    "half a stride late, or one element, along axis 0": (
        {"read": lambda a, o, t, n, asked: asked(o, t) + (a == 0)},
        {"padding": (3, 1), "is_convolution": True},
        "Along axis 0 your output reads x[2·o + 3·t − 3]; it should be x[2·o + 3·t − 4]: it starts one element late.",
    ),
    "one element early": (
        {"read": lambda a, o, t, n, asked: asked(o, t) - 1},
        {"padding": (5, 2), "stride": STRIDE},
        "it starts one element early",
    ),
    "one element early where the kernel's side is even": (
        {"read": lambda a, o, t, n, asked: asked(o, t) - (a == 1)},
        {"padding": (4, 2)},
        "Along axis 1 your output reads x[8·o + 6·t − 2]; it should be x[8·o + 6·t − 1]: it starts one element early.",
    ),
    "the padding of axis 0 on all axes": (
        {"read": lambda a, o, t, n, asked: asked(o, t) + asked.padding[a] - asked.padding[0]},
        {"padding": (4, 4)},
        "the padding is that of axis 0.",
    ),
    "half a kernel as the padding of axis 0, which is also the padding of axis 1": (
        {"read": lambda a, o, t, n, asked: asked(o, t) + 3 * (a == 0)},
        {"padding": (1, 1)},
        "it should be x[2·o + 3·t − 4]: it starts 3 elements late.",
    ),
    "no cause that both axes share": (
        {"read": lambda a, o, t, n, asked: asked(o, t) + (3 if a == 0 else -1)},
        {"padding": (1, 2)},
        "it starts 3 elements late. Along axis 1 your output reads x[8·o + 6·t − 2]; it should be x[8·o + 6·t − 1]: "
        "it starts one element early.",
    ),
    "outputs rotated along axis 0": (
        {"read": lambda a, o, t, n, asked: asked(o if a else (o - 2) % asked.positions, t)},
        {},
        "Along axis 0, y[o] is what y[o − 2] should be, and y[0] is what y[3] should be: y is rotated.",
    ),
    "x rotated along axis 0": (
        {"read": lambda a, o, t, n, asked: (asked(o, t) - 1) % n if a == 0 and 0 <= asked(o, t) < n else asked(o, t)},
        {},
        "Along axis 0, x[i] is used as x[i + 1] should be, and x[7] is used as x[0] should be: x is rotated.",
    ),
    "two outputs exchanged along axis 0": (
        {"read": lambda a, o, t, n, asked: asked(o if a or o < 3 else 7 - o, t)},
        {},
        "your output reads x[3·t + a(o) − 4] with a(o) = 0, 2, 4, 8, 6, where 0, 2, 4, 6, 8 is right.",
    ),
    "the first output is that next to it": (
        {"read": lambda a, o, t, n, asked: asked(1 if a == o == 0 else o, t)},
        {},
        "your output reads x[3·t + a(o) − 4] with a(o) = 2, 2, 4, 6, 8, where 0, 2, 4, 6, 8 is right.",
    ),
    "outputs in reverse order along axis 1": (
        {"read": lambda a, o, t, n, asked: asked(2 - o, t) if a else asked(o, t)},
        {"stride": (2, -8), "padding": PADDING},
        "positions are in reverse order",
    ),
    "kernel flipped along axis 0": (
        {"read": lambda a, o, t, n, asked: asked(o, asked.taps - 1 - t) if a == 0 else asked(o, t)},
        {"flipped": (True, False), "dilation": DILATION, "padding": PADDING, "is_convolution": True},
        "the kernel is flipped",
    ),
    "flipped and stride ignored along axis 1": (
        {"read": lambda a, o, t, n, asked: asked(0, asked.taps - 1 - t) + o if a else asked(o, t)},
        {"flipped": (False, True), "stride": (2, 1), "padding": PADDING},
        "the kernel is flipped; the stride is ignored",
    ),
    "all taps read one element along axis 1": (
        {"read": lambda a, o, t, n, asked: asked(o, 0) if a else asked(o, t)},
        {"dilation": (3, 0)},
        "the dilation is 0",
    ),
    "every output reads the first window": (
        {"read": lambda a, o, t, n, asked: asked(0, t)},
        {"stride": (0, 0)},
        "the stride is 0",
    ),
    "padding multiplied by the dilation": (
        {"read": lambda a, o, t, n, asked: asked(o, t) + asked.padding[a] * (1 - asked.dilation[a])},
        {"stride": STRIDE},
        "it should be x[2·o + 3·t − 4]: the padding is multiplied by the dilation. Along axis 1 your output reads "
        "x[8·o + 6·t − 6]; it should be x[8·o + 6·t − 1]: the padding is multiplied by the dilation.",
    ),
    "windows that reach beyond x skipped": (
        {"read": lambda a, o, t, n, asked: asked(o, t) if asked(o, 0) >= 0 and asked(o, asked.taps - 1) < n else None},
        {"extra": 0},
        "Windows that reach beyond x are skipped: nothing is used at o = 0, 1, 3, 4 along axis 0 and o = 0 along axis "
        "1. Only elements beyond x should count as zeros.",
    ),
    "windows skipped that happen to be those that reach beyond x": (
        {"read": lambda a, o, t, n, asked: asked(o, t) if a or o == 2 else None},
        {"extra": 0},
        "Along axis 0, nothing is used at o = 0, 1, 3, 4.",
    ),
    "windows that reach beyond the end of x skipped": (
        {"read": lambda a, o, t, n, asked: asked(o, t) if asked(o, asked.taps - 1) < n else None},
        {"extra": 0},
        "Windows that reach beyond the end of x are skipped: nothing is used at o = 3, 4 along axis 0. Only elements "
        "beyond x should count as zeros.",
    ),
    "padding rounded down to a multiple of the stride, as axis 0 has": (
        {"read": lambda a, o, t, n, asked: asked(o, t) + asked.padding[a] % asked.stride[a]},
        {"padding": (4, 0)},
        "Along axis 1 your output reads x[8·o + 6·t]; it should be x[8·o + 6·t − 1]: the padding is rounded down to a "
        "multiple of the stride.",
    ),
    "padding times the stride, where most windows then miss x": (
        {"read": lambda a, o, t, n, asked: asked(o, t) + asked.padding[a] * (1 - asked.stride[a])},
        {"padding": (8, 8)},
        "x[8·o + 6·t − 8]; it should be x[8·o + 6·t − 1]: the padding is multiplied by the stride.",
    ),
    "taps times the stride too, which only axis 0 shows": (
        {"read": lambda a, o, t, n, asked: asked(o, 0) + (asked(0, t) - asked(0, 0)) * asked.stride[a]},
        {},
        "Along axis 1 your output reads x[8·o + 48·t − 1]; it should be x[8·o + 6·t − 1]: the dilation is multiplied "
        "by the stride.",
    ),
    "positions that start again": (
        {"read": lambda a, o, t, n, asked: asked(o % 3 if a == 0 else o, t)},
        {},
        "Along axis 0 your output reads x[2·(o mod 3) + 3·t − 4]; it should be x[2·o + 3·t − 4]: o starts again at 0 "
        "after every 3.",
    ),
    "a tile one element late": (
        {"read": lambda a, o, t, n, asked: asked(o, t) + (a == 0 and o > 2)},
        {},
        "Along axis 0, from o = 3 on, your output reads x[2·o + 3·t − 3]; it should be x[2·o + 3·t − 4] there too.",
    ),
    "one gap between taps too wide": (
        {"read": lambda a, o, t, n, asked: asked(o, t) + (a == 0 and t == 1)},
        {},
        "Along axis 0 your output reads x[2·o + a(t) − 4] with a(t) = 0, 4, 6, where 0, 3, 6 is right.",
    ),
    "stride halved": (
        {"read": lambda a, o, t, n, asked: asked(0, t) + o * (asked.stride[a] // 2)},
        {"stride": (1, 4)},
        "x[o + 3·t − 4]; it should be x[2·o + 3·t − 4]: the stride is halved.",
    ),
    "padding halved": (
        {"read": lambda a, o, t, n, asked: asked(o, t) + asked.padding[a] - asked.padding[a] // 2},
        {"padding": (2, 0)},
        "x[8·o + 6·t]; it should be x[8·o + 6·t − 1]: the padding is halved.",
    ),
    "one window late along axis 1": (
        {"read": lambda a, o, t, n, asked: asked(o + a, t)},
        {},
        "Along axis 1 your output reads x[8·o + 6·t + 7]; it should be x[8·o + 6·t − 1]: it starts one stride late.",
    ),
    "x reversed": (
        {"read": lambda a, o, t, n, asked: n - 1 - asked(o, t)},
        {"flipped": (True, True)},
        "Along axis 0 your output reads x[−2·o − 3·t + 11]; it should be x[2·o + 3·t − 4]: x is reversed.",
    ),
    "strides exchanged": (
        {"read": lambda a, o, t, n, asked: asked(0, t) + o * asked.stride[1 - a]},
        {"stride": (8, 2)},
        "the stride is that of axis 1",
    ),
    "circular padding": (
        {"border": lambda i, n: i % n},
        {"border": (("wraps around to the other end",) * 2, ("wraps around to the other end", "zeros"))},
        "wraps around to the other end",
    ),
    "reflected padding": (
        {"border": lambda i, n: n - 1 - abs(n - 1 - abs(i))},
        {"border": (("reflects, without the edge element",) * 2, ("reflects, without the edge element", "zeros"))},
        "reflects, without the edge element",
    ),
    "symmetric padding": (
        {"border": lambda i, n: -1 - i if i < 0 else 2 * n - 1 - i},
        {"border": (("reflects, edge element included",) * 2, ("reflects, edge element included", "zeros"))},
        "edge element included",
    ),
    "negative indices wrap around, others do not": (
        {"border": lambda i, n: i % n if i < 0 else None},
        {"border": (("wraps around to the other end", "zeros"),) * 2},
        "before its first element, x wraps around",
    ),
    "last tap missing along axis 0": (
        {"read": lambda a, o, t, n, asked: None if a == 0 and t == 2 else asked(o, t)},
        {"stride": STRIDE, "padding": PADDING},
        "Along axis 0, tap t = 2 is never used.",
    ),
    "last row of outputs not computed": (
        {"read": lambda a, o, t, n, asked: None if a == 0 and o == 4 else asked(o, t)},
        {"stride": STRIDE, "extra": 0},
        "Along axis 0, nothing is used at o = 4.",
    ),
    "last column of x never read": (
        {"read": lambda a, o, t, n, asked: None if a and asked(o, t) == n - 2 else asked(o, t)},
        {"dilation": DILATION, "extra": 0},
        "Along axis 1, element 21 of x is never used.",
    ),
    "one tap missing": (
        {"factor": lambda o, t, k: t != (1, 1)},
        {"extra": 0},
        "missing, those with axis 0, t = 1 and axis 1, t = 1",
    ),
    "middle tap doubled along axis 0": (
        {"factor": lambda o, t, k: 1 + (t[0] == 1)},
        {"factor": None, "missing": 0, "extra": 0},
        "Products of tap 1 along axis 0 are added twice.",
    ),
    "first row of outputs counted twice": (
        {"factor": lambda o, t, k: 1 + (o[0] == 0)},
        {"factor": None},
        "Products of position 0 along axis 0 are added twice.",
    ),
    "one output doubled": (
        {"factor": lambda o, t, k: 1 + (o == (2, 1) and k == 3)},
        {"factor": None, "missing": 0},
        "Products with output channel = 3 and axis 0, o = 2 and axis 1, o = 1 are multiplied by 2; the others by 1.",
    ),
    "factors without order": (
        {"factor": lambda o, t, k: 1 + (o[0] + t[0] + k) % 4},
        {"factor": None, "missing": 0},
        "products are multiplied by ",
    ),
    "output channel 1 negative": (
        {"factor": lambda o, t, k: -1 if k == 1 else 1},
        {"factor": None, "missing": 0},
        "Products of output channel 1 are multiplied by −1.",
    ),
    "divided by the number of taps": (
        {"scale": lambda w: 1 / w[0, 0].size},
        {"factor": pytest.approx(1 / T), "stride": STRIDE, "is_convolution": True},
        "1/6, which is 1/T",
    ),
    "divided by taps and channels": (
        {"scale": lambda w: 1 / w[0].size},
        {"factor": pytest.approx(1 / 24)},
        "1/(T·C/G)",
    ),
    "negative": ({"factor": lambda o, t, k: -1}, {"factor": -1, "is_convolution": True}, "Its sign is wrong"),
    "twice": ({"factor": lambda o, t, k: 2}, {"factor": 2}, "Every product is added twice."),
    "first input channel of each group only": (
        {"channel": lambda k, c, cols, rows, groups: k // rows * cols if c == 0 else None},
        {"channel_order": "first column", "channels": {0: [0], 1: [0], 2: [4], 3: [4]}},
        "Only the first input channel of each group",
    ),
    "next group": (
        {"channel": lambda k, c, cols, rows, groups: (k // rows + 1) % groups * cols + c},
        {
            "channel_order": "next group",
            "channels": {q: [4, 5, 6, 7] if q < 2 else [0, 1, 2, 3] for q in range(4)},
        },
        None,
    ),
    "input channels of a group reversed": (
        {"channel": lambda k, c, cols, rows, groups: k // rows * cols + cols - 1 - c},
        {"channel_order": "columns reversed", "stride": STRIDE, "is_convolution": True},
        "in reverse order",
    ),
    "weight rows reversed": ({"row": lambda k, rows: -1 - k}, {"channel_order": "rows reversed"}, "weight rows"),
    "first weight row for all": ({"row": lambda k, rows: 0}, {"channel_order": "first row"}, "Weight row 0 is used"),
    "one output channel with another's weights": (
        {"row": lambda k, rows: 2 if k == 3 else k},
        {"channel_order": None, "channels": {q: [0, 1, 2, 3] if q < 2 else [4, 5, 6, 7] for q in range(4)}},
        "Output channel 3 uses weight row 2; it should be weight row 3.",
    ),
    "input channels rotated by one": (
        {"channel": lambda k, c, cols, rows, groups: (k // rows * cols + c + 1) % 8},
        {"channel_order": None, "channels": {q: [1, 2, 3, 4] if q < 2 else [0, 5, 6, 7] for q in range(4)}},
        "x[:,j,:,:] is used as x[:,(j + 7) mod 8,:,:] should be.",
    ),
}


@pytest.mark.thinned(16)
@pytest.mark.parametrize("name", CHANGED)
def test_new_mistakes(name):
    changes, facts, said = CHANGED[name]
    part = forward_of(built(**changes), time_limit=60.0)
    assert not part.is_right
    assert part.is_linear
    for field, value in facts.items():
        assert getattr(part, field) == value, (field, part)
    assert said is None or said in part.text, part.text


def right_y(x, weight, bias, *integers):
    return Conv().forward(x, weight, bias, *integers)


def wrapper(change):
    """Return the right output after a change by ``change(y, call)``, or the output for changed arguments."""

    def forward(x, weight, bias, stride, padding, dilation, groups):
        return change(x, weight, bias, (stride, padding, dilation, groups))

    return forward


def cumulative(y, groups):
    return np.cumsum(y.reshape(len(y), groups, -1, *y.shape[2:]), 2).reshape(y.shape)


def flat_rows(x, weight, bias, integers):
    """Read with a flat index, so that windows continue in the next row; the padding of the last axis is missing."""
    stride, padding, dilation, groups = integers
    y = right_y(x, weight, bias, *integers)
    rows = x.shape[2] + 2 * padding[0] + 4
    padded = np.zeros((*x.shape[:2], rows, x.shape[3]), x.dtype)
    padded[:, :, padding[0] : padding[0] + x.shape[2]] = x
    flat, out = padded.reshape(*x.shape[:2], -1), np.zeros_like(y)
    each, cols = len(weight) // groups, weight.shape[1]
    for o in np.ndindex(*y.shape[2:]):
        for t in np.ndindex(*weight.shape[2:]):
            at = (o[0] * stride[0] + t[0] * dilation[0]) * x.shape[3] + o[1] * stride[1] + t[1] * dilation[1] + 3
            for k in range(len(weight)):
                first = k // each * cols
                out[(slice(None), k, *o)] += flat[:, first : first + cols, at] @ weight[(k, slice(None), *t)]
    return out + bias.reshape(-1, 1, 1)


def inside(x, w, integers):
    """The number of taps of every position that are inside x."""
    return right_y(np.ones((1, 1, *x.shape[2:])), np.ones((1, 1, *w.shape[2:])), None, *integers[:3], 1)


def offsets(x, w, groups):
    """Input channels of all groups, if a group starts at its number times the output channels of a group."""
    rows, cols = len(w) // groups, w.shape[1]
    return [(g * rows + c) % x.shape[1] for g in range(groups) for c in range(cols)]


WRAPPED = {
    "the accumulator is kept between output channels": (
        lambda x, w, b, i: np.cumsum(right_y(x, w, None, *i), 1) + b.reshape(-1, 1, 1),
        {"missing": 0, "channel_order": "earlier positions"},
        "y[k] also contains the sums of output channels 0 … k − 1: a cumulative sum over channels.",
    ),
    "the accumulator is kept between output channels of a group": (
        lambda x, w, b, i: cumulative(right_y(x, w, None, *i), i[3]) + b.reshape(-1, 1, 1),
        {"missing": 0, "channel_order": "earlier positions of the group"},
        "y[k] also contains the sums of output channels before k in its group",
    ),
    "multiplied by the number of groups": (
        lambda x, w, b, i: right_y(x, i[3] * w, b, *i),
        {"factor": 2},
        "Every product is multiplied by 2, which is G (G = 2 groups).",
    ),
    "divided by the number of taps inside x": (
        lambda x, w, b, i: right_y(x, w, None, *i) / np.maximum(inside(x, w, i), 1) + b.reshape(-1, 1, 1),
        {"factor": None},
        "The products of each position of y are divided by the number of its taps that are inside x.",
    ),
    "taps repeated, not dilated": (
        lambda x, w, b, i: right_y(
            x,
            np.repeat(np.repeat(w, i[2][0], 2), i[2][1], 3)[:, :, : 1 - i[2][0], : 1 - i[2][1]],
            b,
            *i[:2],
            (1, 1),
            i[3],
        ),
        {},
        "Along axis 1 each element of w is used at 6 places of the window, as many as the dilation: it is repeated, "
        "where zeros should be inserted.",
    ),
    "the sum of x times the sum of w": (
        lambda x, w, b, i: right_y(x, np.broadcast_to(w.sum((2, 3), keepdims=True), w.shape), b, *i),
        {},
        "Along axis 0 every tap is used with all elements of its window: the sum of w over the taps times the sum of x "
        "there is computed.",
    ),
    "a sum over positions that is never cleared": (
        lambda x, w, b, i: np.cumsum(right_y(x, w, None, *i), axis=2) + b.reshape(-1, 1, 1),
        {},
        "Along axis 0 y[o] also contains the sums of the positions before it: a cumulative sum.",
    ),
    "weight read as (k1, k2, C/G, K)": (
        lambda x, w, b, i: right_y(x, w.reshape(*w.shape[2:], *w.shape[1::-1]).transpose(3, 2, 0, 1), b, *i),
        {},
        "w is as if reshaped from (K, C/G, k1, k2) to (k1, k2, C/G, K); reshaping moves no element",
    ),
    "rows of the next group": (
        lambda x, w, b, i: right_y(x, np.roll(w, -len(w) // i[3], 0), b, *i),
        {"channel_order": "next weights"},
        "Every group uses the weight rows of the next group.",
    ),
    "groups that start as many inputs late as the group before has outputs": (
        lambda x, w, b, i: right_y(np.take(x, offsets(x, w, i[3]), 1), w, b, *i),
        {"channel_order": "offset of positions"},
        "The input channels of group g start at g·2; they should start at g·4.",
    ),
    "bias of the group's number": (
        lambda x, w, b, i: right_y(x, w, b[np.arange(len(b)) // (len(b) // i[3])], *i),
        {"missing": 0},
        "Channel k gets the bias with the number of its group, bias[k // 2].",
    ),
    "divided by the square root of the number of products": (
        lambda x, w, b, i: right_y(x, w / np.sqrt(w[0].size), b, *i),
        {},
        "which is 1/√(T·C/G) (T·C/G = 24 taps and channels).",
    ),
    "two input channels exchanged": (
        lambda x, w, b, i: right_y(x[:, [1, 0, *range(2, x.shape[1])]], w, b, *i),
        {"channel_order": None},
        "w[0,0,:,:] and w[0,1,:,:] are exchanged; w[1,0,:,:] and w[1,1,:,:] are exchanged.",
    ),
    "the last sample is that before it": (
        lambda x, w, b, i: right_y(x[[0, 1, 1]], w, b, *i),
        {"samples": None},
        "Samples are mixed: sample 2 of y reads sample 1 of x; the others are right.",
    ),
    "one row of outputs more, with the bias": (
        lambda x, w, b, i: np.pad(right_y(x, w, None, *i), [(0, 0), (0, 0), (0, 1), (0, 0)]) + b.reshape(-1, 1, 1),
        {"missing": 0},
        "The elements that should not exist add no product. The elements that should exist are right.",
    ),
    "one window more than asked": (
        lambda x, w, b, i: right_y(np.pad(x, [(0, 0), (0, 0), (0, 2), (0, 0)], constant_values=0), w, b, *i),
        {"missing": 0},
        "The elements that should exist are right; those beyond follow the same formula.",
    ),
    "no bias in the last row and the last two columns": (
        lambda x, w, b, i: right_y(x, w, None, *i) + np.pad(np.ones((4, 1)), [(0, 1), (0, 2)]) * b.reshape(-1, 1, 1),
        None,
        "The bias is missing at 132 of 180 outputs: position 4 along axis 0 or all but position 0 along axis 1.",
    ),
    "bias everywhere but at one output": (
        lambda x, w, b, i: right_y(x, w, b, *i) - b.reshape(-1, 1, 1) * (np.arange(180).reshape(3, 4, 5, 3) == 99),
        None,
        ": sample 1, channel 2, position 3 along axis 0, position 0 along axis 1.",
    ),
    "the last output is that of another channel": (
        lambda x, w, b, i: (
            right_y(x, w, b, *i).reshape(-1)[np.where(np.arange(180) == 179, 134, np.arange(180))].reshape(3, 4, 5, 3)
        ),
        {"bias": {"factor": 1, "channels": {str(k): [k] for k in range(4)}, "is_right": True}},
        "1 of 180 elements of y is in the wrong place: y[2,3,4,2] is what y[2,0,4,2] should be.",
    ),
    "bias doubled at one output": (
        lambda x, w, b, i: right_y(x, w, b, *i) + b.reshape(-1, 1, 1) * (np.arange(180).reshape(3, 4, 5, 3) == 99),
        None,
        "The bias is multiplied by 2 at 1 of 180 outputs: sample 1, channel 2, position 3 along axis 0, position 0",
    ),
    "bias at the first 8 positions only": (
        lambda x, w, b, i: right_y(x, w, None, *i) + b.reshape(-1, 1, 1) * (np.arange(15).reshape(5, 3) < 8),
        None,
        "The bias is missing at 84 of 180 outputs: the last 7 of the 15 positions in memory order.",
    ),
    "one output without products": (
        lambda x, w, b, i: right_y(x, w, None, *i) * (np.arange(180).reshape(3, 4, 5, 3) != 99) + b.reshape(-1, 1, 1),
        {},
        "those with sample of y = 1 and output channel = 2 and axis 0, o = 3 and axis 1, o = 0; the others",
    ),
    "no bias where a window reaches beyond x": (
        lambda x, w, b, i: (
            right_y(x, w, None, *i) + b.reshape(-1, 1, 1) * np.logical_and.outer(np.arange(5) == 2, np.arange(3) > 0)
        ),
        None,
        "The bias is missing at outputs whose windows reach beyond x: 156 of 180.",
    ),
    "samples reversed": (
        lambda x, w, b, i: right_y(x, w, b, *i)[::-1].copy(),
        {"samples": "reversed"},
        "Samples are in reverse order",
    ),
    "first sample for all": (
        lambda x, w, b, i: np.repeat(right_y(x[:1], w, b, *i), len(x), axis=0),
        {"samples": "from 0"},
        "Every sample of y reads sample 0 of x.",
    ),
    "summed over the batch": (
        lambda x, w, b, i: right_y(np.repeat(x.sum(0, keepdims=True), len(x), axis=0), w, b, *i),
        {"samples": "all"},
        "Every sample of y reads every sample of x",
    ),
    "last sample not computed": (
        lambda x, w, b, i: np.concatenate([right_y(x[:-1], w, b, *i), 0 * right_y(x[-1:], w, b, *i)]),
        {"samples": "only 0, 1"},
        "Sample 2 of the batch is not used. The bias is missing at 60 of 180 outputs: sample 2.",
    ),
    "x read as (N, H, W, C)": (
        lambda x, w, b, i: right_y(x.reshape(len(x), *x.shape[2:], -1).transpose(0, 3, 1, 2), w, b, *i),
        {"layout": {"array": "x", "from": ["N", "C", "D1", "D2"], "to": ["N", "D1", "D2", "C"]}},
        "x is as if reshaped from (N, C, D1, D2) to (N, D1, D2, C)",
    ),
    "x read as (N, C, W, H)": (
        lambda x, w, b, i: right_y(x.reshape(*x.shape[:2], x.shape[3], -1).swapaxes(2, 3), w, b, *i),
        {"layout": {"array": "x", "from": ["N", "C", "D1", "D2"], "to": ["N", "C", "D2", "D1"]}},
        "(N, C, D2, D1)",
    ),
    "weight flattened in Fortran order": (
        lambda x, w, b, i: right_y(x, w.reshape(len(w), -1).reshape(w.shape, order="F"), b, *i),
        {"layout": {"array": "w", "from": ["K", "C/G", "k1", "k2"], "to": ["K", "k2", "k1", "C/G"]}},
        "w is as if reshaped",
    ),
    "taps rotated": (
        lambda x, w, b, i: right_y(x, np.roll(w, 1, 2), b, *i),
        {"samples": "right", "channel_order": "right"},
        "Along axis 0, w[t] is used as w[t + 1] should be, and w[2] is used as w[0] should be: w is rotated.",
    ),
    "output flat": (
        lambda x, w, b, i: right_y(x, w, b, *i).reshape(3, 4, 15),
        {"missing": 0, "extra": 0},
        "The output has shape (3, 4, 15); it should be (3, 4, 5, 3).",
    ),
    "output (N, W, H, K)": (
        lambda x, w, b, i: right_y(x, w, b, *i).transpose(0, 3, 2, 1),
        {"missing": 0},
        "its axes are in the order (N, D2, D1, K)",
    ),
    "one row of outputs more": (
        lambda x, w, b, i: np.pad(right_y(x, w, b, *i), [(0, 0), (0, 0), (0, 1), (0, 0)]),
        {"missing": 0},
        "The elements that should not exist add no product.",
    ),
    "rows run into one another": (flat_rows, None, "the end of a row is followed by the next row"),
    "bias of the next channel": (
        lambda x, w, b, i: right_y(x, w, np.roll(b, -1), *i),
        {"bias": {"factor": 1, "channels": {"0": [1], "1": [2], "2": [3], "3": [0]}, "is_right": False}},
        "channel 0 gets bias 1",
    ),
    "bias subtracted": (lambda x, w, b, i: right_y(x, w, -b, *i), None, "The bias is subtracted."),
    "bias twice": (lambda x, w, b, i: right_y(x, w, 2 * b, *i), None, "The bias is added twice."),
    "bias at the first row only": (
        lambda x, w, b, i: right_y(x, w, None, *i) + b.reshape(4, 1, 1) * (np.arange(5) == 0).reshape(5, 1),
        {"is_convolution": True},
        "The bias is missing at 144 of 180 outputs: the last 4 positions along axis 0.",
    ),
    "pads with 2": (
        lambda x, w, b, i: right_y(
            np.pad(x, [(0, 0), (0, 0), (4, 4), (1, 1)], constant_values=2), w, b, i[0], (0, 0), *i[2:]
        ),
        {"is_convolution": False},
        "it pads with 2",
    ),
    "adds a constant times the weight": (
        lambda x, w, b, i: right_y(x + 1, w, b, *i),
        {"is_convolution": False},
        "With x all zero",
    ),
    "reads two neighbours": (
        lambda x, w, b, i: right_y(x + np.pad(x, [(0, 0)] * 3 + [(1, 0)])[..., :-1], w, b, *i),
        {"is_convolution": False},
        "further products are used",
    ),
    "conjugates x": (lambda x, w, b, i: right_y(x.conj(), w, b, *i), {"dtype": "complex128"}, "It conjugates x."),
    "real part only": (
        lambda x, w, b, i: right_y(x.real.astype(x.dtype), w, b, *i),
        {"dtype": "complex128"},
        "Multiplying x by i does not",
    ),
}


@pytest.mark.thinned(6)
@pytest.mark.parametrize("name", WRAPPED)
def test_new_mistakes_around_a_right_convolution(name):
    change, facts, said = WRAPPED[name]
    facts = dict(facts or {})
    part = forward_of(wrapper(change), dtype=facts.pop("dtype", "float64"), time_limit=60.0)
    assert not part.is_right
    assert part.is_linear
    for field, value in facts.items():
        assert getattr(part, field) == value, (field, part)
    assert said in part.text, part.text


# --- New mistakes in the gradients -----------------------------------------------------------------------------------


class Uncleared(Conv):
    def grad_x(self, g, weight, shape, p):
        read = Conv().grad_x(np.ones_like(g), np.ones_like(weight), shape, p)
        return np.where(read == 0, 1, Conv().grad_x(g, weight, shape, p))


def averaged_overlaps(self, g, weight, shape, p):
    ones = Conv.grad_x(Conv(), np.ones_like(g), np.ones_like(weight), shape, p)
    return Conv.grad_x(self, g, weight, shape, p) / np.maximum(ones, 1) * (len(weight) // p.groups)


GRADIENTS = {
    "overlaps averaged": (
        "grad_x",
        averaged_overlaps,
        {"missing": 0, "extra": 0, "factor": None},
        "Products that meet in one element of grad_x are averaged instead of added.",
    ),
    "grad_x starts one element late": (
        "grad_x",
        lambda self, g, w, shape, p: np.roll(Conv.grad_x(Conv(), g, w, (*shape[:3], shape[3] + 1), p), 1, 3)[..., :-1],
        {"padding": (4, 0)},
        "g[o]·w[t] is added to grad_x[8·o + 6·t]; it should be grad_x[8·o + 6·t − 1]: it starts one element late.",
    ),
    "grad_x divided by the batch": (
        "grad_x",
        lambda self, g, w, shape, p: Conv.grad_x(Conv(), g, w, shape, p) / len(g),
        {"factor": pytest.approx(1 / 3)},
        "which is 1/N (N = 3 samples).",
    ),
    "grad_x of the first sample only": (
        "grad_x",
        lambda self, g, w, shape, p: Conv.grad_x(Conv(), g * (np.arange(3) == 0).reshape(3, 1, 1, 1), w, shape, p),
        {"samples": "only 0"},
        "Only sample 0 of the batch is used.",
    ),
    "grad_x with channels last": (
        "grad_x",
        lambda self, g, w, shape, p: np.moveaxis(Conv.grad_x(Conv(), g, w, shape, p), 1, -1),
        {"missing": 0},
        "its axes are in the order (N, D1, D2, C)",
    ),
    "grad_weight averaged over everything": (
        "grad_weight",
        lambda self, g, x, shape, p: Conv.grad_weight(Conv(), g, x, shape, p) / (g.size / g.shape[1]),
        {"factor": pytest.approx(1 / 45)},
        "1/45, which is 1/(N·L) (N·L = 45 samples and output positions)",
    ),
    "grad_weight with kernel axes exchanged": (
        "grad_weight",
        lambda self, g, x, shape, p: Conv.grad_weight(Conv(), g, x, shape, p).swapaxes(2, 3).reshape(shape),
        {"layout": {"array": "grad_weight", "from": ["K", "C/G", "k2", "k1"], "to": ["K", "C/G", "k1", "k2"]}},
        "The kernel's axes are exchanged",
    ),
    "grad_weight mixes samples": (
        "grad_weight",
        lambda self, g, x, shape, p: Conv.grad_weight(Conv(), g, x[::-1], shape, p),
        {"samples": "reversed"},
        "Samples are in reverse order",
    ),
    "grad_weight sums g over the batch first": (
        "grad_weight",
        lambda self, g, x, shape, p: Conv.grad_weight(
            Conv(), np.repeat(g.sum(0, keepdims=True), len(g), axis=0), x, shape, p
        ),
        {"samples": "all"},
        "Every sample of g is multiplied by every sample of x: it is a product of sums over the batch, where a sum of "
        "products is right.",
    ),
    "grad_weight forgets the last row of g": (
        "grad_weight",
        lambda self, g, x, shape, p: Conv.grad_weight(
            Conv(), g * (np.arange(g.shape[2]) < g.shape[2] - 1).reshape(-1, 1), x, shape, p
        ),
        {"extra": 0},
        "Along axis 0, nothing is used at o = 4.",
    ),
    "grad_bias of the last position": (
        "grad_bias",
        lambda self, g: g[:, :, -1, -1].sum(0),
        {"factor": 1, "samples": "right"},
        "It does not read 168 of 180 elements of g: all but those at position 4 along axis 0 and position 2 along "
        "axis 1.",
    ),
    "grad_bias negative": ("grad_bias", lambda self, g: -g.sum((0, 2, 3)), {"factor": -1}, "Its sign is wrong"),
    "grad_bias summed over everything": (
        "grad_bias",
        lambda self, g: np.repeat(g.sum(), 4),
        {"channels": {k: [0, 1, 2, 3] for k in range(4)}},
        "Channels are mixed: element 0 adds channels 0 to 3",
    ),
    "grad_bias along axis 1": (
        "grad_bias",
        lambda self, g: g.sum((0, 1, 2)),
        {"shape": (3,)},
        "It keeps axis 1 and sums the channels",
    ),
    "grad_bias of ones": ("grad_bias", lambda self, g: np.full(4, 30.0), {"is_linear": False}, "not zero where g is"),
    "grad_bias of squares": (
        "grad_bias",
        lambda self, g: (g * g).sum((0, 2, 3)),
        {"is_linear": False},
        "grad_bias is right, but computed from g² instead of g.",
    ),
}


@pytest.mark.thinned(10)
@pytest.mark.parametrize("name", GRADIENTS)
def test_new_mistakes_in_the_gradients(name):
    part, change, facts, said = GRADIENTS[name]
    found = backward_of(part, change)
    assert not found.is_right
    for field, value in facts.items():
        assert getattr(found, field) == value, (field, found)
    assert said in found.text, found.text


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("part", "operand"), [("grad_x", "w"), ("grad_weight", "x")])
def test_a_gradient_that_does_not_conjugate_says_so(part, operand, transposed):
    right = (ConvTranspose if transposed else Conv)()

    def backward(g, x, w, *integers):
        return right.backward(g, x.conj() if operand == "x" else x, w.conj() if operand == "w" else w, *integers)

    parts = explain_conv(right.forward, backward, transposed=transposed, dtype="complex128").parts
    assert parts[part].text == f"It does not conjugate {operand}."
    assert [name for name in parts if not parts[name].is_right] == [part]


def test_a_transposed_bias_and_its_gradient_name_outputs_without_a_tap_and_output_padding():
    class Wrong(ConvTranspose):
        def forward(self, x, weight, bias, *integers, output_padding):
            y = super().forward(x, weight, None, *integers, output_padding=output_padding)
            one = super().forward(x**0, weight**0, None, *integers, output_padding=output_padding)
            return y + bias.reshape(-1, 1, 1) * (one > 0)

        def grad_bias(self, g):
            return g[:, :, :-1, :-3].sum((0, 2, 3))

    wrong, supports = Wrong(), (*SUPPORTS, "output_padding")
    parts = explain_conv(wrong.forward, wrong.backward, transposed=True, supports=supports).parts
    assert parts["forward"].text == "The bias is added only at outputs that a tap reaches: 960 of 4608."
    assert parts["grad_bias"].text == (
        "It does not read 1080 of 4608 elements of g: position 7 along axis 0 or the last 3 positions along axis 1, "
        "which output_padding adds."
    )


def test_a_transposed_output_shifted_by_output_padding():
    def forward(x, weight, bias, *integers, output_padding):
        y = ConvTranspose().forward(x, weight, None, *integers, output_padding=output_padding)
        r = output_padding
        y = np.roll(y, r, (2, 3))
        y[:, :, : r[0]] = 0
        y[:, :, :, : r[1]] = 0
        return y + bias.reshape(-1, 1, 1)

    part = forward_of(forward, transposed=True, supports=(*SUPPORTS, "output_padding"))
    assert part.text.count("it is shifted by output_padding, so that the extra elements come first") == 2


def shifted(late, transposed=False, supports=SUPPORTS):
    """Return the sentences on windows that start late(asked, axis) late, on the standard problem and another."""
    first = Asked(standard_problem(2, supports, transposed))
    both = first, Asked(another(first.problem))
    lates = [[late(asked, axis) for axis in range(2)] for asked in both]
    numbers = [(s, d, -i - late) for (s, d, i), late in zip(both[1].lines, lates[1], strict=True)]
    sizes = [tuple(first.shapes[role][2 + axis] for role in ROLES) for axis in range(2)]
    reads = [
        row_set(line_triples((s, d, i + late), *size))
        for (s, d, i), late, size in zip(first.lines, lates[0], sizes, strict=True)
    ]
    axes = fit_axes(reads, first.lines, sizes)
    second = Second(both[1], {"numbers": numbers})
    return " ".join(axes_sentences(axes, first, Names("forward", transposed), lambda: second))


def causes(asked, axis):
    """Return, for every cause, the number of elements by which the first window is late."""
    stride, dilation, start = asked.lines[axis]
    found = {}
    for late in range(-30, 30):
        for name, clause in shift_causes((stride, dilation, -start - late), axis, asked).items():
            if not name.startswith("by"):
                found[name] = late, clause
    return found


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("more", [(), ("asymmetric_padding",), ("output_padding",)])
def test_a_shift_has_its_own_cause_or_none(transposed, more):
    named = []
    supports = (*SUPPORTS, *(word for word in more if transposed or word != "output_padding"))
    clauses = causes(Asked(standard_problem(2, supports, transposed)), 0)
    for name, (_, clause) in clauses.items():
        text = shifted(lambda asked, axis, name=name: causes(asked, axis).get(name, (0, ""))[0], transposed, supports)
        others = [other for _, other in clauses.values() if other != clause and f": {other}." in text]
        assert not others, (name, text)
        if clause in text:
            named.append(name)
    assert {"ignored", "all", "sign", "axis", "half kernel", "kernel", "span", "full", "centre", "late"} <= {*named}


def test_a_cause_that_only_the_numbers_of_one_problem_suggest_is_not_named():
    for late in range(-4, 5):
        for axes in ((0,), (1,), (0, 1)):
            text = shifted(lambda asked, axis, late=late, axes=axes: late * (axis in axes))
            count = len(re.findall(r": it starts (?:one|\d) elements? (?:late|early)\.", text))
            assert count == (len(axes) if late else 0), text
    problem = standard_problem(2, SUPPORTS)
    second = Second(Asked(another(problem)), {})
    for number in range(2, 400):
        for factor in (number, 1 / number, -number, -1 / number):
            text = multiplied(factor, problem, second, factor)
            assert "which is" not in text
            assert (text == "added twice") == (factor == 2)


def test_gradients_must_not_depend_on_the_third_operand():
    class Masked(Conv):
        def grads(self, g, x, weight, p):
            return (
                self.grad_x(g, weight, x.shape, p) * (x > 0),
                self.grad_weight(g, x, weight.shape, p),
                self.grad_bias(g),
            )

    wrong = Masked()
    part = explain_conv(wrong.forward, wrong.backward).parts["grad_x"]
    assert part.text == "grad_x changes with x: it is zero where x is not positive, and right elsewhere."
    assert part.is_linear is False


def test_a_gradient_with_a_multiple_of_the_weight():
    class Decayed(Conv):
        def grads(self, g, x, weight, p):
            return (
                self.grad_x(g, weight, x.shape, p),
                (self.scale * self.grad_weight(g, x, weight.shape, p) + 0.01 * weight).astype(g.dtype),
                self.grad_bias(g),
            )

    for scale, rest in ((1, "the rest is right"), (2, "the rest is wrong too")):
        wrong = Decayed()
        wrong.scale = scale
        for dtype in ("float64", "float32"):
            part = explain_conv(wrong.forward, wrong.backward, dtype=dtype).parts["grad_weight"]
            assert part.text == f"grad_weight changes with the weight: 0.01 times the weight is added; {rest}."


def test_buffers_and_caches_that_keep_earlier_calls():
    buffer, first_weight, total = {}, {}, []

    def stale_padding(x, w, b, stride, padding, *rest):
        size = (*x.shape[:2], *(n + 2 * p for n, p in zip(x.shape[2:], padding, strict=True)))
        padded = buffer.setdefault(size, np.zeros(size, x.dtype))
        inside = tuple(slice(p, p + n) for p, n in zip(padding, x.shape[2:], strict=True))
        padded[(slice(None), slice(None), *inside)] = x
        return right_y(padded, w, b, stride, (0, 0), *rest)

    shape, pads = (3, 8, 8, 23), (4, 1)
    dirty = np.full((3, 8, 16, 25), 3.0)
    stale_padding(dirty, np.ones((4, 4, 3, 2)), np.zeros(4), (2, 8), (0, 0), (3, 6), 2)
    text = forward_of(stale_padding).text
    assert text.endswith("With x all zero, the output depends on earlier calls: the padding keeps values of another x.")
    assert tuple(n + 2 * p for n, p in zip(shape[2:], pads, strict=True)) == dirty.shape[2:]

    def cached(x, w, b, *integers):
        return right_y(x, first_weight.setdefault(w.shape, w.copy()), b, *integers)

    assert forward_of(cached).text == (
        "Calls with three different w gave the same result: it does not read w, or uses one of an earlier call."
    )

    last = {}

    def late(x, w, b, *integers):
        before = last.get("x", 0 * x)
        last["x"] = 0.5 * before + x
        return right_y(x + (0 if x.any() else before), w, b, *integers)

    assert forward_of(late).text.endswith("after others: it keeps values of earlier calls.")

    def adds(x, w, b, *integers):
        total.append(right_y(x, w, b, *integers))
        return sum(total)

    assert forward_of(adds).text.endswith("Each call adds the same amount: it adds to an earlier result.")

    class Added(Conv):
        def grad_x(self, g, weight, shape, p):
            total.append(super().grad_x(g, weight, shape, p))
            return sum(total)

    total.clear()
    wrong = Added()
    text = explain_conv(wrong.forward, wrong.backward).parts["grad_x"].text
    assert text.endswith("The second is twice the first: it adds to an earlier result.")


# --- Functions that are not linear, or whose results vary ------------------------------------------------------------

COUNT = itertools.count(1)
RANDOM = np.random.default_rng(0)
NONLINEAR = {
    "relu": (
        lambda x, w, b, i: right_y(np.maximum(x, 0), w, b, *i),
        "The output is right, but computed from max(x, 0) instead of x.",
    ),
    "square": (lambda x, w, b, i: right_y(x * x, w, b, *i), "computed from x² instead of x"),
    "cube": (lambda x, w, b, i: right_y(x**3, w, b, *i), "for 2; a linear function would give "),
    "relu after": (lambda x, w, b, i: np.maximum(right_y(x, w, b, *i), 0), "negative results become 0"),
    "weight normalised": (lambda x, w, b, i: right_y(x, w / max(1, np.abs(w).max()), b, *i), "It is not linear in w"),
    "random": (
        lambda x, w, b, i: right_y(x, w, b, *i) + RANDOM.standard_normal(),
        "It is random, or depends on earlier calls.",
    ),
    "counts its calls": (
        lambda x, w, b, i: right_y(x, w, b, *i) * next(COUNT),
        "It is random, or depends on earlier calls.",
    ),
    "ignores x": (lambda x, w, b, i: right_y(np.arange(x.size).reshape(x.shape), w, b, *i), "does not read x"),
    "adds x": (lambda x, w, b, i: right_y(x, w, b, *i) + x.sum(), "With w all zero, the output is"),
    "bias times x": (lambda x, w, b, i: right_y(x, w, b * x.sum(), *i), "What the bias adds depends on x."),
    "bias squared": (lambda x, w, b, i: right_y(x, w, b * b, *i), "The output is not linear in the bias."),
}


@pytest.mark.parametrize("name", NONLINEAR)
def test_nonlinear_functions_are_called_so(name):
    change, said = NONLINEAR[name]
    part = forward_of(wrapper(change))
    assert said in part.text
    assert not part.is_right
    if "linear" in said and "bias" not in said:
        assert part.is_linear is False
        first, second = part.inputs
        assert first.shape == second.shape
        assert not part.is_convolution


def test_one_number_shows_a_nonlinearity_where_one_is_enough():
    first, second = forward_of(wrapper(NONLINEAR["square"][0])).inputs
    assert np.count_nonzero(first) == 1
    assert np.array_equal(second, -first)


def test_exceptions_wrong_types_and_endless_functions_are_findings():
    def raises(x, weight, bias, stride, padding, dilation, groups):
        raise RuntimeError("no kernel today")

    assert "forward raised RuntimeError: no kernel today, for x (3, 8, 8, 23)" in forward_of(raises).text
    nothing = explain_conv(lambda *args: None, lambda *args: None)
    assert nothing.parts["forward"].text == "The output is not an array of numbers but NoneType."
    assert "backward must return (grad_x, grad_weight, grad_bias); it returned NoneType" in nothing.parts["grad_x"].text
    assert not nothing.is_linear
    three = explain_conv(Conv().forward, lambda *args: (None, None, None))
    assert three.parts["grad_bias"].text == "grad_bias is not an array of numbers but NoneType."
    start = time.perf_counter()
    slow = explain_conv(lambda *args: time.sleep(30), lambda *args: None, time_limit=0.2)
    assert "did not return in time" in slow.parts["forward"].text
    assert slow.parts["grad_x"].text == "There was no time left to read it out."
    assert time.perf_counter() - start < 5

    def sleepy(*args):
        time.sleep(0.02)
        return Conv().forward(*args)

    slow = forward_of(sleepy, time_limit=0.5).text
    assert re.search(r"too slow to be read out: one call takes 0\.\d+ s", slow), slow
    assert "(3, 4, 0, 3)" in forward_of(lambda *args: np.zeros((3, 4, 0, 3))).text
    assert "has shape (7,)" in forward_of(lambda *args: np.zeros(7)).text
    assert "adds no product" in forward_of(lambda *args: np.zeros((3, 4, 5, 3))).text
    shapes = itertools.count(2)
    growing = forward_of(lambda *args: np.zeros((3, 4, 5, next(shapes))))
    assert "in one call and" in growing.text


def test_arguments():
    with pytest.raises(TypeError, match="transposed"):
        explain_conv(Conv().forward, transposed=1)
    with pytest.raises(ValueError, match="spatial_dims"):
        explain_conv(Conv().forward, spatial_dims=0)


# --- Functions of the right result, calls that differ, orders --------------------------------------------------------

OF_RIGHT = {
    "max(r, 0)": lambda r: np.maximum(r, 0),
    "min(r, 0)": lambda r: np.minimum(r, 0),
    "|r|": np.abs,
    "results below −128 become −128, and results above 127 become 127": lambda r: np.clip(r, -128, 127),
    "results above 50 become 50": lambda r: np.minimum(r, 50),
    "negative results, which are multiplied by 0.1": lambda r: np.where(r < 0, 0.1 * r, r),
    "rounded to a multiple of 0.25": lambda r: np.rint(4 * r) / 4,
    "cut to a multiple of 1": np.trunc,
    "its norm becomes 10 where it was larger": lambda r: r * min(1, 10 / max(1e-9, np.linalg.norm(r))),
    "its largest absolute value becomes 1": lambda r: r / max(1e-9, np.abs(r).max()),
    "tanh": np.tanh,
    "wrapped around to 8 bits": lambda r: (r + 128) % 256 - 128,
}


@pytest.mark.thinned(3)
@pytest.mark.parametrize(
    ("said", "part"),
    [
        (said, part)
        for said, part in itertools.product(OF_RIGHT, ["y", "grad_weight", "grad_bias"])
        if part != "grad_bias" or "multiple of" not in said  # four sums do not show every multiple
    ],
)
def test_functions_of_the_right_result(said, part):
    function = OF_RIGHT[said]
    if part == "y":
        found = forward_of(lambda *args: function(Conv().forward(*args)))
    else:
        found = backward_of(part, lambda self, *args: function(getattr(Conv, part)(Conv(), *args)))
    assert said in found.text, found.text
    assert found.is_linear is False


def test_a_number_that_is_always_added():
    def last(*args):
        y = right_y(*args)
        y.reshape(-1)[-1] += 3
        return y

    assert forward_of(last).text == (
        "3 is added to the output at 1 of 180 elements, at (2, 3, 4, 2), for all operands; the others are right."
    )
    text = backward_of("grad_x", Uncleared.grad_x).text
    assert re.fullmatch(
        r"grad_x is 1 at \d+ of 4416 elements, first at \(0, 0, 0, 0\), where it should always be 0; .*", text
    )


def sixteen_bits(x, w, b, *integers):
    y = Conv().forward(x.astype(np.int64), w.astype(np.int64), None, *integers).astype(np.int16).astype(np.int32)
    return y if b is None else y + b.astype(np.int32).reshape(-1, *[1] * (y.ndim - 2))


WRAPS = "Where the output is wrong, it differs by multiples of 2^16: operands, products or sums wrap around in 16 bits."


def test_sums_that_wrap_around_before_the_bias_is_added():
    assert forward_of(sixteen_bits, dtype="int32").text == WRAPS
    for dtype in ("int8", "int32"):
        report = check_conv(sixteen_bits, dtype=dtype, output_dtype="int32", spatial_dims=1, pairs=False, cases=20)
        assert {failure.explanation for failure in report.failures} == {WRAPS}


# --- Right for another operand ---------------------------------------------------------------------------------------

OF_GRADIENT = {
    "g·(y > 0) instead of g, where y is the output without its bias": lambda g, y: g * (y > 0),
    "g·(1 − tanh² y) instead of g, where y is the output without its bias": lambda g, y: g * (1 - np.tanh(y) ** 2),
    "g·y instead of g, where y is the output without its bias": lambda g, y: g * y,
    "max(g, 0) instead of g": lambda g, y: np.maximum(g, 0),
    "g clipped to −1 … 1 instead of g": lambda g, y: np.clip(g, -1, 1),
    "the sign of g instead of g": lambda g, y: np.sign(g),
    "ones instead of g": lambda g, y: np.ones_like(g),
}


@pytest.mark.parametrize("said", OF_GRADIENT)
@pytest.mark.parametrize("transposed", [False, True])
def test_gradients_of_a_changed_upstream_gradient(said, transposed):
    right = (ConvTranspose if transposed else Conv)()

    def backward(g, x, w, *integers):
        return right.backward(OF_GRADIENT[said](g, right.forward(x, w, None, *integers)), x, w, *integers)

    extra = (0,) if transposed else ()
    problem = small((4,), (2,), (1,), 1, batch=2, c_in=2, c_out=2, transposed=transposed, output_padding=extra)
    parts = explained_on(problem, right.forward, backward).parts
    assert parts.pop("forward").is_right
    for name, part in parts.items():
        assert part.text == f"{name} is right, but computed from {said}."
        assert part.is_linear is False


def test_operands_that_are_changed_first():
    problem = small((6,), (2,), (1,), 1, c_in=2, c_out=2)
    for change, said in (
        (lambda x, w, *rest: right_y(np.abs(x), w, *rest), "The output is right, but computed from |x| instead of x."),
        (lambda x, w, *rest: right_y(x, w * w, *rest), "The output is right, but computed from w² instead of w."),
        (lambda x, w, *rest: right_y(x, np.cbrt(w), *rest), "It is not linear in w"),
    ):
        assert explained_on(problem, change).parts["forward"].text.startswith(said)


# --- One problem, and a second ---------------------------------------------------------------------------------------


def test_the_gradients_of_a_wrong_forward_pass_are_called_so():
    class Flipped(Conv):
        def kernel(self, weight):
            return weight[:, :, ::-1]

        def grad_weight(self, g, x, shape, p):
            return super().grad_weight(g, x, shape, p)[:, :, ::-1]

    same = "It is the right gradient of what your forward pass computes, and so has the same mistake."
    parts = explain_conv(Flipped().forward, Flipped().backward, spatial_dims=1).parts
    assert "the kernel is flipped" in parts["forward"].text
    assert (parts["grad_x"].text, parts["grad_weight"].text) == (same, same)
    assert not any(parts[name].is_right for name in ("grad_x", "grad_weight"))
    parts = explain_conv(Conv().forward, Flipped().backward, spatial_dims=1).parts
    assert "the kernel is flipped" in parts["grad_x"].text
    assert parts["grad_weight"].text.endswith(": grad_weight comes out flipped.")
    explanations = [
        f.explanation
        for f in check_conv(Flipped().forward, Flipped().backward, spatial_dims=1, pairs=False, cases=1).failures
    ]
    assert sum(text.endswith(same) for text in explanations) == 2


def wraps(x, w, *rest):
    columns = np.pad(x[:, :, 0], [(0, 0), (0, 0), (1, 1)])  # of the first row, which is read below the last
    y = Conv().forward(x, w, *rest)
    y[:, :, -1] += np.einsum("nct,kc->nkt", columns[:, :, :-1], w[:, :, 2, 0])
    y[:, :, -1] += np.einsum("nct,kc->nkt", columns[:, :, 1:], w[:, :, 2, 1])
    return y


@pytest.mark.parametrize(
    ("change", "claim"),
    [
        (wraps, "x wraps around to the other end"),
        (lambda *args: np.roll(Conv().forward(*args), 1, 2), "y is rotated"),
        (lambda *args: Conv().forward(*args).swapaxes(2, 3), "its axes are in the order"),
    ],
)
def test_a_claim_of_one_size_is_made_only_if_a_larger_one_shows_it_too(change, claim):
    three, five = (small((n, n), (3, 2), (1, 1), 1, c_in=2, c_out=2) for n in (3, 5))

    def only_three(x, *rest):
        return change(x, *rest) if x.shape[2] == 3 else Conv().forward(x, *rest)

    assert claim in explained_on(three, change, second=five).parts["forward"].text
    text = explained_on(three, only_three, second=five).parts["forward"].text
    assert claim not in text
    assert "right on" not in text


def test_a_right_function_is_told_to_be_checked_on_other_sizes():
    right = explain_conv(Conv().forward, spatial_dims=1)
    assert right.text.splitlines()[-1] == "It may still be wrong for other sizes: check_conv tries many."
    wrong = explain_conv(wrapper(WRAPPED["bias twice"][0]), Conv().backward)
    assert "check_conv" not in wrong.text


def test_saturating_integers_and_sums_in_single_precision():
    def saturating(x, w, b, *integers):
        return np.clip(Conv().forward(*(a.astype(np.int64) for a in (x, w, b)), *integers), -128, 127).astype(np.int8)

    def single(x, w, b, *integers):
        return Conv().forward(*(a.astype(np.float64) for a in (x, w, b)), *integers).astype(np.float32).astype(np.int32)

    assert "above 127 become 127" in forward_of(saturating, dtype="int8").text
    assert "whole numbers beyond 16777216 are not exact" in forward_of(single, dtype="int32").text


@given(st.lists(st.integers(-400, 400), min_size=9, max_size=60, unique=True), st.integers(1, 5))
def test_linear_results_are_not_called_functions_of_the_right_one(values, factor):
    right = np.array(values, float)
    for seen in (right, factor * right, -factor * right, right[::-1], np.roll(right, 1), right + factor):
        text = function_of_right([Result(right, seen)] * 4, "The output")
        assert text is None, text


def test_a_function_that_is_seldom_wrong_is_called_random():
    rng = np.random.default_rng(4)

    def seldom(x, w, b, i):
        return right_y(x, w * (rng.random(w.shape[2:]) > 0.02), b, *i)

    text = forward_of(wrapper(seldom)).text
    assert "alls with the same arguments gave different results" in text
    assert "were not found" not in text


def test_a_case_that_is_right_when_called_again_depends_on_earlier_calls():
    last = [None]

    def forward(x, weight, bias, *integers):
        shape, last[0] = last[0], x.shape
        y = Conv().forward(x, weight, bias, *integers)
        return y if shape == x.shape else y + 1

    report = check_conv(forward, pairs=False, cases=20)
    said = {failure.check: failure.explanation for failure in report.failures}
    assert said["values"] == "Called again with the same arguments, it is right: it depends on earlier calls."


def test_a_result_that_is_zero_on_one_problem_is_explained_on_another():
    def forward(x, weight, bias, *integers):
        whole = weight.copy()
        whole[:, weight.shape[1] // 5 * 5 :] = 0  # the last channels, after blocks of five
        return Conv().forward(x, whole, bias, *integers)

    (failure,) = check_conv(forward, pairs=False).failures
    assert "of each group" in failure.explanation
    assert "zero" not in failure.explanation


@pytest.mark.thinned(2)
@pytest.mark.parametrize(("kind", "said"), [
    ("int64", "It is right for x cut to whole numbers."),
    ("float16", "It is right for x rounded to the digits of float16 or TF32."),
])  # fmt: skip
def test_operands_that_lose_their_fractions(kind, said):
    report = check_conv(lambda x, *more: Conv().forward(x.astype(kind).astype(x.dtype), *more), pairs=False, cases=20)
    assert {failure.explanation for failure in report.failures if failure.check == "real values"} == {said}


@pytest.mark.thinned(2)
@pytest.mark.parametrize("late", [False, True])
def test_sums_that_saturate(late):
    def forward(x, weight, bias, *integers):
        wide = (a.astype(np.int64) for a in (x, weight))
        added = 0 if bias is None else bias.reshape(-1, 1, 1)
        sums = Conv().forward(*wide, None, *integers) + (0 if late else added)
        return (np.clip(sums, -(2**15), 2**15 - 1) + (added if late else 0)).astype(x.dtype)

    (failure,) = check_conv(forward, dtype="int32", pairs=False, cases=20).failures
    of = "the output without its bias" if late else "the output"
    assert failure.explanation == f"Beyond −32768 and 32767 {of} is one of these: it saturates at 16 bits."


@pytest.mark.thinned(2)
@pytest.mark.parametrize(("number", "other", "said"), [(np.nan, 0, "NaN in x counts as 0."), (np.nan, 1, None)])
def test_numbers_that_are_not_finite_and_count_as_others(number, other, said):
    def forward(x, weight, bias, *integers):
        return Conv().forward(np.where(np.isnan(x), x.dtype.type(other), x), weight, bias, *integers)

    report = check_conv(forward, pairs=False, cases=20)
    assert {f.check: f.explanation for f in report.failures}["non-finite"] == (said or f"NaN in x counts as {other}.")


def test_orders_that_one_axis_has():
    def blocks(a, o, t, n, asked):
        return asked(o, t) if a or o == asked.positions // 2 * 2 else asked(o // 2 * 2 + 1 - o % 2, t)

    text = forward_of(built(read=blocks)).text
    assert "Along axis 0 every block of 2 elements is in reverse order in y." in text

    def nearest(x, w, b, stride, padding, dilation, groups):
        x = np.repeat(np.repeat(x, stride[0], 2), stride[1], 3)[:, :, : 1 - stride[0], : 1 - stride[1]]
        return ConvTranspose().forward(x, w, b, (1, 1), padding, dilation, groups)

    text = forward_of(nearest, transposed=True).text
    assert text.count("as many as the stride: it is repeated (nearest neighbour)") == 2


def test_memory_that_is_addressed_wrongly():
    def flat(index):
        def forward(x, w, b, i):
            n, c, height, width = x.shape
            rows, columns = np.indices((height, width))
            places = index(rows, columns, height, width) % (height * width)
            return right_y(x.reshape(n, c, -1)[:, :, places], w, b, *i)

        return forward

    pitch = forward_of(wrapper(flat(lambda r, c, h, w: r * h + c)), supports=("stride", "groups")).text
    assert "of x is taken to be" in pitch
    narrow = forward_of(wrapper(flat(lambda r, c, h, w: (r * w + c) % 64)), supports=("groups", "dilation")).text
    assert "Positions in x are taken mod 64" in narrow


def test_a_reshaped_weight_is_found_beside_a_column_left_out():
    def wrong(x, w, b, i):
        w = w.reshape(w.shape[1], len(w), *w.shape[2:]).swapaxes(0, 1)
        y = right_y(x, w, b, *i)
        y[..., -1] = 0
        return y

    text = forward_of(wrapper(wrong)).text
    assert text.startswith("w is as if reshaped from (K, C/G, k1, k2) to (C/G, K, k1, k2)")
    assert "No product is added at axis 1, o = 2." in text


def test_a_reshaping_that_only_equal_sizes_suggest_is_not_named():
    problem = small((5, 6), (2, 3), (1, 1), 0, c_in=2, c_out=2)

    def wrong(x, w, *rest):
        return Conv().forward(x, w.swapaxes(0, 1) if w.shape[2] < 3 else w, *rest)

    text = explained_on(problem, wrong).parts["forward"].text
    assert "reshaped" not in text
    assert "wrong place" in text or " uses " in text
    text = explained_on(problem, lambda x, w, *rest: Conv().forward(x, w[::-1], *rest)).parts["forward"].text
    assert text.endswith("are taken in reverse order.")


# --- Numbers of other axes, addresses in memory, indices that wrap around --------------------------------------------


def convolved(x, w, b, stride, padding, dilation, groups, place=None, sizes=None):
    """Convolve, with the output at `position` reading element ``place(axis, position, tap)``; -1 reads nothing."""
    d = w.ndim - 2
    right = [(n + 2 * p - e * (k - 1) - 1) // s + 1
             for n, p, e, k, s in zip(x.shape[2:], padding, dilation, w.shape[2:], stride, strict=True)]  # fmt: skip
    place = place or (lambda a, o, t: o * stride[a] + t * dilation[a] - padding[a])
    y = np.zeros((len(x), len(w), *(sizes or right)), x.dtype)
    wide = np.pad(x, [(0, 0), (0, 0), *[(0, 1)] * d])
    for taps in np.ndindex(*w.shape[2:]):
        index = [np.array([place(a, o, t) for o in range(y.shape[2 + a])]) for a, t in enumerate(taps)]
        index = [np.where((i < 0) | (i >= n), n, i) for i, n in zip(index, x.shape[2:], strict=True)]
        seen = wide[np.ix_(range(len(x)), range(x.shape[1]), *index)]
        seen = seen.reshape(len(x), groups, -1, *y.shape[2:])
        kernel = w[(slice(None), slice(None), *taps)].reshape(groups, -1, w.shape[1])
        y += np.einsum("gkc,ngc...->ngk...", kernel, seen).reshape(y.shape)
    return y if b is None else y + b.reshape(-1, *[1] * d)


@pytest.mark.thinned(26)
@pytest.mark.parametrize("name", ["stride", "dilation", "padding"])
@pytest.mark.parametrize(("axis", "other"), list(itertools.permutations(range(3), 2)))
def test_a_number_taken_from_another_axis_is_called_so(name, axis, other):
    def forward(x, w, b, stride, padding, dilation, groups):
        used = {"stride": list(stride), "padding": list(padding), "dilation": list(dilation)}
        used[name][axis] = used[name][other]

        def place(a, o, t):
            return o * used["stride"][a] + t * used["dilation"][a] - used["padding"][a]

        return convolved(x, w, b, stride, padding, dilation, groups, place)

    text = forward_of(forward, spatial_dims=3).text
    assert text.startswith(f"Along axis {axis} your output reads"), text
    assert text.endswith(f": the {name} is that of axis {other}."), text


@pytest.mark.parametrize("order", list(itertools.permutations(range(3)))[1:])
def test_every_order_of_the_axes_of_a_kernel_has_its_own_name(order):
    def forward(x, w, b, *rest):
        back = np.argsort(order)
        memory = w.reshape(*w.shape[:2], *(w.shape[2 + a] for a in order))
        return Conv().forward(x, memory.transpose(0, 1, *(2 + back)), b, *rest)

    text = forward_of(forward, spatial_dims=3).text
    used = ", ".join(f"k{a + 1}" for a in order)
    assert f"the taps of w are listed in the order (K, C/G, k1, k2, k3) and used in the order (K, C/G, {used})." in text


@pytest.mark.parametrize(("stride", "halves", "said"), [
    ((3, 2), False, "the stride is ignored"), ((4, 2), True, "the stride is halved"),
    ((2, 2), False, "the stride is ignored or the stride is halved or the stride is one less than asked"),
])  # fmt: skip
def test_a_second_cause_is_named_only_if_it_gives_the_same_numbers(stride, halves, said):
    problems = [small(size, (1, 1), stride, 0, c_in=2, c_out=2) for size in ((9, 7), (13, 9))]

    def forward(x, w, b, stride, padding, dilation, groups):
        return convolved(x, w, b, stride, padding, dilation, groups,
                         lambda a, o, t: o * (stride[a] // 2 if halves else 1))  # fmt: skip

    text = explained_on(problems[0], forward, second=problems[1]).parts["forward"].text
    assert text.count(f": {said}.") == 2, text


def test_a_cause_that_ties_on_both_problems_is_named_with_the_other():
    problems = [
        dataclasses.replace(small(size, (4, 3), stride, 0), padding=((pad, pad), (0, 0)))
        for size, stride, pad in (((9, 12), (2, 3), 2), ((11, 15), (3, 2), 3))
    ]

    def forward(x, w, b, stride, padding, dilation, groups):
        return convolved(x, w, b, stride, padding, dilation, groups, lambda a, o, t: o * stride[a] + t * dilation[a])

    text = explained_on(problems[0], forward, second=problems[1]).parts["forward"].text
    assert text.endswith(": the padding before is ignored, or the padding is that of axis 1.")


def by_address(unchecked):
    """Return a convolution that reads x at addresses in memory, with only some axes checked."""

    def forward(x, w, b, stride, padding, dilation, groups):
        d, k = w.ndim - 2, w.shape[2:]
        y = convolved(0 * x, w, b, stride, padding, dilation, groups)
        for n, q, *rest in np.ndindex(*y.shape[:2], w.shape[1], *y.shape[2:], *k):
            c, o, t = rest[0] + q // (len(w) // groups) * w.shape[1], rest[1 : 1 + d], rest[1 + d :]
            i = [o[a] * stride[a] + t[a] * dilation[a] - padding[a] for a in range(d)]
            if all(0 <= i[a] < x.shape[2 + a] for a in range(d) if a not in unchecked):
                at = n * x.shape[1] + c
                for a in range(d):
                    at = at * x.shape[2 + a] + i[a]
                if 0 <= at < x.size:
                    y[(n, q, *o)] += x.reshape(-1)[at] * w[(q, rest[0], *t)]
        return y

    return forward


@pytest.mark.parametrize(("d", "unchecked", "near"), [
    (1, (0,), "channel or sample"), (2, (0,), "channel or sample"), (2, (1,), "row"), (2, (0, 1), "channel or sample"),
])  # fmt: skip
def test_indices_that_are_not_checked(d, unchecked, near):
    problem = small((7, 5)[:d], (3, 2)[:d], (1, 2)[:d], 1, batch=2, c_in=4, c_out=2, groups=2)
    text = explained_on(problem, by_address(unchecked)).parts["forward"].text
    axes = " and ".join(map(str, unchecked))
    assert text.startswith(
        f"Along axis {axes}, indices are not checked: elements beyond x are read at their address"
    ), text
    assert f"a neighbouring {near}." in text


@pytest.mark.parametrize("sizes", [(5, 3), (3, 5), (6, 2), (4, 3, 2), (2, 3, 4)])
def test_positions_that_are_split_by_the_sizes_of_other_axes(sizes):
    d = len(sizes)
    problem = small(tuple(n + 2 for n in sizes), (3,) * d, (1,) * d, 0, c_in=2)

    def forward(x, w, *rest):
        right = Conv().forward(x, w, *rest).shape
        return convolved(x, w, *rest, sizes=right[:1:-1]).reshape(right)

    text = explained_on(problem, forward).parts["forward"].text
    assert text.startswith(f"y is as if its sizes were {sizes[::-1]} instead of {sizes}, and reshaped"), text
    assert d > 2 or text.endswith(f"position q in memory order is taken as (q // {sizes[0]}, q mod {sizes[0]}).")


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("ends", "said"), [("before", "o = −1 as {last}"), ("after", "o = {next} as 0"),
                                            ("both", "o = −1 as {last} and {next} as 0")])  # fmt: skip
def test_positions_that_wrap_around(stride, ends, said):
    def gradient(self, g, weight, shape, p):
        (s,), (e,), (pad, _) = p.stride, p.dilation, p.padding[0]
        grad, count = np.zeros(shape, g.dtype), g.shape[2]
        for i, t, o in np.ndindex(shape[2], weight.shape[2], 3 * count):
            at = o - count
            wraps = 0 <= at < count or (at < 0 and ends != "after") or (at >= count and ends != "before")
            if wraps and s * at + e * t - pad == i:
                grad[:, :, i] += np.einsum("nk,kc->nc", g[:, :, at % count], weight[:, :, t])
        return grad

    problem = small((8,), (4,), (stride,), 0, c_in=2, c_out=3)

    class Wrapped(Conv):
        grad_x = gradient

    text = explained_on(problem, Conv().forward, Wrapped().backward).parts["grad_x"].text
    count = problem.output_size[0]
    assert text.startswith("Along axis 0, indices of g beyond its ends are not left out: they wrap around,"), text
    assert said.format(last=count - 1, next=count) in text


def test_a_list_of_products_has_those_that_differ():
    def forward(x, w, *rest):
        y = Conv().forward(x, w, *rest)
        y[0, 0, 0] += x[0, 0, 5] * w[0, 0, 0] - x[0, 0, 2] * w[0, 0, 2]
        y[0, 1, 1] += 2 * x[0, 0, 1] * w[1, 0, 0]
        return y

    problem = small((6,), (3,), (1,), 0, c_in=2, c_out=2)
    text = explained_on(problem, forward).parts["forward"].text
    assert (
        "2 of 8 elements of y are wrong: those at numbers 0, 5 in memory order, of 8. First y[0,0,0]: it adds" in text
    )
    assert "it adds w[0,0,0]·x[0,0,5] where it" in text
    assert "should add w[0,0,2]·x[0,0,2]; its other products are right." in text


# --- Blocks of channels, tiles, and sums of the first elements -------------------------------------------------------


@pytest.mark.parametrize(("c", "block"), [(5, 4), (7, 4), (17, 8), (19, 8)])
@pytest.mark.parametrize("groups", [1, 2])
def test_only_the_columns_that_differ_are_listed(c, block, groups):
    def forward(x, w, *rest):
        last = (w.shape[1] - 1) // block * block
        w = w.copy()
        w[:, last:] = w[:, last - block : w.shape[1] - block]
        return Conv().forward(x, w, *rest)

    problem = small((5,), (2,), (1,), 0, c_in=c * groups, c_out=2 * groups, groups=groups)
    text = explained_on(problem, forward).parts["forward"].text
    last = (c - 1) // block * block
    channels, columns = (those(noun, list(range(n, n + c - last)))
                         for noun, n in (("Input channel", last), ("weight column", last - block)))  # fmt: skip
    each, use = " of each group" * (groups > 1), "use" if c - last > 1 else "uses"
    assert text.startswith(f"{channels}{each} {use} {columns}, not weight column"), text
    assert text.endswith("; the others are right.")


@pytest.mark.parametrize("groups", [2, 3, 4])
def test_groups_of_the_upstream_gradient_in_another_order(groups):
    def reordered(order):
        def grad_weight(self, g, x, shape, p):
            parts = g.reshape(len(g), p.groups, -1, *g.shape[2:])[:, order(np.arange(p.groups))]
            return Conv().grad_weight(parts.reshape(g.shape), x, shape, p)

        class Reordered(Conv):
            pass

        Reordered.grad_weight = grad_weight
        problem = small((6,), (2,), (1,), 0, c_in=2 * groups, c_out=2 * groups, groups=groups)
        return explained_on(problem, Conv().forward, Reordered().backward).parts["grad_weight"].text

    text = "The groups of g are reversed: its output channels of group j go with the weight rows and input channels of"
    assert reordered(lambda g: g[::-1]) == f"{text} group {groups - 1} − j."
    if groups > 2:
        text = "The output channels of each group go with the weight rows and input channels of the"
        assert reordered(lambda g: np.roll(g, 1)) == f"{text} next group."
        assert reordered(lambda g: np.roll(g, -1)) == f"{text} previous group."


@pytest.mark.parametrize(("count", "block"), [(5, 2), (7, 3), (17, 16), (40, 16), (40, 7)])
def test_sums_that_earlier_blocks_of_channels_leave_behind(count, block):
    def forward(x, w, b, *rest):
        y = Conv().forward(x, w, None, *rest)
        for k in range(block, y.shape[1]):
            y[:, k] += y[:, k - block]
        return y if b is None else y + b[:, None]

    problem, other = (small((9,), (k,), (2,), 1, c_in=2, c_out=n) for k, n in ((3, count), (4, count + 1)))
    said = f"y[k] also contains the sums of output channels k − {block}, k − {2 * block}, …: they are kept for the next"
    for calls in (600, 10_000):  # with few calls, the products are not read
        text = explained_on(problem, forward, calls=calls, second=other).parts["forward"].text
        assert text == f"{said} {block} channels.", (calls, text)
    text = explained_on(problem, forward, second=small((9,), (4,), (2,), 1, c_in=2, c_out=block)).parts["forward"].text
    assert "also contains" not in text  # it is right there


def test_sums_that_earlier_blocks_leave_behind_are_found_where_products_cannot_be_read():
    def forward(x, w, b, *rest):
        y = Conv().forward(x, w, None, *rest)
        for k in range(16, y.shape[1]):
            y[:, k] += y[:, k - 16]
        return y

    first, other = (small((3, n), (1, 2), (2, 3), 1, c_in=34, c_out=51, groups=17) for n in (9, 8))
    said = "y[k] also contains the sums of output channels k − 16, k − 32, …: they are kept for the next 16 channels."
    assert explained_on(first, forward, calls=300, second=other).parts["forward"].text == said
    changed = explained_on(first, lambda *args: forward(*args) * 2, calls=300, second=other).parts["forward"].text
    assert "were not found" in changed


@pytest.mark.parametrize("block", [8, 16])
@pytest.mark.parametrize("counts", [(33, 70), (33, 50), (65, 17)])
def test_a_bias_that_every_block_of_channels_adds(block, counts):
    def forward(x, w, b, *rest):
        return Conv().forward(x, w, b * -(-w.shape[1] // block), *rest)

    problems = [small((3,), (1,), (1,), 0, c_in=c, c_out=1, bias=True) for c in counts]
    text = explained_on(problems[0], forward, second=problems[1]).parts["forward"].text
    size = f"C/G (C/G = {counts[0]} input channels)"
    named = f"The bias is multiplied by {-(-counts[0] // block)}, which is the number of blocks of {block} channels in"
    assert text == f"{named} {size}.", text
    text = explained_on(problems[0], lambda x, w, b, *rest: Conv().forward(x, w, 5 * b, *rest), second=problems[1])
    assert text.parts["forward"].text == "The bias is multiplied by 5."


@pytest.mark.parametrize("size", [12, 13, 20])
def test_elements_beyond_a_tile_are_not_listed(size):
    def forward(x, w, *rest):
        x = x.copy()
        x[:, :, 7:] = 0
        return Conv().forward(x, w, *rest)

    problem = dataclasses.replace(small((size,), (2,), (3,), 0), dilation=(2,))
    used = [i for i in range(7, size) if any(0 <= i - 2 * t <= size - 3 and (i - 2 * t) % 3 == 0 for t in (0, 1))]
    text = explained_on(problem, forward).parts["forward"].text
    gaps = len(used) > 2 and used[-1] - used[0] >= len(used)
    assert (text == f"Along axis 0, no element of x from {used[0]} on is used.") == gaps, text
    assert gaps or "element" in text


@pytest.mark.parametrize(("read", "said"), [
    (
        lambda n: 1 << (n.bit_length() - 1),
        "Of {whole} samples and positions, in memory order, only the first {first} count, the largest power of two.",
    ),
    (
        lambda n: n - 7,
        "Of the {whole} elements of g in a channel (samples, then positions) only the first {first} are read.",
    ),
])  # fmt: skip
@pytest.mark.parametrize("size", [(6, 4), (5, 6)])
def test_a_gradient_of_the_bias_that_sums_the_first_elements(read, said, size):
    class First(Conv):
        def grad_bias(self, g):
            flat = np.moveaxis(g, 1, 0).reshape(g.shape[1], -1)
            return flat[:, : read(flat.shape[1])].sum(1)

    problem = small(size, (2, 2), (1, 1), 0, batch=3, c_in=2, c_out=2, bias=True)
    text = explained_on(problem, Conv().forward, First().backward).parts["grad_bias"].text
    whole = 3 * math.prod(problem.output_size)
    assert text == said.format(first=read(whole), whole=whole), text


@pytest.mark.parametrize(("size", "said"), [
    (3, "nothing is used at o = 0, or t = 1 is never used."), (7, "tap t = 1 is never used."),
])  # fmt: skip
def test_a_position_and_a_tap_that_single_out_the_same_products_are_both_named(size, said):
    def forward(x, w, *rest):
        w = w.copy()
        w[:, :, 1] = 0
        return Conv().forward(x, w, *rest)

    problem = dataclasses.replace(small((size,), (2,), (3,), 2), dilation=(3,))
    assert explained_on(problem, forward).parts["forward"].text == f"Along axis 0, {said}"


# --- Precisions ------------------------------------------------------------------------------------------------------


def summed_in_half(x, w, b, *steps):
    """Round the sum to float16 after each tap, and add the bias in float32."""
    with np.errstate(all="ignore"):
        y = np.float16(0)
        for tap in np.ndindex(*w.shape[2:]):
            alone = np.zeros_like(w)
            alone[(..., *tap)] = w[(..., *tap)]
            y = (y + Conv().forward(x, alone, None, *steps)).astype(np.float16)
        y = y.astype(x.dtype)
    return y if b is None else y + b.reshape(-1, *[1] * (y.ndim - 2))


def stored_in_half(x, w, b, *steps):
    y = Conv().forward(x, w, b, *steps)
    with np.errstate(over="ignore"):
        return y.astype(np.float16).astype(y.dtype)


def cut_to(bits, half=lambda w: False):
    """Return a convolution of operands with fewer digits; where `half` says so, its results are float16 numbers."""

    def cut(array):
        mantissa, exponent = np.frexp(array)
        return np.ldexp(np.rint(mantissa * 2**bits) / 2**bits, exponent).astype(array.dtype)

    def forward(x, w, b, *steps):
        y = Conv().forward(cut(x), cut(w), b, *steps)
        return y.astype(np.float16).astype(y.dtype) if half(w) else y

    return forward


@pytest.mark.thinned(2)
@pytest.mark.parametrize(("forward", "name"), [
    (summed_in_half, "float16"), (stored_in_half, "float16"), (cut_to(11), "tf32"), (cut_to(8), "bfloat16"),
])  # fmt: skip
@pytest.mark.parametrize("seed", [0, long(1)])
def test_a_report_names_one_precision(forward, name, seed):
    report = check_conv(forward, pairs=False, seed=seed)
    failure = next(f for f in report.failures if f.check == "real values")
    assert failure.message.endswith(f"; consistent with {name}")
    assert report.precisions == {"y": name}
    before = ", before its bias is added," * (forward is summed_in_half and failure.case.bias is not None)
    assert (
        failure.explanation
        == {
            "float16": f"In this case every output{before} is a float16 number: sums are kept, or stored, in float16.",
            "tf32": "It is right for x and weight rounded to the digits of float16 or TF32.",
            "bfloat16": "It is right for x and weight rounded to bfloat16.",
        }[name]
    )
    assert set(re.findall(r"consistent with (bfloat16|float16|tf32)", str(report))) == {name}


def test_mixed_evidence_names_no_precision():
    report = check_conv(cut_to(8, half=lambda w: w.shape[0] % 4), pairs=False)
    assert report.precisions == {"y": "none"}
    assert not re.search(r"bfloat16|float16|tf32|consistent", str(report.failures[0].message))


# --- One problem -----------------------------------------------------------------------------------------------------


def explained_on(problem, forward, backward=None, **options):
    with Caller(5.0) as call:
        return explain(call, forward, backward, problem, "float64", SUPPORTS, **options)


def small(size, kernel, stride, padding, **more):
    d = len(size)
    numbers = {"batch": 1, "c_in": 1, "c_out": 1, "dilation": (1,) * d, "bias": False} | more
    return Problem(size=size, kernel=kernel, stride=stride, padding=((padding,) * 2,) * d, **numbers)


def test_a_problem_with_one_position_determines_no_stride():
    problem = small((3,), (2,), (2,), 0)
    assert problem.output_size == (1,)
    right = explained_on(problem, Conv().forward, Conv().backward)
    assert all(part.is_right for part in right.parts.values()), right.text
    assert right.parts["forward"].stride == (None,)
    assert right.parts["forward"].dilation == (1,)
    flipped = explained_on(problem, lambda x, w, *rest: Conv().forward(x, w[..., ::-1], *rest)).parts["forward"]
    assert flipped.text == "Along axis 0 your output reads x[−t + 1]; it should be x[t]: the kernel is flipped."
    assert (flipped.stride, flipped.flipped) == ((None,), (True,))


def test_a_kernel_of_one_determines_no_dilation():
    problem = small((5,), (1,), (2,), 0)
    part = explained_on(problem, Conv().forward).parts["forward"]
    assert (part.stride, part.dilation, part.is_right) == ((2,), (None,), True)
    late = explained_on(problem, built_1d(lambda o, t: 2 * o + t + 1)).parts["forward"]
    assert late.text.startswith("Along axis 0 your output reads x[2·o + 1]; it should be x[2·o]")
    assert late.padding == (-1,)


def built_1d(place):
    def forward(x, weight, bias, stride, padding, dilation, groups):
        y = np.zeros((1, 1, (x.shape[2] + 2 * padding[0] - weight.shape[2]) // stride[0] + 1))
        for o, t in np.ndindex(y.shape[2], weight.shape[2]):
            if 0 <= place(o, t) < x.shape[2]:
                y[0, 0, o] += x[0, 0, place(o, t)] * weight[0, 0, t]
        return y

    return forward


def test_a_single_product():
    problem = small((1,), (1,), (1,), 0)
    right = explained_on(problem, Conv().forward, Conv().backward)
    assert all(part.is_right for part in right.parts.values()), right.text
    twice = explained_on(problem, lambda x, w, *rest: 2 * x * w).parts["forward"]
    assert (twice.text, twice.factor, twice.stride) == ("Every product is added twice.", 2, (None,))
    nothing = explained_on(problem, lambda x, w, *rest: 0 * x * w).parts["forward"]
    assert nothing.text == "The result is zero: it adds no product."


def test_one_tap_inside_the_padding_is_not_a_line():
    problem = small((1,), (3,), (1,), 1)
    part = explained_on(problem, lambda x, w, *rest: x * w[:, :, 2:]).parts["forward"]
    assert part.stride == (None,)
    assert part.dilation == (None,)
    assert "t = 2" in part.text


def test_a_problem_with_nothing_but_padding():
    problem = small((1,), (1,), (2,), 1)
    right = explained_on(problem, Conv().forward, Conv().backward)
    assert all(part.is_right for part in right.parts.values()), right.text
    assert right.parts["forward"].text == "It is right, but on this problem every window is in the padding."
    assert right.parts["forward"].stride is None
    late = explained_on(problem, built_1d(lambda o, t: 2 * o)).parts["forward"]
    assert (
        late.text
        == "Along axis 0 your output reads x[0] (only o = 0 is used); it should be x[2·o − 1]: it starts one element "
        "late. Along axis 0, nothing is used at o = 1."
    )


@pytest.mark.parametrize("every", [15, long(3)])
def test_is_right_is_true_on_any_problem(every):
    rng, found = np.random.default_rng(0), {True: 0, False: 0}
    names = ("stride ignored in the input gradient", "all padding put before", "pads by repeating the edge")
    for mutant in [m for m in CATALOGUE if m.name in names]:
        problems = itertools.chain(*systematic(Domain(1, mutant.supports, False)))
        for problem in itertools.islice(problems, 0, None, every):
            wrong = mutant.make()
            parts = explained_on(problem, wrong.forward, wrong.backward).parts
            case = make_case(problem, "integers", rng, "float64", mutant.supports)
            due = exact_results(problem, case.operands)
            y = wrong.forward(case.x, case.weight, case.bias, *case.integers)
            gradients = wrong.backward(case.grad_output, case.x, case.weight, *case.integers)
            for part, actual, right in zip(parts.values(), (y, *gradients), due, strict=True):
                found[part.is_right] += 1
                assert part.is_right == np.array_equal(actual, right), (mutant.name, problem, part.text)
    assert min(found.values()) > 60 / every


def test_elements_with_the_same_code_are_separated(monkeypatch):
    monkeypatch.setattr(readout, "code_sizes", lambda dtype: (3, 1))
    rng = np.random.default_rng(0)
    factors = rng.permutation(np.arange(1.0, 13))
    order = rng.permutation(12)

    def measure(a, b):
        return factors * a[0, 0] * b.reshape(-1)[order]

    budget = readout.Budget(1000)
    entries = readout.read(measure, (1, 1), (3, 4), [np.array([0])], np.dtype("float64"), budget, False)
    assert len(entries.unread) == 0
    by_result = np.argsort(entries.out)
    assert np.array_equal(entries.b[by_result], order)
    assert np.array_equal(entries.factor[by_result], factors)
    few = readout.Budget(0)
    assert len(readout.read(measure, (1, 1), (3, 4), [np.array([0])], np.dtype("float64"), few, False).unread) == 12


def test_too_large_and_empty_problems_are_refused():
    part = explained_on(small((400, 400), (3, 3), (1, 1), 1), Conv().forward).parts["forward"]
    assert part.text == "This problem is too large to be read out."
    part = explained_on(small((3,), (1,), (1,), 0, batch=0), Conv().forward).parts["forward"]
    assert part.text == "This problem has no products to read out."


def test_only_the_parts_asked_are_read():
    calls = []

    def backward(*args):
        calls.append(args)
        return Conv().backward(*args)

    problem = standard_problem(2, SUPPORTS)
    explanation = explained_on(problem, Conv().forward, backward, parts=("forward",))
    assert list(explanation.parts) == ["forward"]
    assert not calls
    explanation = explained_on(problem, Conv().forward, backward, parts=("grad_bias",))
    assert list(explanation.parts) == ["grad_bias"]
    assert len(calls) < 20


def test_json_and_text():
    wrong = Conv()
    explanation = explain_conv(ignores_stride, wrong.backward, time_limit=60)
    plain = json.loads(explanation.to_json())
    assert plain["parts"]["forward"]["stride"] == [1, 1]
    assert plain["is_linear"] is True
    assert plain["problem"]["stride"] == [2, 8]
    assert str(explanation) == explanation.text
    assert explanation.text.startswith(
        "forward: Along axis 0 your output reads x[o + 3·t − 4]; it should be x[2·o + 3·t − 4]"
    )
    for change in (NONLINEAR["square"][0], WRAPPED["conjugates x"][0]):
        json.loads(explain_conv(wrapper(change), dtype="complex128").to_json())


def test_a_right_convolution_takes_few_calls():
    calls = []

    def counted(*arguments):
        calls.append(arguments[0].shape)
        return Conv().forward(*arguments)

    assert explain_conv(counted).parts["forward"].is_right
    assert len(calls) < 150


@pytest.mark.parametrize(
    "name", ["kernel flipped everywhere", "pads with ones", "batch and channels of g mixed by a reshape"]
)
def test_a_wrong_convolution_takes_few_calls(name):
    wrong = next(mutant for mutant in CATALOGUE if mutant.name == name).make()
    with Caller(600.0) as call:
        found = explain(
            call, wrong.forward, wrong.backward, standard_problem(2, SUPPORTS), "float32", SUPPORTS, calls=600
        )
    assert not any("calls" in part.text for part in found.parts.values()), found.text


def test_a_product_of_sums_takes_few_calls():
    class Summed(Conv):
        def grad_weight(self, g, x, *more):
            return super().grad_weight(g.sum(0, keepdims=True), x.sum(0, keepdims=True), *more)

    wrong = Summed()
    with Caller(600.0) as call:
        found = explain(call, wrong.forward, wrong.backward, standard_problem(2, SUPPORTS), "float32", SUPPORTS,
                        parts=["grad_weight"], calls=600)  # fmt: skip
    assert found.parts["grad_weight"].samples == "all"


# --- The catalogue ---------------------------------------------------------------------------------------------------

PAGE = make_explanations.PAGE.read_text(encoding="utf-8")


@pytest.mark.thinned(45)
@pytest.mark.parametrize("mutant", CATALOGUE, ids=lambda mutant: mutant.name)
def test_catalogued_mistakes_are_explained_as_the_page_says(mutant):
    assert str(make_explanations.row(mutant)) in PAGE.splitlines(), "run python docs/make_explanations.py"


def test_the_page_of_explanations_is_complete():
    rows = [
        make_explanations.Row(*(cell.replace("\\|", "|") for cell in line[2:-2].split(" | ")))
        for line in PAGE.splitlines()
        if line.startswith("| ") and not line.startswith("| mistake")
    ]
    assert [row.name for row in rows] == [mutant.name for mutant in CATALOGUE]
    assert make_explanations.page(rows) == PAGE


def test_mistakes_that_a_table_of_products_cannot_show_are_of_few_families():
    right = [line for line in PAGE.splitlines() if make_explanations.RIGHT in line]
    names = {mutant.name: mutant.family for mutant in CATALOGUE}
    families = [names[line[2:].partition(" | ")[0]] for line in right]
    assert len(families) < 20
    assert set(families) <= {"memory", "precision", "interface", "layout", "dilation"}


def test_causal_padding_is_read_out():
    """If no other padding is supported, causal padding is used; padding after the input is seen."""
    words = ("bias", "stride", "dilation", "causal")
    assert standard_problem(1, words).padding == "causal"
    assert not isinstance(standard_problem(1, (*words, "padding")).padding, str)
    late = next(mutant for mutant in CATALOGUE if mutant.name == "causal padding put after").make()
    for implementation, text in ((Conv(), None), (late, "the padding before is ignored")):
        part = explain_conv(implementation.forward, spatial_dims=1, supports=words).parts["forward"]
        assert part.is_right == (text is None)
        assert text is None or text in part.text


def test_a_factor_that_another_problem_does_not_show_is_one_of_this_problem():
    """Outputs from the second on are doubled; in the explained problem, the first output reads only padding."""

    def forward(x, weight, bias, stride, padding, dilation, groups):
        y = Conv().forward(x, weight, None, stride, padding, dilation, groups)
        y[:, :, 1:] *= 2
        return y if bias is None else y + bias[:, None]

    padded = small((6,), (1,), (2,), 2)
    text = explained_on(padded, forward, None).parts["forward"].text
    assert "On this problem, every product is added twice." in text
