"""Properties that relate calls: linearity, shifts, groups and dense weights, batches, small tiles, threads."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from hypothesis import given, settings

import refconv
from refconv.testing.oracles.problems import Problem, definition_results, integer_arrays, normal_arrays
from refconv.testing.strategies import ConvProblem, conv_problems
from tests.helpers import Backend, arange, assert_results, cut_into, forward, large, run

NUMBERS = ("one", "uniform", "depthwise")


def both(backend: Backend, check: Any, max_examples: int = 15, **choices: Any) -> None:
    """Run a check on drawn cases of plain and of transposed convolutions."""
    for transposed in (False, True):
        settings(max_examples=max_examples)(given(conv_problems(transposed=transposed, **choices))(check))()


def test_linear_in_input_and_in_weight(backend: Backend) -> None:
    def check(case: ConvProblem) -> None:
        problem, operands = case[0], case[1]._replace(bias=None)
        other = integer_arrays(problem, np.random.default_rng(1))

        def y(x: Any, weight: Any) -> Any:
            return backend.to_numpy(forward(backend, problem, operands._replace(x=x, weight=weight)))

        mixed_x = 2 * operands.x - 3 * other.x
        np.testing.assert_array_equal(
            y(mixed_x, operands.weight), 2 * y(operands.x, operands.weight) - 3 * y(other.x, operands.weight)
        )
        pairs = zip(*(w if isinstance(w, tuple) else (w,) for w in (operands.weight, other.weight)), strict=True)
        mixed = tuple(2 * a - 3 * b for a, b in pairs)
        mixed_w = mixed if isinstance(operands.weight, tuple) else mixed[0]
        np.testing.assert_array_equal(
            y(operands.x, mixed_w), 2 * y(operands.x, operands.weight) - 3 * y(operands.x, other.weight)
        )

    both(backend, check)


def test_shifting_the_input_by_a_stride_shifts_the_output_by_one(backend: Backend) -> None:
    """One more stride of zeros before the input gives one more output; the others do not change."""

    @settings(max_examples=30)
    @given(conv_problems(padding_modes=("zeros",), layouts=False))
    def check(case: ConvProblem) -> None:
        problem, operands = case
        y = backend.to_numpy(forward(backend, problem, operands))
        for axis in range(problem.spatial_dims):
            pads = list(problem.pairs)
            before, after = pads[axis]
            pads[axis] = (before + problem.stride[axis], after)
            x, weight, bias, _ = map(backend.asarray, operands)
            moved = refconv.conv(x, weight, bias, **{**problem.options(), "padding": pads})
            later = (slice(None),) * (axis + 2) + (slice(1, None),)
            np.testing.assert_array_equal(backend.to_numpy(moved)[later], y)

    check()


def test_rolling_the_input_rolls_the_output_of_a_circular_convolution(backend: Backend) -> None:
    x, w = arange((2, 4, 5, 6)) % 7, arange((6, 2, 3, 2)) % 5
    steps: dict[str, Any] = {"padding": ((1, 1), (3, 0)), "padding_mode": "circular", "groups": 2, "dilation": (1, 3)}
    y = backend.to_numpy(refconv.conv(backend.asarray(x), backend.asarray(w), **steps))
    rolled = refconv.conv(backend.asarray(np.roll(x, (2, 1), (2, 3))), backend.asarray(w), **steps)
    backend.assert_equal(rolled, np.roll(y, (2, 1), (2, 3)))


def dense_weight(problem: Problem, weight: Any) -> Any:
    """Return the weight of the equivalent ungrouped convolution, with zeros between groups."""
    ends = (problem.c_in, problem.c_out) if problem.transposed else (problem.c_out, problem.c_in)
    dense = np.zeros((*ends, *problem.kernel), "float32")
    parts = weight if isinstance(weight, tuple) else np.split(weight, len(problem.lists))
    for (ins, outs), part in zip(problem.lists, parts, strict=True):
        dense[np.ix_(ins, outs) if problem.transposed else np.ix_(outs, ins)] = part
    return dense


def test_groups_equal_a_dense_convolution_with_a_masked_weight(backend: Backend) -> None:
    def check(case: ConvProblem) -> None:
        problem, operands = case
        dense = operands._replace(weight=dense_weight(problem, operands.weight))
        alone = Problem(**{**fields(problem), "groups": 1})
        grouped, full = (run(backend, p, o) for p, o in ((problem, operands), (alone, dense)))
        for name in ("y", "grad_x", "grad_bias"):
            backend.assert_equal(getattr(grouped, name), backend.to_numpy(getattr(full, name)))
        grads = backend.to_numpy(full.grad_weight)
        parts = grouped.grad_weight
        parts = parts if isinstance(parts, tuple) else np.split(backend.to_numpy(parts), len(problem.lists))
        for (ins, outs), part in zip(problem.lists, parts, strict=True):
            where = np.ix_(ins, outs) if problem.transposed else np.ix_(outs, ins)
            part = part if isinstance(part, np.ndarray) else backend.to_numpy(part)
            np.testing.assert_array_equal(part, grads[where])

    both(backend, check)


def fields(problem: Problem) -> dict[str, Any]:
    return {field.name: getattr(problem, field.name) for field in dataclasses.fields(problem)}


def test_groups_are_convolutions_side_by_side(backend: Backend) -> None:
    """Each group is computed alone, and the outputs are joined in order."""

    def check(case: ConvProblem) -> None:
        problem, operands = case
        assert isinstance(problem.groups, int)
        x, weight, bias, _ = operands
        parts = []
        for g, (ins, outs) in enumerate(problem.lists):
            one = {**problem.options(), "groups": 1}
            function = refconv.conv_transpose if problem.transposed else refconv.conv
            b = None if bias is None else backend.asarray(bias[outs])
            w = backend.asarray(np.split(weight, problem.groups)[g])
            parts.append(backend.to_numpy(function(backend.asarray(x[:, ins]), w, b, **one)))
        backend.assert_equal(forward(backend, problem, operands), np.concatenate(parts, 1))

    both(backend, check, groupings=NUMBERS, layouts=False)


def test_the_order_of_groups_does_not_matter(backend: Backend) -> None:
    def check(case: ConvProblem) -> None:
        problem, operands = case
        if isinstance(problem.groups, int):
            return
        order = np.random.default_rng(0).permutation(len(problem.groups))
        turned = Problem(**{**fields(problem), "groups": tuple(problem.groups[i] for i in order)})
        weights = tuple(operands.weight[i] for i in order)
        y = backend.to_numpy(forward(backend, problem, operands))
        backend.assert_equal(forward(backend, turned, operands._replace(weight=weights)), y)

    both(backend, check, groupings=("unequal", "lists"))


def test_samples_do_not_see_each_other(backend: Backend) -> None:
    def check(case: ConvProblem) -> None:
        problem, operands = case
        whole = run(backend, problem, operands)
        total: Any = 0
        for n in range(problem.batch or 0):
            one = Problem(**{**fields(problem), "batch": 1})
            arrays = operands._replace(x=operands.x[n : n + 1], grad_output=operands.grad_output[n : n + 1])
            alone = run(backend, one, arrays)
            backend.assert_equal(alone.y, backend.to_numpy(whole.y)[n : n + 1])
            backend.assert_equal(alone.grad_x, backend.to_numpy(whole.grad_x)[n : n + 1])
            total = total + backend.to_numpy(alone.grad_bias)
        if problem.batch:
            backend.assert_equal(whole.grad_bias, total)

    both(backend, check)


def test_a_stride_takes_every_other_output(backend: Backend) -> None:
    @settings(max_examples=30)
    @given(conv_problems(padding_forms=("pairs", "valid"), layouts=False))
    def check(case: ConvProblem) -> None:
        problem, operands = case
        dense = Problem(**{**fields(problem), "stride": (1,) * problem.spatial_dims})
        y = backend.to_numpy(forward(backend, dense, operands))
        every = (slice(None), slice(None), *(slice(None, None, s) for s in problem.stride))
        backend.assert_equal(forward(backend, problem, operands), y[every])

    check()


def test_padding_equals_a_convolution_of_the_padded_input(backend: Backend) -> None:
    names: dict[str, Any] = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}

    @settings(max_examples=30)
    @given(conv_problems(padding_forms=("pairs", "same", "same_lower"), layouts=False, crops=False))
    def check(case: ConvProblem) -> None:
        problem, operands = case
        x, weight, bias, _ = operands
        padded = np.pad(x, ((0, 0), (0, 0), *problem.pairs), mode=names[problem.padding_mode])
        plain = {**problem.options(), "padding": "valid", "padding_mode": "zeros"}
        arrays = map(backend.asarray, (padded, weight, bias))
        y = backend.to_numpy(refconv.conv(*arrays, **plain))
        backend.assert_equal(forward(backend, problem, operands), y)

    check()


# --- Whole calls ---


def test_the_same_call_gives_the_same_bits_again(backend: Backend) -> None:
    problem = Problem(5, 12, 18, (33, 35), (5, 3), (2, 1), (1, 2), ((2, 1), (0, 3)), 3, padding_mode="reflect")
    operands = normal_arrays(problem, np.random.default_rng(4))
    first, second = (map(backend.to_numpy, run(backend, problem, operands)) for _ in range(2))
    assert [a.tobytes() for a in first] == [a.tobytes() for a in second]


def test_tiles_as_small_as_they_get_still_give_the_result(backend: Backend) -> None:
    def check(case: ConvProblem) -> None:
        with cut_into(1):
            assert_results(backend, run(backend, *case), definition_results(*case))

    both(backend, check)


def test_calls_from_several_threads_do_not_disturb_each_other() -> None:
    from concurrent.futures import ThreadPoolExecutor

    problem, operands, expected = large()
    more = problem.options()

    def call(workers: int) -> Any:
        with refconv.set_workers(workers):
            return refconv.conv(operands.x, operands.weight, operands.bias, **more)

    with cut_into(1 << 14), ThreadPoolExecutor(4) as pool:
        for y in pool.map(call, [1, 2, 3, 1, 2, 3]):
            np.testing.assert_array_equal(y, expected.y)
