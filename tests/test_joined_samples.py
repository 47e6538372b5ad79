"""Products of several samples at once: equal to the definition, whatever the columns, and cut by shape alone."""

from __future__ import annotations

import sys
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings

import refconv
from refconv import ChannelGroups, rowwise
from refconv.shapes import describe
from refconv.testing.definition import definition_conv
from refconv.testing.problems import definition_results
from refconv.testing.strategies import ConvProblem, conv_problems
from tests.helpers import assert_results, cut_into, load, run

CONV = sys.modules["refconv.conv"]  # the module; refconv.conv is its function


@pytest.fixture(params=[True, False], ids=["rows", "copies"])
def joined(request: Any) -> Any:
    """Join the samples of every call, beside both kinds of columns."""
    with (
        mock.patch.object(CONV, "_joins_samples", return_value=True),
        mock.patch.object(rowwise, "is_faster_for_images", return_value=request.param),
    ):
        yield


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("tile", [1, 1 << 12, 1 << 20])
def test_equals_the_definition(joined: None, transposed: bool, tile: int) -> None:
    numpy = load("numpy")

    @settings(max_examples=150)
    @given(conv_problems(transposed=transposed))
    def check(case: ConvProblem) -> None:
        with cut_into(tile):
            assert_results(numpy, run(numpy, *case), definition_results(*case))

    check()


@pytest.mark.parametrize("dtype", ["float16", "float32", "complex128", "int16"])
def test_several_samples_are_one_product(dtype: str) -> None:
    """Of all five, for groups of channels in any order that share some."""
    rng, made = np.random.default_rng(0), []
    x = rng.integers(-3, 4, (5, 40, 7, 9)).astype(dtype)
    groups = ChannelGroups([[*range(20, 40)], [*range(25, 5, -1)]], [[*range(1, 60, 2)], [*range(0, 60, 2)]])
    weight = [rng.integers(-3, 4, shape).astype(dtype) for shape in groups.weight_shapes((3, 5))]
    bias = rng.integers(-3, 4, 60).astype(dtype)
    options: dict[str, Any] = {"padding": (1, 2), "groups": groups}
    assert CONV._joins_samples(
        describe(x.shape, [w.shape for w in weight], stride=1, dilation=1, channels_last=False, **options)
    )
    real = np.matmul

    def matmul(a: Any, b: Any, **keywords: Any) -> Any:
        made.append(b.shape[-1])
        return real(a, b, **keywords)

    with mock.patch.object(np, "matmul", matmul):
        y = refconv.conv(x, weight, bias, **options)
    assert set(made) == {5 * 7 * 9}
    expected = np.zeros_like(y) + bias[:, None, None]
    for inputs, outputs, w in zip(groups.in_channels, groups.out_channels, weight, strict=True):
        expected[:, list(outputs)] += definition_conv(x[:, list(inputs)], w, padding=(1, 2))
    np.testing.assert_array_equal(y, expected)


def shaped(batch: int, size: int, groups: int = 1) -> Any:
    """Return a convolution of 32 channels, of groups with (32 / groups)² · 9 weights each."""
    options: dict[str, Any] = {"stride": 1, "padding": 1, "dilation": 1, "groups": groups, "channels_last": False}
    return describe((batch, 32, size, size), (32, 32 // groups, 3, 3), **options)


@pytest.mark.parametrize(
    ("batch", "size", "groups", "joins"),
    [(2, 20, 1, True), (1, 20, 1, False), (2, 21, 1, False), (2, 20, 2, False)],  # 400, 441 columns; 9216, 2304 weights
)
def test_samples_are_joined_where_columns_are_few_and_weights_many(
    batch: int, size: int, groups: int, joins: bool
) -> None:
    assert CONV._joins_samples(shaped(batch, size, groups)) is joins


def test_the_same_bits_for_any_number_of_workers_and_any_workspace(joined: None) -> None:
    rng = np.random.default_rng(0)
    x, w, b = rng.normal(size=(9, 8, 12, 13)), rng.normal(size=(6, 4, 5, 3)), rng.normal(size=6)
    options: dict[str, Any] = {"padding": (1, 2), "groups": 2}
    found = set()
    with cut_into(1 << 14):
        for workers in (1, 2, 3):
            for workspace in (1, 1 << 16, 1 << 26):
                with refconv.set_workers(workers), refconv.set_workspace(workspace):
                    y = refconv.conv(x, w, b, **options)
                    grads = refconv.conv_backward(y, x, w, **options)
                    found.add(b"".join(a.tobytes() for a in (y, *grads)))
    assert len(found) == 1


def test_an_infinity_stays_in_its_sample(joined: None) -> None:
    x, w = np.ones((3, 2, 6, 5), "f4"), np.ones((4, 2, 3, 3), "f4")
    x[1, 0, 2, 2] = np.inf
    y = refconv.conv(x, w, padding=1)
    assert np.isfinite(y[[0, 2]]).all()
    np.testing.assert_array_equal(np.argwhere(~np.isfinite(y[1, 0])), [(i, j) for i in (1, 2, 3) for j in (1, 2, 3)])
    grads = refconv.conv_backward(y, x, w, padding=1, needs=("x",))
    assert np.isfinite(grads.x[[0, 2]]).all()
    assert np.isfinite(grads.x[1, 0, 5]).all()
