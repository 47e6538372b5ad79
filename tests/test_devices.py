"""Results stay on the device of the operands: on a second device that array-api-strict makes up, no GPU needed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import refconv
from refconv.testing.oracles.problems import PADDING_MODES, Problem, definition_results, integer_arrays
from tests.helpers import Backend, assert_results, cut_into, run

strict: Any = pytest.importorskip("array_api_strict")
SECOND = strict.Device("device1")


class OnSecondDevice(Backend):
    """array-api-strict, which refuses to mix arrays of two devices."""

    def asarray(self, array: Any) -> Any:
        if array is None or isinstance(array, list | tuple):
            return super().asarray(array)
        return strict.asarray(np.array(array), device=SECOND)

    def to_numpy(self, array: Any) -> Any:
        return np.asarray(array.to_device(strict.Device("CPU_DEVICE")))


BACKEND = OnSecondDevice("array_api_strict", strict, type(strict.zeros(1)))
LISTS = (((0, 1, 2), (4, 0)), ((5, 2), (1,)), ((3,), (2, 3)))  # overlapping, in no order


@pytest.mark.parametrize(
    "problem",
    [
        *(Problem(2, 6, 5, (7, 6), (2, 3), (2, 1), (1, 1), ((3, 1), (0, 2)), LISTS, mode) for mode in PADDING_MODES),
        Problem(2, 6, 4, (7, 6), (2, 3), (5, 1), (1, 1), ((3, 0), (0, 0)), 2),
        Problem(2, 6, 5, (4, 6), (2, 3), (5, 1), (1, 2), ((3, 1), (0, 2)), LISTS, "zeros", (0, 0), transposed=True),
        Problem(2, 6, 4, (4, 6), (2, 3), (5, 1), (1, 1), ((3, 0), (0, 0)), 2, "zeros", (0, 0), transposed=True),
    ],
)
@pytest.mark.parametrize("tile", [1, 2**21])
def test_convolutions_stay_on_the_device(problem: Problem, tile: int) -> None:
    operands = integer_arrays(problem, np.random.default_rng(5))
    with cut_into(tile):
        expected = definition_results(problem, operands)
        assert_results(BACKEND, run(BACKEND, problem, operands), expected)
        if not problem.transposed:
            x, weight, _, grad = map(BACKEND.asarray, operands)
            more = problem.options()
            BACKEND.assert_equal(refconv.conv_input_grad(grad, weight, problem.x_shape, **more), expected.grad_x)
            BACKEND.assert_equal(refconv.conv_weight_grad(grad, x, problem.kernel, **more), expected.grad_weight)


@pytest.mark.parametrize("padding", [0, 1])
def test_columns_stay_on_the_device(padding: int) -> None:
    x = np.arange(1.0, 61.0).reshape(1, 3, 4, 5)
    columns = refconv.im2col(x, (2, 3), padding=padding)
    BACKEND.assert_equal(refconv.im2col(BACKEND.asarray(x), (2, 3), padding=padding), columns)
    BACKEND.assert_equal(refconv.im2col(BACKEND.asarray(x[:0]), (2, 3), padding=padding), columns[:0])
    back = refconv.col2im(BACKEND.asarray(columns), x.shape, (2, 3), padding=padding)
    BACKEND.assert_equal(back, refconv.col2im(columns, x.shape, (2, 3), padding=padding))


def test_an_empty_image_stays_on_the_device() -> None:
    back = refconv.col2im(BACKEND.asarray(np.ones((0, 6, 4))), (0, 3, 5), 2)
    BACKEND.assert_equal(back, np.ones((0, 3, 5)))


def test_operands_of_two_devices_are_refused() -> None:
    x, weight = BACKEND.asarray(np.ones((1, 1, 3))), strict.ones((1, 1, 2))
    with pytest.raises(ValueError, match="all operands must be on one device") as caught:
        refconv.conv(x, weight)
    assert str(caught.value) == (
        f"all operands must be on one device, but x is on {x.device} and weight on {weight.device}"
    )
