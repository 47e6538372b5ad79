"""The convolution problems of the test vectors, each with its purpose."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from refconv.integers import padding_pairs, per_axis
from refconv.testing.oracles.problems import Problem, Results
from refconv.testing.regimes import axes_of

RESULTS = Results._fields

NOTES: dict[str, dict[str, Any]] = {
    "remainder": {
        "description": "The stride leaves elements over: floor in the output size, and a gradient of zero there.",
        "seen_in": [],
    },
    "stride": {
        "description": "Stride above 1. Most often forgotten in the gradients.",
        "seen_in": ["rocm-libraries#7732"],
    },
    "dilation": {
        "description": "Dilation above 1. Most often forgotten in the gradients, which agree at dilation 1.",
        "seen_in": ["cutlass#3502"],
    },
    "unequal_axes": {"description": "The axes differ in size, kernel, stride, padding or dilation.", "seen_in": []},
    "padding": {"description": "Zeros around the input; for a transposed convolution, a crop.", "seen_in": []},
    "asymmetric_padding": {"description": "Padding before and after differ.", "seen_in": []},
    "causal": {"description": 'Padding given as "causal": no output reads a later input.', "seen_in": []},
    "same": {"description": 'Padding given as "same" or "same_lower".', "seen_in": []},
    "padding_mode": {"description": "Padding repeats elements of x, so their gradients are summed.", "seen_in": []},
    "padding_beyond": {
        "description": "More padding than x has elements: its mode extends it to infinity.",
        "seen_in": [],
    },
    "output_padding": {
        "description": "A longer output, into which kernels still write: it does not append zeros.",
        "seen_in": ["tvm#19524"],
    },
    "groups": {
        "description": "More than one group of channels.",
        "seen_in": ["pytorch#51430", "onnx#8446"],
    },
    "depthwise": {"description": "Each input channel is a group.", "seen_in": []},
    "unequal_channels": {"description": "K != C, which reveals exchanged channel axes.", "seen_in": []},
    "batch": {"description": "More than one sample.", "seen_in": []},
    "no_bias": {"description": "There is no bias; grad_bias is still the sum of grad_output.", "seen_in": []},
    "grouped_bias": {"description": "A bias in more than one group must be sliced.", "seen_in": ["rten#1408"]},
    "empty": {"description": "No samples. The result has the right shape and no elements.", "seen_in": []},
    "non_finite": {
        "description": "NaN or infinity in x; forward only. It reaches the outputs that read it, and no others.",
        "seen_in": [],
    },
    "large": {"description": "Larger than a usual tile of a kernel, and not a multiple of it.", "seen_in": []},
    "long_sum": {"description": "At least 256 terms in one sum, which reveals narrow accumulators.", "seen_in": []},
    "wide_output": {
        "description": "The output has a wider type than the operands: sums neither wrap nor are rounded. Output only.",
        "seen_in": [],
    },
    "derivatives": {"description": "With the forward-mode derivative and the double backward.", "seen_in": []},
    "real": {"description": "Real values, compared within bounds, which reveals narrow operands.", "seen_in": []},
}
"""Meanings of the flags, and issues that report errors in such problems."""


@dataclass(frozen=True)
class Entry:
    """A problem of the collection: its purpose, and the values of its arrays.

    With ``derivatives`` it has a direction and the derivatives along it. ``fill`` is "whole", "ones", "bytes" (all of
    int8 or uint8), "real" (−2 … 2), "positive" (1 … 2), "constant" or "cancelling"; ``spots`` puts values that
    are not finite into x.
    """

    name: str
    comment: str
    problem: Problem
    dtype: str = "float32"
    fill: str = "whole"
    spots: tuple[tuple[tuple[int, ...], float], ...] = ()
    output_dtype: str | None = None
    derivatives: bool = False

    @property
    def id(self) -> str:
        """Unique name."""
        operation = "convtranspose" if self.problem.transposed else "conv"
        return f"{operation}{self.problem.spatial_dims}d-{self.name}-{self.dtype}"

    @property
    def kind(self) -> str:
        """How results are compared."""
        return "exact" if self.fill in ("whole", "ones", "bytes") else "bounded"

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the results."""
        return RESULTS[:1] if self.spots or self.output_dtype else RESULTS


def _p(
    size: Sequence[int], kernel: Sequence[int], c_in: int = 1, c_out: int = 1, batch: int = 1, **given: Any
) -> Problem:
    """Describe a problem; a single number applies to all axes, and a single padding to both ends."""
    d = len(size)

    def axes(name: str, default: int) -> tuple[int, ...]:
        return per_axis(given.pop(name, default), name, d)

    transposed = given.get("transposed", False)
    return Problem(
        batch=batch,
        c_in=c_in,
        c_out=c_out,
        size=tuple(size),
        kernel=tuple(kernel),
        stride=axes("stride", 1),
        dilation=axes("dilation", 1),
        padding=padding_pairs(given.pop("padding", 0), d),
        output_padding=axes("output_padding", 0) if transposed else (),
        **given,
    )


def entries() -> list[Entry]:
    """Return every problem of the collection, in the manifest's order.

    >>> [entry.id for entry in entries()][:2]
    ['conv1d-smallest-float32', 'conv1d-two-taps-float32']
    """
    found = [*_conv1d(), *_conv2d(), *_conv3d(), *_transposed(), *_dtypes(), *_bounded(), *_non_finite()]
    found += [*_modes(), *_words(), *_wide(), *_derivatives()]
    assert len({entry.id for entry in found}) == len(found)
    return found


def _conv1d() -> Iterator[Entry]:
    def one(name: str, comment: str, size: int, kernel: int, *channels: int, **given: Any) -> Entry:
        return Entry(name, comment, _p((size,), (kernel,), *channels, **given))

    yield one("smallest", "One number in each array: y = w·x + b.", 1, 1)
    yield one("two-taps", "The smallest problem that shows a flipped kernel.", 2, 2)
    yield one("overlap", "Windows overlap, so gradients must be added, not assigned.", 4, 3)
    yield one(
        "remainder", "The stride skips the last element: floor, not ceil, and a gradient of zero there.", 6, 3,
        stride=2
    )  # fmt: skip
    yield one("gaps", "A stride longer than the kernel leaves gaps whose gradient is zero.", 8, 2, stride=3)
    yield one("padding", "The input is padded at both ends.", 3, 2, padding=1)
    yield one("padding-unequal", "More padding before than after.", 4, 3, padding=((2, 1),))
    yield one("padding-wide", "Some windows contain only padding.", 2, 2, padding=3)
    yield one("dilation", "Taps are three elements apart.", 8, 3, dilation=3)
    yield one("groups", "Two groups with K ≠ C and several channels on both sides.", 4, 2, 4, 6, 2, groups=2)
    yield one("depthwise", "Each channel is a group with two outputs.", 4, 2, 3, 6, 2, groups=3)
    yield one(
        "everything", "Groups, stride, dilation and unequal padding together.", 11, 3, 4, 6, 2, groups=2, stride=2,
        dilation=3, padding=((2, 1),)
    )  # fmt: skip
    yield one("empty", "A batch of no samples.", 5, 2, 2, 3, 0)
    yield one("large", "37 positions: two tiles of 16 and a remainder.", 39, 3, 2, 3, 2)


def _conv2d() -> Iterator[Entry]:
    def two(name: str, comment: str, size: Any, kernel: Any, *channels: int, **given: Any) -> Entry:
        return Entry(name, comment, _p(size, kernel, *channels, **given))

    yield two("smallest", "One number in each array: y = w·x + b.", (1, 1), (1, 1))
    yield two("no-bias", "One number in each array, and no bias.", (1, 1), (1, 1), bias=False)
    yield two("samples", "Two samples of one number: sums over the batch.", (1, 1), (1, 1), 1, 1, 2)
    yield two("channels", "A 1×1 kernel is a matrix product, with K ≠ C.", (1, 1), (1, 1), 3, 2)
    yield two(
        "channels-batch", "A matrix product for each sample, with N, C and K all different.", (2, 3), (1, 1), 4, 2, 3
    )  # fmt: skip
    yield two("wide-kernel", "A kernel of one row.", (2, 4), (1, 3))
    yield two("tall-kernel", "A kernel of one column.", (4, 2), (3, 1))
    yield two("plain", "All sizes larger than one, and unequal.", (5, 6), (3, 2), 2, 3, 2)
    yield two(
        "square", "Kernel and image are square and K = C = N: equal sizes hide exchanged axes from a shape check.",
        (4, 4), (2, 2), 2, 2, 2
    )  # fmt: skip
    yield two(
        "width-is-channels", "The output is as wide as it has channels, so a bias added along the width fits.", (3, 4),
        (2, 2), 2, 3, 2
    )  # fmt: skip
    yield two("whole-image", "The kernel is as large as the image: one output position.", (3, 4), (3, 4), 2, 3, 2)
    yield two("stride", "Overlapping windows two apart.", (7, 7), (3, 3), 2, 2, stride=2)
    yield two("stride-rectangular", "A different stride on each axis.", (7, 8), (2, 3), 1, 2, 2, stride=(2, 1))
    yield two(
        "stride-remainder", "Both strides leave elements at the end that no window reads.", (8, 10), (3, 2), 2, 3,
        stride=(2, 3)
    )  # fmt: skip
    yield two("stride-gaps", "A 1×1 kernel with stride 2 reads every other element.", (4, 5), (1, 1), 2, 3, 2, stride=2)
    yield two(
        "stride-one-position", "The stride skips the second element: one position, not two.", (2, 2), (1, 1),
        stride=2
    )  # fmt: skip
    yield two("padding", "Enough padding on each side to keep the size.", (4, 5), (3, 3), 2, 2, padding=1)
    yield two(
        "padding-rectangular", "A different padding on each axis, 0 on the first: [p:-p] is empty.", (4, 5), (2, 3),
        2, 3, padding=(0, 2)
    )  # fmt: skip
    yield two("padding-only", "All windows but one contain only padding.", (1, 1), (1, 1), padding=1)
    yield two("padding-wide", "The padding is wider than the kernel.", (2, 3), (2, 2), 1, 2, padding=(3, 2))
    yield two("padding-before", "Padding before only.", (3, 3), (2, 2), padding=((1, 0), (2, 0)))
    yield two("padding-after", "Padding after only.", (3, 3), (2, 2), padding=((0, 1), (0, 2)))
    yield two("padding-unequal", "Four different paddings.", (4, 5), (3, 3), 2, 3, 2, padding=((0, 1), (3, 2)))
    yield two("dilation", "A dilated kernel.", (5, 6), (2, 3), 2, 3, dilation=2)
    yield two("dilation-rectangular", "A different dilation on each axis.", (7, 5), (3, 2), 2, 2, 2, dilation=(3, 1))
    yield two(
        "dilation-padding", "The dilated kernel reads the one element with its middle tap only.", (1, 1), (3, 3),
        dilation=2, padding=2
    )  # fmt: skip
    yield two("dilation-one-tap", "Dilation has no effect on a kernel of one tap.", (3, 3), (1, 1), dilation=3)
    yield two(
        "stride-dilation", "Stride and dilation differ, and so do the axes.", (10, 11), (2, 3), 2, 2, stride=(3, 2),
        dilation=(2, 3)
    )  # fmt: skip
    yield two(
        "groups-smallest", "Two groups of one channel, two outputs each: K = G would hide an interleaving.", (1, 1),
        (1, 1), 2, 4, groups=2
    )  # fmt: skip
    yield two("groups", "Two groups, each with two channels on both sides.", (3, 4), (2, 2), 4, 4, 2, groups=2)
    yield two(
        "groups-unequal", "Three groups that read one channel and write two, without a bias.", (3, 3), (2, 2), 3, 6, 2,
        groups=3, bias=False
    )  # fmt: skip
    yield two(
        "groups-narrowing", "Two groups that read three channels and write one.", (3, 3), (2, 2), 6, 2, 2, groups=2
    )  # fmt: skip
    yield two("depthwise", "Each channel is a group.", (4, 4), (3, 3), 4, 4, 2, groups=4, padding=1)
    yield two(
        "depthwise-multiplier", "Each channel is a group with three outputs.", (4, 3), (2, 3), 3, 9, 2, groups=3
    )  # fmt: skip
    yield two(
        "depthwise-strided", "A strided depthwise convolution; released libraries had its input gradient wrong.",
        (7, 7), (3, 3), 3, 3, 2, groups=3, stride=2, padding=1
    )  # fmt: skip
    yield two(
        "groups-strided", "Groups and stride: most published bugs are in this backward pass.", (6, 7), (3, 2), 4, 6, 2,
        groups=2, stride=2
    )  # fmt: skip
    yield two("groups-dilated", "Groups and dilation.", (5, 6), (2, 2), 4, 6, 2, groups=2, dilation=2)
    yield two(
        "everything", "Groups, stride, dilation and unequal padding together, with different numbers on each axis.",
        (9, 11), (3, 2), 4, 6, 3, groups=2, stride=(2, 3), dilation=(2, 4), padding=((1, 2), (3, 0))
    )  # fmt: skip
    yield two(
        "everything-no-bias", "Groups, stride, dilation and padding together, no bias.", (8, 7), (2, 3), 6, 3, 2,
        groups=3, stride=(3, 2), dilation=(1, 2), padding=(1, 2), bias=False
    )  # fmt: skip
    yield two(
        "empty", "A batch of no samples: the result has the output's shape, not the input's.", (4, 5), (3, 2), 2, 3, 0
    )  # fmt: skip
    yield two(
        "empty-groups", "No samples, with groups and stride: gradients of the weight are zeros.", (4, 5), (2, 2), 2, 4,
        0, groups=2, stride=2
    )  # fmt: skip
    yield two("large", "19 × 35 positions: more than a tile of 16, and not a multiple.", (20, 37), (2, 3), 2, 3, 2)
    yield two(
        "large-everything", "Larger than a tile, with groups, stride and padding.", (35, 37), (3, 3), 4, 2, 1,
        groups=2, stride=(2, 1), padding=1
    )  # fmt: skip
    yield two("long-sum", "Sums of 576 terms, exact in any order.", (4, 4), (3, 3), 64, 1, padding=1)


def _conv3d() -> Iterator[Entry]:
    def three(name: str, comment: str, size: Any, kernel: Any, *channels: int, **given: Any) -> Entry:
        return Entry(name, comment, _p(size, kernel, *channels, **given))

    yield three("smallest", "One number in each array.", (1, 1, 1), (1, 1, 1))
    yield three("plain", "Unequal sizes.", (3, 4, 5), (2, 3, 1), 2, 3, 2)
    yield three(
        "stride-padding", "Different stride and padding on each axis.", (4, 5, 3), (2, 3, 2), 2, 2, stride=(1, 2, 3),
        padding=(1, 0, 2)
    )  # fmt: skip
    yield three("dilation", "A different dilation on each axis.", (4, 5, 4), (2, 2, 2), 1, 2, 2, dilation=(3, 1, 2))
    yield three("depthwise", "Each channel is a group, padded.", (3, 3, 3), (2, 2, 2), 3, 3, 1, groups=3, padding=1)
    yield three(
        "everything", "Groups, stride, dilation, unequal padding together.", (5, 6, 4), (2, 3, 2), 4, 6, 2, groups=2,
        stride=(2, 1, 3), dilation=(1, 2, 3), padding=((1, 0), (0, 2), (2, 1))
    )  # fmt: skip
    yield three("empty", "A batch of no samples.", (3, 3, 3), (2, 2, 2), 2, 3, 0)


def _transposed() -> Iterator[Entry]:
    def entry(name: str, comment: str, size: Any, kernel: Any, *channels: int, **given: Any) -> Entry:
        return Entry(name, comment, _p(size, kernel, *channels, **given, transposed=True))

    yield entry("smallest", "One number in each array.", (1,), (1,))
    yield entry("two-taps", "One input lays down one kernel, not flipped.", (1,), (2,))
    yield entry("overlap", "Kernels overlap and are added; the bias is added once.", (3,), (3,), stride=2)
    yield entry("gaps", "Between kernels shorter than the stride the output is the bias.", (3,), (2,), stride=3)
    yield entry(
        "output-padding", "Output padding adds an element that a kernel reaches.", (3,), (3,), stride=2, padding=1,
        output_padding=1
    )  # fmt: skip
    yield entry(
        "everything", "Groups, stride, dilation, unequal padding, output padding together.", (4,), (3,), 4, 6, 2,
        groups=2, stride=3, dilation=2, padding=((2, 1),), output_padding=2
    )  # fmt: skip
    yield entry("smallest", "One number in each array.", (1, 1), (1, 1))
    yield entry("no-bias", "Unequal sizes, and no bias.", (2, 3), (3, 2), 2, 3, 2, bias=False)
    yield entry("plain", "Unequal sizes.", (3, 4), (2, 3), 3, 2, 2)
    yield entry("channels", "A matrix product; the weight is (C, K).", (1, 1), (1, 1), 3, 2)
    yield entry("square", "K = C = N and a square kernel: equal sizes hide exchanged axes.", (3, 3), (2, 2), 2, 2, 2)
    yield entry("stride", "Overlapping kernels two apart.", (3, 4), (3, 3), 2, 3, 1, stride=2)
    yield entry(
        "stride-rectangular", "A different stride on each axis; gaps on the second.", (3, 3), (2, 2), 1, 2, 2,
        stride=(1, 3)
    )  # fmt: skip
    yield entry("padding", "Padding crops the output.", (3, 4), (3, 3), 2, 3, 1, padding=1)
    yield entry(
        "padding-rectangular", "A different crop on each axis, with stride.", (3, 3), (3, 4), 1, 2, 1, stride=2,
        padding=(0, 1)
    )  # fmt: skip
    yield entry("padding-unequal", "Four different crops.", (4, 4), (3, 4), 2, 2, 1, stride=2, padding=((0, 1), (2, 1)))
    yield entry(
        "output-padding", "Different output padding on each axis.", (3, 3), (3, 3), 2, 3, 1, stride=(2, 3), padding=1,
        output_padding=(1, 2)
    )  # fmt: skip
    yield entry(
        "output-padding-crop", "The crop is longer than the output padding: kernels still write into the added row.",
        (2, 3), (4, 4), 1, 1, 1, stride=2, padding=2, output_padding=1
    )  # fmt: skip
    yield entry(
        "output-padding-dilation",
        "More output padding than the stride: no kernel reaches the added rows, which contain only the bias.",
        (2, 2), (2, 2), 1, 2, 1, dilation=3, output_padding=2
    )  # fmt: skip
    yield entry("dilation", "Dilated kernels.", (3, 3), (2, 3), 2, 2, 1, dilation=(2, 3))
    yield entry(
        "stride-dilation", "Stride and dilation differ.", (3, 4), (2, 3), 2, 2, 1, stride=(3, 2), dilation=(2, 3)
    )  # fmt: skip
    yield entry(
        "groups", "Two groups with two outputs each: the ONNX reference wrote only the first of each.",
        (2, 3), (2, 2), 4, 4, 2, groups=2
    )  # fmt: skip
    yield entry(
        "groups-unequal", "Two groups that read three channels and write one each.", (2, 2), (2, 2), 6, 2, 1, groups=2
    )  # fmt: skip
    yield entry(
        "groups-widening", "Two groups that read one channel and write three each.", (2, 2), (2, 2), 2, 6, 1, groups=2
    )  # fmt: skip
    yield entry(
        "depthwise", "Each channel is a group: upsampling.", (3, 3), (4, 4), 3, 3, 2, groups=3, stride=2, padding=1
    )  # fmt: skip
    yield entry(
        "everything", "Groups, stride, dilation, unequal padding, output padding together.", (3, 4), (3, 2), 4, 6, 2,
        groups=2, stride=(2, 3), dilation=(3, 2), padding=((1, 2), (3, 0)), output_padding=(1, 2)
    )  # fmt: skip
    yield entry("empty", "A batch of no samples.", (3, 4), (2, 2), 2, 3, 0, stride=2)
    yield entry("large", "More than a tile of 16, with stride.", (9, 19), (3, 3), 2, 2, 1, stride=2, padding=1)
    yield entry("plain", "Unequal sizes.", (2, 3, 2), (2, 1, 3), 2, 3, 2)
    yield entry(
        "everything", "Groups, stride, dilation, unequal padding, output padding together.", (2, 3, 2), (2, 2, 3), 4,
        2, 2, groups=2, stride=(2, 1, 3), dilation=(1, 2, 2), padding=((1, 0), (0, 1), (1, 2)),
        output_padding=(1, 1, 0)
    )  # fmt: skip


def _dtypes() -> Iterator[Entry]:
    """Yield whole numbers in the other data types."""
    everything = _p((9, 8), (3, 2), 4, 6, 2, groups=2, stride=(2, 3), dilation=(2, 1), padding=((1, 2), (0, 2)))
    upwards = _p(
        (3, 2),
        (3, 2),
        4,
        6,
        2,
        groups=2,
        stride=(2, 3),
        dilation=(1, 2),
        padding=((1, 0), (1, 1)),
        output_padding=(1, 2),
        transposed=True,
    )
    for dtype in ("float64", "float16"):
        yield Entry("plain", f"Unequal sizes, in {dtype}.", _p((4, 5), (3, 2), 2, 3, 2), dtype)
        yield Entry(
            "everything", f"Groups, stride, dilation and unequal padding together, in {dtype}.", everything, dtype
        )  # fmt: skip
        yield Entry("everything", f"A transposed convolution with all options, in {dtype}.", upwards, dtype)
        yield Entry(
            "depthwise", f"A strided depthwise convolution in one dimension, in {dtype}.",
            _p((9,), (3,), 3, 3, 2, groups=3, stride=2, padding=1), dtype
        )  # fmt: skip
    yield Entry(
        "ones", "The weight's gradient sums 4096 ones; 2048 + 1 is 2048 in float16, so sums need float32.",
        _p((64, 64), (1, 1), bias=False), "float16", "ones"
    )  # fmt: skip


def _bounded() -> Iterator[Entry]:
    """Yield real values, whose results have rounding errors."""
    grouped = _p((7, 8), (3, 2), 4, 6, 2, groups=2, stride=(2, 1), dilation=(1, 2), padding=((1, 0), (2, 1)))
    upwards = _p((3, 4), (3, 3), 4, 6, 2, groups=2, stride=2, padding=1, output_padding=1, transposed=True)
    for dtype in ("float32", "float64", "float16"):
        yield Entry("real-smallest", "One product and a bias: the tightest bound.", _p((1, 1), (1, 1)), dtype, "real")
        yield Entry("real-plain", "Unequal sizes.", _p((5, 6), (3, 3), 3, 4, 2, padding=1), dtype, "real")
        yield Entry("real-everything", "Groups, stride, dilation, unequal padding together.", grouped, dtype, "real")
        yield Entry(
            "real-everything", "A transposed convolution with groups, stride and output padding.", upwards, dtype,
            "real"
        )  # fmt: skip
        yield Entry(
            "real-line", "One dimension, 64 taps: float16 sums would be rounded 64 times.", _p((80,), (64,), 4, 1),
            dtype, "positive"
        )  # fmt: skip
    yield Entry("real-volume", "Three dimensions.", _p((4, 4, 3), (2, 3, 2), 2, 3, 2, padding=1), "float32", "real")
    yield Entry(
        "real-volume", "Three dimensions, transposed.", _p((2, 3, 2), (2, 2, 3), 2, 3, 1, stride=2, transposed=True),
        "float32", "real"
    )  # fmt: skip
    yield Entry(
        "real-long-sum", "Sums of 512 positive terms, whose errors grow if they are added in order.",
        _p((2, 2), (1, 1), 512, 1), "float32", "positive"
    )  # fmt: skip
    yield Entry(
        "real-constant", "Equal terms: every addition in order rounds the same way.",
        _p((3, 3), (3, 3), 29, 1, padding=1), "float32", "constant"
    )  # fmt: skip
    yield Entry(
        "real-cancelling", "Terms that nearly cancel: errors are large relative to the result, not to the bound.",
        _p((4, 4), (3, 3), 8, 2, padding=1), "float32", "cancelling"
    )  # fmt: skip


def _non_finite() -> Iterator[Entry]:
    nan, inf = math.nan, math.inf
    dilated = _p((5, 5), (2, 2), 2, 2, 1, dilation=2)
    yield Entry(
        "nan", "A NaN reaches only the outputs of its sample whose windows read it.", _p((4, 5), (2, 3), 2, 3, 2),
        spots=(((1, 0, 1, 2), nan),)
    )  # fmt: skip
    yield Entry(
        "nan-between-taps", "A dilated kernel does not read between its taps: a kernel inflated with zeros does.",
        dilated, spots=(((0, 1, 2, 2), nan),)
    )  # fmt: skip
    yield Entry(
        "inf-between-taps", "0·∞ is NaN, so ∞ reveals an inflated kernel as well.", dilated,
        spots=(((0, 0, 1, 3), inf),)
    )  # fmt: skip
    yield Entry("inf", "∞ keeps the sign of its weight.", _p((3, 4), (2, 2), 1, 3), spots=(((0, 0, 1, 1), inf),))
    yield Entry(
        "minus-inf", "−∞ changes its sign with a negative weight.", _p((3, 4), (2, 2), 2, 2, padding=1),
        spots=(((0, 1, 0, 3), -inf),)
    )  # fmt: skip
    yield Entry(
        "inf-minus-inf", "Where ∞ and −∞ meet in one sum, the result is NaN.", _p((1, 6), (1, 3)),
        fill="ones", spots=(((0, 0, 0, 0), inf), ((0, 0, 0, 2), -inf))
    )  # fmt: skip
    yield Entry(
        "nan-unread", "A NaN that the stride skips reaches no output.", _p((4, 4), (1, 1), 1, 2, stride=2),
        spots=(((0, 0, 3, 3), nan),)
    )  # fmt: skip
    yield Entry(
        "nan-groups", "A NaN stays in its group.", _p((3, 3), (2, 2), 4, 4, 1, groups=2, padding=1),
        spots=(((0, 2, 0, 0), nan),)
    )  # fmt: skip
    yield Entry(
        "nan", "A NaN reaches the outputs under its kernel, and not the gaps between dilated taps.",
        _p((3, 3), (2, 2), 2, 2, 1, stride=2, dilation=3, transposed=True), spots=(((0, 1, 1, 1), nan),)
    )  # fmt: skip
    for dtype in ("float64", "float16"):
        yield Entry("inf", f"∞ in {dtype}.", _p((5,), (2,), 2, 2, dilation=2), dtype, spots=(((0, 1, 2), inf),))


def _modes() -> Iterator[Entry]:
    """Yield padding that repeats elements, with fewer and with more elements than the input."""
    for mode, border in (
        ("reflect", "mirrors the input without repeating the edge"),
        ("replicate", "repeats the edge"),
        ("circular", "continues at the other end"),
    ):
        given: dict[str, Any] = {"padding_mode": mode}
        yield Entry(mode, f"The border {border}.", _p((3, 4), (2, 2), 2, 3, 2, padding=((1, 2), (0, 1)), **given))
        yield Entry(
            f"{mode}-beyond", "More padding than the input has elements, on both sides.",
            _p((3,), (2,), 2, 3, 2, padding=((8, 5),), **given)
        )  # fmt: skip
        yield Entry(f"{mode}-one", "The border can only repeat the single element.", _p((1,), (2,), padding=2, **given))
        yield Entry(
            f"{mode}-everything", "Padding beyond the input, with groups, stride and dilation.",
            _p((2, 5), (3, 2), 4, 6, 2, groups=2, stride=(2, 3), dilation=(1, 2), padding=((4, 3), (6, 7)), **given)
        )  # fmt: skip


def _words() -> Iterator[Entry]:
    """Yield paddings given as strings, and output sizes requested of a transposed convolution."""
    yield Entry("causal", "Two zeros before, none after.", _p((4,), (3,), padding="causal"))
    yield Entry(
        "causal-long", "The kernel spans more than the input.", _p((2,), (3,), 1, 2, padding="causal", dilation=4)
    )
    yield Entry(
        "causal-everything", "Causal, with groups, stride and dilation.",
        _p((8,), (3,), 4, 6, 2, groups=2, stride=2, dilation=2, padding="causal")
    )  # fmt: skip
    for word, end in (("same", "end"), ("same_lower", "start")):
        name = word.replace("_", "-")
        yield Entry(
            name, f"As many outputs as inputs divided by the stride; the odd zero is at the {end}.",
            _p((5, 7), (4, 3), 2, 3, 1, stride=(1, 2), padding=word)
        )  # fmt: skip
        yield Entry(
            name, f"As many outputs as inputs times the stride; the odd element is cropped at the {end}.",
            _p((3, 2), (3, 4), 2, 3, 2, stride=2, padding=word, transposed=True)
        )  # fmt: skip
        yield Entry(
            f"{name}-shorter", "One output fewer than inputs times the stride: the size is given as well.",
            _p((3,), (3,), 2, 3, 1, stride=2, padding=word, wanted_size=(5,), transposed=True)
        )  # fmt: skip


def _wide() -> Iterator[Entry]:
    """Yield outputs of a wider type than the operands."""
    plain, grouped = _p((4, 5), (3, 2), 2, 3, 2), _p((7,), (3,), 4, 6, 2, groups=2, stride=2, padding=((2, 1),))
    upwards = _p((3,), (3,), 4, 6, 2, groups=2, stride=2, padding=1, output_padding=1, transposed=True)
    for dtype in ("int8", "uint8"):
        for name, problem in (("wide", plain), ("wide-everything", grouped), ("wide-everything", upwards)):
            yield Entry(name, f"{dtype} operands, int32 sums.", problem, dtype, "bytes", output_dtype="int32")
    yield Entry(
        "wide", "4,096 ones and a bias: float32 represents the sum and all partial sums, float16 rounds to 4,096.",
        _p((1,), (1,), 4096, 1), "float16", "ones", output_dtype="float32"
    )  # fmt: skip


def _derivatives() -> Iterator[Entry]:
    """Yield problems with the derivatives of their passes."""
    grouped = _p((5, 4), (2, 3), 4, 6, 2, groups=2, stride=(2, 1), dilation=(1, 2), padding=((1, 0), (2, 1)))
    reflected = _p((3,), (2,), 2, 3, 2, padding=((4, 2),), padding_mode="reflect", bias=False)
    upwards = _p((3, 2), (2, 3), 4, 6, 1, groups=2, stride=(2, 1), padding=(0, 1), transposed=True)
    named = (("smallest", _p((1,), (1,))), ("everything", grouped), ("reflect", reflected), ("everything", upwards))
    for name, problem in named:
        yield Entry(
            f"derivatives-{name}",
            "The forward-mode derivative and double backward.",
            problem,
            derivatives=True,
        )


def flags_of(entry: Entry) -> list[str]:
    """Return the flags of a problem, which follow from its numbers."""
    p = entry.problem
    axes = list(zip(p.size, p.kernel, p.stride, p.dilation, p.pairs, strict=True))
    rest = [(n + b + a - d * (k - 1) - 1) % s for n, k, s, d, (b, a) in axes]
    terms = p.c_in // len(p.lists) * math.prod(p.kernel)
    true = {
        "remainder": not p.transposed and any(rest),
        "stride": max(p.stride) > 1,
        "dilation": any(d > 1 and k > 1 for _, k, _, d, _ in axes),
        "unequal_axes": len(set(axes)) > 1,
        "padding": any(map(any, p.pairs)),
        "asymmetric_padding": any(b != a for b, a in p.pairs),
        "causal": p.padding == "causal",
        "same": p.padding in ("same", "same_lower"),
        "padding_mode": p.padding_mode != "zeros",
        "padding_beyond": p.padding_mode != "zeros" and any(max(pair) > n for n, *_, pair in axes),
        "output_padding": any(axis.rest for axis in axes_of(p)) if p.transposed else False,
        "groups": p.groups != 1,
        "depthwise": p.groups == p.c_in > 1,
        "unequal_channels": p.c_in != p.c_out,
        "batch": (p.batch or 0) > 1,
        "no_bias": not p.bias,
        "grouped_bias": p.bias and p.groups != 1,
        "empty": p.batch == 0,
        "non_finite": bool(entry.spots),
        "large": p.output_size[-1] > 16,
        "long_sum": terms >= 256,
        "wide_output": entry.output_dtype is not None,
        "derivatives": entry.derivatives,
        "real": entry.kind == "bounded",
    }
    assert true.keys() == NOTES.keys()
    return [flag for flag, value in true.items() if value]
