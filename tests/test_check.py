"""The checker: it catches and names every catalogued mistake, and describes every other error."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refconv.testing import check_conv
from refconv.testing.checker.calls import Caller
from refconv.testing.checker.examine import CHECKS, Prepared, examine
from refconv.testing.checker.plan import SUPPORTS, Domain, plan, systematic
from refconv.testing.mutants import CATALOGUE, FAMILIES, Conv, ConvTranspose, Mutant
from refconv.testing.oracles.problems import WIDER, inner
from refconv.testing.oracles.trilinear import exact_results
from tests.helpers import arange

sys.path.insert(0, str(Path(__file__).parent.parent / "docs"))
import make_kill_table

sys.path.pop(0)
TABLE = make_kill_table.TABLE.read_text(encoding="utf-8").splitlines()
FEATURES = SUPPORTS[:7]
"""The words that add features; the others restrict the problems."""
BY_NAME = {mutant.name: mutant for mutant in CATALOGUE}


# --- The catalogue ---------------------------------------------------------------------------------------------------


ROWS = dict(zip(BY_NAME, [line for line in TABLE if line.startswith("| ")][1:], strict=False))


@functools.cache
def planned(
    spatial_dims: int, transposed: bool, dtype: str, output_dtype: str | None, supports: tuple[str, ...]
) -> Any:
    words = [word for word in SUPPORTS if word in supports]
    return plan(spatial_dims, words, transposed, dtype, 200, 0, output_dtype=output_dtype)


@functools.cache
def prepared(number: int, **settings: Any) -> Prepared:
    return Prepared(planned(**settings)[number])


@pytest.mark.thinned(2)
@pytest.mark.parametrize("mutant", CATALOGUE, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_every_mistake_is_caught_by_a_check_of_its_row(mutant: Mutant) -> None:
    wrong, settings = mutant.make(), mutant.settings()
    with np.errstate(all="ignore"), Caller(2.0) as call:
        seen = (
            examine(prepared(number, **settings), wrong.forward, wrong.backward, call)
            for number in range(len(planned(**settings)))
        )
        failed = next(observation for observation in seen if observation.complaints)
    assert {complaint.check for complaint in failed.complaints} <= row_of(ROWS[mutant.name]).checks


@pytest.mark.thinned(240)
@pytest.mark.parametrize("mutant", CATALOGUE, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_rows_of_the_kill_table_are_true(mutant: Mutant) -> None:
    assert str(make_kill_table.row(mutant)) == ROWS[mutant.name], "run python docs/make_kill_table.py"


def row_of(line: str) -> make_kill_table.Row:
    name, family, size, named, *rest = (cell.strip() for cell in line.strip("|").split("|"))
    marks, counts = rest[: len(make_kill_table.COLUMNS)], rest[len(make_kill_table.COLUMNS) :]
    checks = frozenset(check for check, mark in zip(make_kill_table.COLUMNS, marks, strict=True) if mark)
    return make_kill_table.Row(name, family, checks, int(size), named, tuple(map(int, counts)))


def test_the_kill_table_is_complete_and_its_summary_is_true() -> None:
    rows = [row_of(line) for line in ROWS.values()]
    assert "\n".join(TABLE) + "\n" == make_kill_table.page(rows)
    assert [row.name for row in rows] == list(BY_NAME)
    assert len(rows) >= 60
    assert all(row.checks for row in rows)
    assert np.median([row.elements for row in rows]) <= 8
    assert sum(row.named != "no" for row in rows) >= 0.9 * len(rows)
    for check in make_kill_table.COLUMNS:
        assert any(row.checks == {check} for row in rows), f"no mistake needs the check {check!r}"


def test_the_catalogue_is_explained_and_covers_all_families() -> None:
    assert {mutant.family for mutant in CATALOGUE} == set(FAMILIES)
    assert len(BY_NAME) == len(CATALOGUE)
    for mutant in CATALOGUE:
        assert mutant.explanation.endswith(".")
        assert mutant.hint.endswith(".")
    backward = [m for m in CATALOGUE if "gradient" in m.name]
    assert len(backward) > 20
    transposed = {m.name for m in CATALOGUE if m.transposed}
    assert len(transposed) > 30
    assert all(name.startswith("transposed: ") for name in transposed)


def test_adjoint_identities_alone_do_not_see_a_wrong_forward_pass() -> None:
    """A kernel flipped in every pass satisfies them, so values must be compared too."""
    flipped, right = BY_NAME["kernel flipped everywhere"].make(), Conv()
    x, w, integers = arange((2, 2, 5)), arange((4, 1, 3)), ((2,), (1,), (1,), 2)
    y = flipped.forward(x, w, None, *integers)
    assert not np.array_equal(y, right.forward(x, w, None, *integers))
    grad_x, grad_weight, _ = flipped.backward(g := arange(y.shape, start=-9), x, w, *integers)
    assert inner(grad_x, x) == inner(g, y) == inner(grad_weight, w)


# --- No false alarm --------------------------------------------------------------------------------------------------


@pytest.mark.thinned(15)
@pytest.mark.parametrize("implementation", [Conv, ConvTranspose])
@pytest.mark.parametrize(
    ("dtype", "spatial_dims"),
    [("int64", 2), ("int16", 3), ("complex64", 2), ("float32", 3), ("float64", 2), ("float16", 1), ("uint8", 1)],
)
def test_the_base_classes_of_the_mistakes_are_right(dtype: str, spatial_dims: int, implementation: type[Conv]) -> None:
    transposed = implementation is ConvTranspose
    right = implementation()
    supports = [word for word in FEATURES if transposed or word != "output_padding"]
    report = check_conv(
        right.forward, right.backward, spatial_dims=spatial_dims, transposed=transposed, supports=supports, dtype=dtype
    )
    report.raise_if_failed()
    assert report.cases_run == len(plan(spatial_dims, supports, transposed, dtype, 200, 0)) > 500
    skipped = {"real values", "non-finite"} if dtype[0] not in "fc" else {"non-finite"} if dtype[0] == "c" else set()
    skipped |= {"large numbers"} if dtype != "int64" else set()
    assert set(report.checks) == set(CHECKS) - skipped - {"needs"}


@pytest.mark.thinned(13)
@pytest.mark.parametrize("seed", range(20))
def test_no_seed_raises_a_false_alarm(seed: int) -> None:
    right, transposed = ((Conv(), False), (ConvTranspose(), True))[seed % 2]
    dims = 1 + seed // 2 % 3
    check_conv(right.forward, right.backward, spatial_dims=dims, transposed=transposed, seed=seed).raise_if_failed()


@pytest.mark.parametrize("supports", [(), ("stride",), ("padding", "groups"), ("asymmetric_padding",), ("bias",)])
def test_only_what_is_claimed_is_used(supports: tuple[str, ...]) -> None:
    def forward(x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
        assert bias is None or "bias" in supports
        assert set(stride) == {1} or "stride" in supports
        assert set(dilation) == {1}
        assert groups == 1 or "groups" in supports
        pairs = [p if isinstance(p, tuple) else (p, p) for p in padding]
        assert set(pairs) == {(0, 0)} or "padding" in supports or "asymmetric_padding" in supports
        assert all(isinstance(p, tuple) for p in padding) == ("asymmetric_padding" in supports)
        return Conv().forward(x, weight, bias, stride, padding, dilation, groups)

    report = check_conv(forward, spatial_dims=1, supports=supports)
    report.raise_if_failed()
    assert report.cases_run > 300
    assert "grad_x" not in report.checks


def test_causal_is_a_word_only_if_claimed_and_never_alone() -> None:
    seen: dict[tuple[str, ...], set[str]] = {}

    def forward(x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
        word = padding if isinstance(padding, str) else "numbers" if any(padding) else "none"
        seen.setdefault(supports, set()).add(word)
        if word == "causal":
            padding = (((weight.shape[2] - 1) * dilation[0], 0),)
        return Conv().forward(x, weight, bias, stride, padding, dilation, groups)

    for supports in ((), ("causal",), ("padding",), ("padding", "causal", "stride", "dilation", "groups")):
        report = check_conv(forward, spatial_dims=1, supports=supports, cases=50, pairs=False)
        report.raise_if_failed()
        assert ("causal" in supports) == ("causal" in seen[supports])
        assert ("padding" in supports) == ("numbers" in seen[supports])
        assert "none" in seen[supports]


def test_causal_padding_meets_every_other_feature() -> None:
    words = (*SUPPORTS[:5], "causal")
    cases = [c for c in plan(1, words, False, "float32", 100, 0) if c.padding == "causal"]
    assert {case.kind for case in cases} == {"integers", "repeat", "layout", "empty", "not finite"}
    for reached in (
        lambda c: c.groups > 1 and c.stride[0] > 1 and c.dilation[0] > 1,
        lambda c: c.x_shape[2] < c.dilation[0] * (c.weight_shape[2] - 1),
        lambda c: (c.x_shape[2] - 1) % c.stride[0],
        lambda c: c.x_shape[0] > 1 and c.bias is not None,
    ):
        assert any(map(reached, cases))


def always_causal(x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
    """Refuse any other padding, like the wrapper of a function without the argument."""
    if padding != "causal":
        raise NotImplementedError("causal only")
    return Conv().forward(x, weight, bias, stride, padding, dilation, groups)


def test_a_function_that_is_always_causal_can_be_checked() -> None:
    report = check_conv(always_causal, spatial_dims=1, supports=("bias", "dilation", "causal"))
    report.raise_if_failed()
    assert 0 < report.unsupported["forward"] < report.cases_run - 200
    failure = check_conv(BY_NAME["causal padding put after"].make().forward, spatial_dims=1, supports=("causal",))
    assert ", (1,), 'causal', (1,), 1)" in failure.failures[0].snippet()


@pytest.mark.thinned(5)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", ["int8", "uint8", "float16"])
def test_a_wide_output_is_checked(dtype: str, transposed: bool) -> None:
    """It is right only if all sums are wide, from the first product on; gradients keep the operands' type."""
    right, wide = (ConvTranspose if transposed else Conv)(), WIDER[dtype]
    options: dict[str, Any] = {"dtype": dtype, "output_dtype": wide, "transposed": transposed}
    options |= {"spatial_dims": 1, "supports": ("bias", "stride", "groups"), "cases": 20, "pairs": False}
    own = check_conv(right.forward, right.backward, **options)
    assert [failure.check for failure in own.failures][:1] == ["dtype"]
    assert f"must have data type {wide}; got {dtype}" in own.failures[0].message

    def late(*given: Any) -> Any:
        return right.forward(*given).astype(wide)

    failure = check_conv(late, right.backward, **options).failures[0]
    assert failure.check == ("real values" if dtype == "float16" else "values")
    if dtype != "float16":
        assert failure.case.x.size == 1  # the first product shows it
        assert failure.diagnoses[0].name.endswith("wide output summed in the operands' type")

    def widened(x: Any, weight: Any, bias: Any, *rest: Any) -> Any:
        x, weight, bias = (None if a is None else a.astype(wide) for a in (x, weight, bias))
        return right.forward(x, weight, bias, *rest)

    report = check_conv(widened, right.backward, **options)
    report.raise_if_failed()
    assert str(report).startswith(f"passed: 1-d {'transposed ' * transposed}convolution in {dtype} with {wide} output,")
    assert report.settings["output_dtype"] == wide
    widths = check_conv(right.forward, right.backward, **options | {"output_dtype": dtype}).settings
    assert "output_dtype" not in widths


@pytest.mark.thinned(2)
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_wide_sums_are_checked_at_the_ends_of_the_operands_type(dtype: str) -> None:
    def right(x: Any, weight: Any, bias: Any, *integers: Any) -> Any:
        x, weight, bias = (None if a is None else a.astype("int32") for a in (x, weight, bias))
        return Conv().forward(x, weight, bias, *integers)

    def single(x: Any, weight: Any, bias: Any, *integers: Any) -> Any:
        x, weight, bias = (None if a is None else a.astype("float32") for a in (x, weight, bias))
        return Conv().forward(x, weight, bias, *integers).astype("int32")

    wrong = {
        "the least weight": lambda x, w, *rest: right(x, np.maximum(w, np.iinfo(dtype).min + 1), *rest),
        "the largest x": lambda x, w, *rest: right(np.minimum(x, np.iinfo(dtype).max - 1), w, *rest),
        "sums of 24 bits": lambda *arguments: np.clip(right(*arguments), -(2**23), 2**23 - 1),
        "sums in single precision": single,
    }
    options: dict[str, Any] = {"dtype": dtype, "output_dtype": "int32", "pairs": False, "cases": 1}
    check_conv(right, **options).raise_if_failed()
    for name, forward in wrong.items():
        assert "large numbers" in [failure.check for failure in check_conv(forward, **options).failures], name


def test_a_mistake_beside_a_wide_output_is_named() -> None:
    wrong = BY_NAME["stride ignored in the forward pass"].make()
    wrong.output_dtype = "int32"
    options: dict[str, Any] = {"dtype": "int8", "output_dtype": "int32", "pairs": False}
    failure = check_conv(wrong.forward, spatial_dims=1, cases=1, **options).failures[0]
    assert "stride ignored in the forward pass" in [diagnosis.name for diagnosis in failure.diagnoses]
    recipe = check_conv(Conv().forward, seed=1, cases=2, **options).failures[0].recipe
    assert recipe == f"plan(2, {SUPPORTS[:5]}, False, 'int8', 2, 1, False, 'int32')[0]"


@pytest.mark.parametrize("transposed", [False, True])
def test_whole_numbers_in_float16_are_exact_in_any_order_of_summation(transposed: bool) -> None:
    for case in plan(2, FEATURES if transposed else FEATURES[:6], transposed, "float16", 1, 0):
        if case.kind == "integers":
            largest_sums = exact_results(case.problem, case.operands.mapped(lambda a: abs(a.astype("float64"))))
            assert max(sums.max() for sums in largest_sums if sums is not None) <= 2048, case


# --- The same cases, in order of size --------------------------------------------------------------------------------


def test_cases_are_the_same_every_time_and_grow() -> None:
    planned = plan(2, SUPPORTS[:5], False, "float32", 200, 7)
    first, again = list(planned), list(plan(2, SUPPORTS[:5], False, "float32", 200, 7))
    assert len(first) == len(planned)
    for a, b in zip(first, again, strict=True):
        assert a.integers == b.integers
        np.testing.assert_array_equal(a.x, b.x)
    np.testing.assert_array_equal(planned[-3].x, first[-3].x)
    assert [case.size for case in first] == sorted(case.size for case in first)
    assert {case.kind for case in first} == {"integers", "repeat", "layout", "empty", "real", "not finite"}


@pytest.mark.thinned(5)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_every_number_that_is_not_finite_is_read_by_some_output(transposed: bool, seed: int) -> None:
    words = FEATURES if transposed else FEATURES[:6]
    for d in (1, 2, 3):
        cases = [c for c in plan(d, words, transposed, "float32", 1, seed) if c.kind == "not finite"]
        assert sorted(str(c.x[~np.isfinite(c.x)]) for c in cases) == ["[-inf]"] * 2 + ["[inf]"] * 2 + ["[nan]"] * 2
        assert not any(np.isfinite(Prepared(c).expected.y).all() for c in cases)


def test_many_cases_need_little_memory_and_each_can_be_made_again() -> None:
    planned = plan(1, ("stride",), False, "float32", 10**8, 3)
    fixed = len(plan(1, ("stride",), False, "float32", 1000, 3))
    assert len(planned) == fixed + 10**8 - 1000
    cases = list(itertools.islice(planned, fixed + 5))
    np.testing.assert_array_equal(planned[fixed + 4].x, cases[-1].x)
    late = planned[50_000_000]
    np.testing.assert_array_equal(late.x, planned[50_000_000].x)
    with pytest.raises(IndexError, match="the plan has"):
        planned[len(planned)]


def test_cases_reach_the_conditions_that_hide_mistakes() -> None:
    cases = list(plan(2, SUPPORTS[:5], False, "float32", 200, 0))
    for reached in (
        lambda c: c.groups > 1 and max(c.stride) > 1 and max(c.dilation) > 1,
        lambda c: c.groups > 1 and c.weight_shape[0] // c.groups > 1 and c.weight_shape[1] > 1,
        lambda c: c.x_shape[2] != c.x_shape[3],
        lambda c: c.weight_shape[2] != c.weight_shape[3],
        lambda c: c.stride[0] != c.stride[1],
        lambda c: c.padding[0] != c.padding[1],
        lambda c: c.dilation[0] != c.dilation[1],
        lambda c: c.x_shape[0] > 1 and c.x_shape[1] > 1 and c.weight_shape[0] != c.x_shape[1],
        lambda c: c.bias is None,
        lambda c: any(
            (n + 2 * p - d * (k - 1) - 1) % s
            for n, p, d, k, s in zip(c.x_shape[2:], c.padding, c.dilation, c.weight_shape[2:], c.stride, strict=True)
        ),
    ):
        assert sum(map(reached, cases)) >= 5


@pytest.mark.parametrize("pairs", [(), ("asymmetric_padding",)])
def test_every_pair_of_features_that_share_an_axis_or_channels_is_there(pairs: tuple[str, ...]) -> None:
    supports = (*SUPPORTS[:5], *pairs)
    cases = {dataclasses.replace(c.problem, bias=False) for c in plan(2, supports, False, "float32", 200, 0)}
    near, across = systematic(Domain(2, supports, False))
    assert {dataclasses.replace(problem, bias=False) for problem in near} <= cases
    assert any(dataclasses.replace(problem, bias=False) in cases for problem in across)


@pytest.mark.thinned(6)
@pytest.mark.parametrize("cases", [1, 2, 3, 10, 57, 500])
def test_any_number_of_cases(cases: int) -> None:
    report = check_conv(Conv().forward, cases=cases, spatial_dims=1)
    fixed = len(plan(1, SUPPORTS[:5], False, "float32", 1, 0)) - 1
    assert (report.passed, report.cases_run) == (True, fixed + cases)


def test_a_check_without_pairs_is_shorter() -> None:
    whole, short = (check_conv(Conv().forward, spatial_dims=1, cases=1, pairs=pairs) for pairs in (True, False))
    assert short.cases_run < whole.cases_run / 1.5
    assert short.regimes.keys() >= {"batch 33", "groups 33", "kernel side 13"}
    wrong = check_conv(lambda *a: -Conv().forward(*a), cases=1, pairs=False)
    assert "1, 0, False)[" in str(wrong.failures[0].recipe)


# --- Functions that misbehave ----------------------------------------------------------------------------------------


def wrong(result: Any) -> Any:
    def forward(x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
        return result() if callable(result) else result

    return forward


def leave() -> None:
    sys.exit(3)


def fail_speechless() -> None:
    class SpeechlessError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    raise SpeechlessError


class Unwilling:
    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        sys.exit(4)


@pytest.mark.parametrize(
    ("result", "check", "message"),
    [
        (None, "type", "got NoneType"),
        ("abc", "type", "got str"),
        ([[1, 2], [3]], "type", "got list"),
        (np.array("a"), "type", "got ndarray of data type <U1"),
        (1.5, "shape", r"got \(\)"),
        (leave, "call", "forward raised SystemExit: 3"),
        (Unwilling(), "call", "forward raised SystemExit: 4"),
        (fail_speechless, "call", r"forward raised SpeechlessError \("),
        (lambda: [].index("a" * 2000), "call", "ValueError: 'a{400,600} …"),
        (lambda: 1 // 0, "call", "forward raised ZeroDivisionError"),
    ],
)
def test_a_function_that_misbehaves_is_a_failure(result: Any, check: str, message: str) -> None:
    report = check_conv(wrong(result), cases=1, pairs=False)
    assert not report.passed
    assert report.failures[0].check == check
    with pytest.raises(AssertionError, match=message):
        report.raise_if_failed()
    assert "no known mistake matches" in str(report)
    json.loads(report.to_json())


def test_an_error_is_one_line_and_the_place_that_raised_it() -> None:
    def fail(message: str) -> None:
        raise ValueError(message)

    with Caller(60.0) as call:
        outcome = call(lambda: fail("first\nsecond"))
    assert outcome.error == "ValueError: first …"
    assert outcome.where == f"{__file__}:{fail.__code__.co_firstlineno + 1} in fail"


def test_an_interruption_stops_the_check() -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_conv(interrupted)
    with pytest.raises(KeyboardInterrupt):
        check_conv(Conv().forward, interrupted)


@pytest.mark.parametrize("time_limit", [float("inf"), 1e300])
def test_there_may_be_no_time_limit(time_limit: float) -> None:
    check_conv(Conv().forward, cases=5, pairs=False, time_limit=time_limit).raise_if_failed()


def test_what_the_forward_pass_writes_is_not_the_backward_pass_s_fault() -> None:
    def forward(x: Any, weight: Any, *rest: Any) -> Any:
        y = Conv().forward(x, weight, *rest)
        for a in (x, weight):
            if a.flags.writeable:
                a[...] = 0
        return y

    report = check_conv(forward, Conv().backward, pairs=False)
    assert [failure.check for failure in report.failures] == ["inputs unchanged"]


def test_nan_is_reported_with_its_case() -> None:
    def forward(x: Any, *rest: Any) -> Any:
        return Conv().forward(x, *rest) * np.nan

    failure = check_conv(forward, cases=1, pairs=False).failures[0]
    assert failure.check == "values"
    assert "got nan" in failure.message
    assert failure.case.x.size == 1


def test_a_function_that_hangs_ends_the_check() -> None:
    release = threading.Event()

    def forward(x: Any, weight: Any, *rest: Any) -> Any:
        if weight.shape[0] > 1:
            release.wait(30)
        return Conv().forward(x, weight, *rest)

    start = time.perf_counter()
    report = check_conv(forward, time_limit=0.3)
    release.set()
    assert time.perf_counter() - start < 20
    assert [failure.check for failure in report.failures] == ["time"]
    assert report.cases_run < 200
    assert report.failures[0].case.weight_shape[0] == 2


@pytest.mark.parametrize(("grads", "message"), [(None, "got NoneType"), ((1, 2), "got 2 values"), ({}, "got dict")])
def test_a_backward_pass_must_return_three(grads: Any, message: str) -> None:
    report = check_conv(Conv().forward, wrong(grads), cases=1, pairs=False)
    assert report.failures[0].check == "type"
    assert message in report.failures[0].message


def test_results_of_any_kind_of_array_are_understood() -> None:
    class Wrapped:
        def __init__(self, array: Any) -> None:
            self.array = array

        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            return self.array

    class OnDevice(Wrapped):
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            raise TypeError("implicit conversion refused")

        def __dlpack__(self, **options: Any) -> Any:
            return self.array.__dlpack__(**options)

        def __dlpack_device__(self) -> Any:
            return self.array.__dlpack_device__()

    class OnNothing(OnDevice):
        def __dlpack__(self, **options: Any) -> Any:
            raise BufferError

    report = check_conv(lambda *a: OnNothing(Conv().forward(*a)), cases=1, pairs=False)
    assert "got OnNothing (TypeError: implicit conversion refused)" in report.failures[0].message
    for kind in (Wrapped, OnDevice):
        check_conv(lambda *a, kind=kind: kind(Conv().forward(*a)), cases=60, pairs=False).raise_if_failed()


# --- Layouts, and requested gradients --------------------------------------------------------------------------------


def test_layouts_are_handed_over_as_libraries_do() -> None:
    strides = []

    def forward(x: Any, weight: Any, *rest: Any) -> Any:
        strides.append((x.shape, tuple(step // x.itemsize for step in x.strides)))
        return Conv().forward(x, weight, *rest)

    def backward(g: Any, *rest: Any) -> Any:
        strides.append((g.shape, tuple(step // g.itemsize for step in g.strides)))
        return Conv().backward(g, *rest)

    check_conv(forward, backward, cases=1, pairs=False).raise_if_failed()
    assert any(steps == (0,) * 4 for _, steps in strides), "no gradient as y.sum().backward() hands it over"
    assert any(steps[0] == 0 != steps[-1] and shape[0] > 1 for shape, steps in strides), "no expanded batch"
    assert any(steps[1] == 1 and shape[1] > 1 and shape[-1] > 1 for shape, steps in strides), "no channels last"
    assert any(min(steps) < 0 for _, steps in strides)
    assert any(7 in [step for n, step in zip(shape, steps, strict=True) if n == 1] for shape, steps in strides)


def test_a_mistake_with_expanded_arrays_is_one_of_layout() -> None:
    def backward(g: Any, *rest: Any) -> Any:
        return Conv().backward(g * (1 + (0 in g.strides)), *rest)

    (failure,) = check_conv(Conv().forward, backward, cases=1, pairs=False).failures
    assert failure.check == "layout"


def test_refusing_negative_strides_is_a_note_and_a_wrong_result_is_a_failure() -> None:
    def refuses(x: Any, *rest: Any) -> Any:
        if min(x.strides) < 0:
            raise ValueError("tensors with negative strides are not currently supported")
        return Conv().forward(x, *rest)

    def ignores(x: Any, *rest: Any) -> Any:
        return Conv().forward(x[..., ::-1] if min(x.strides) < 0 else x, *rest)

    report = check_conv(refuses, cases=1, pairs=False)
    report.raise_if_failed()
    assert "forward refuses arrays with negative strides" in str(report)
    assert [failure.check for failure in check_conv(ignores, cases=1, pairs=False).failures] == ["layout"]


@pytest.mark.parametrize("wrong", [None, "x", "weight", "bias"])
def test_some_gradients_only(wrong: str | None) -> None:
    asked = []

    def backward(*arguments: Any, needs: Any = ("x", "weight", "bias")) -> Any:
        asked.append(needs)
        grads = dict(zip(("x", "weight", "bias"), Conv().backward(*arguments), strict=True))
        if len(needs) < 3 and wrong in needs:
            grads[wrong] = -grads[wrong]
        return tuple(grads[name] if name in needs else None for name in grads)

    subsets = (("x",), ("bias", "weight"))
    report = check_conv(Conv().forward, backward, spatial_dims=1, cases=1, pairs=False, backward_needs=subsets)
    assert set(asked) == {("x", "weight", "bias"), ("x",), ("weight", "bias")}
    if wrong is None:
        report.raise_if_failed()
        assert report.checks["needs"] == 0
    else:
        (failure,) = report.failures
        assert (failure.check, failure.part) == ("needs", f"grad_{wrong}")
        assert failure.message.startswith("with needs=(")


# --- Where, and what differs from a known mistake --------------------------------------------------------------------


def test_a_report_says_where_a_function_fails() -> None:
    def forward(x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
        y = Conv().forward(x, weight, bias, stride, padding, dilation, groups)
        return -y if groups > 3 else y

    (failure,) = (report := check_conv(forward, cases=1, pairs=False)).failures
    assert failure.where is not None
    assert failure.where.endswith("problems with groups at least 4 fail, and no other")
    assert f"where: {failure.where}" in str(failure)
    assert json.loads(report.to_json())["failures"][0]["where"] == failure.where
    assert check_conv(lambda x, *rest: Conv().forward(x, *rest) + 1, cases=1, pairs=False).failures[0].where is None


def test_a_known_mistake_is_named_though_an_empty_batch_differs() -> None:
    class Mean(Conv):
        def grad_bias(self, g: Any) -> Any:
            with np.errstate(all="ignore"):
                return (np.sum(g, axis=(0, 2)) / np.asarray(len(g), g.dtype)).astype(g.dtype)

    report = check_conv(Mean().forward, Mean().backward, spatial_dims=1, cases=1, pairs=False)
    failure = next(failure for failure in report.failures if failure.check == "grad_bias")
    best = failure.diagnoses[0]
    assert best.name == "bias gradient averaged over the batch"
    assert "differs from it for an empty batch" in best.explanation
    assert "got nan" in best.explanation


# --- Reports ---------------------------------------------------------------------------------------------------------


@functools.cache
def flipped() -> Any:
    mistake = BY_NAME["kernel flipped in the input gradient"].make()
    return check_conv(mistake.forward, mistake.backward, pairs=False)


@pytest.mark.thinned(2)
@pytest.mark.parametrize(
    "name", ["grouped weight tiled over all channels", "groups ignored: all read the first channels"]
)
def test_a_report_does_not_depend_on_how_fast_the_machine_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def report() -> str:
        mistake = BY_NAME[name].make()
        return check_conv(mistake.forward, mistake.backward, pairs=False, cases=1).to_json()

    usual = report()
    clock = itertools.count(step=3600.0)
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    assert report() == usual


def test_a_report_shows_the_smallest_case() -> None:
    text = str(flipped())
    for part in (
        "FAILED: 2-d convolution in float32, forward and backward, ",
        "smallest case: x(1, 1, 1, 1) weight(1, 1, 1, 2)",
        "expected: float32",
        "actual: float32",
        "consistent with: kernel flipped in the input gradient",
        "less likely: kernel flipped everywhere",
        "ok  values: the output is exact on whole numbers",
        "not reached  empty",
    ):
        assert part in text


def test_the_snippet_reproduces_the_failure() -> None:
    mistake = BY_NAME["kernel flipped in the input gradient"].make()
    for failure in flipped().failures:
        names: dict[str, Any] = {"forward": mistake.forward, "backward": mistake.backward}
        exec(failure.snippet(), names)
        if failure.actual is not None:
            np.testing.assert_array_equal(names["actual"][0], failure.actual)
        np.testing.assert_array_equal(names["x"], failure.case.x)


def test_json_holds_the_whole_report() -> None:
    found = json.loads(flipped().to_json())
    assert found["passed"] is False
    first = found["failures"][0]
    assert first["case"]["x"] == {
        "dtype": "float32",
        "shape": [1, 1, 1, 1],
        "values": [first["case"]["x"]["values"][0]],
    }
    assert first["diagnoses"][0]["name"] == "kernel flipped in the input gradient"
    assert first["diagnoses"][0]["rank"] == 1
    mistake = BY_NAME["NaN taken for zero"].make()
    report = check_conv(mistake.forward, mistake.backward, pairs=False)
    assert json.loads(report.to_json(), parse_constant=pytest.fail)["failures"][0]["check"] == "non-finite"


def test_json_has_every_field_of_a_report_its_failures_and_their_cases() -> None:
    report = check_conv(lambda x, *rest: -Conv().forward(x, *rest), spatial_dims=1, cases=1, pairs=False)
    found, failure = json.loads(report.to_json()), report.failures[0]
    assert found.keys() == {field.name for field in dataclasses.fields(report)}
    named = {field.name for field in dataclasses.fields(failure)} - {"recipe"}
    assert found["failures"][0].keys() == named | {"reproduce"}
    case = found["failures"][0]["case"]
    assert case.keys() == {field.name for field in dataclasses.fields(failure.case)} - {"problem"}
    assert [case[name] for name in ("stride", "padding", "dilation", "groups")] == [
        list(n) if isinstance(n, tuple) else n for n in failure.case.integers
    ]


def test_two_mistakes_at_once_are_both_named() -> None:
    bias, weight = (
        BY_NAME[name].make() for name in ("bias gradient averaged over the batch", "weight gradient flipped")
    )

    class Both(Conv):
        def grad_bias(self, g: Any) -> Any:
            return bias.grad_bias(g)

        def grad_weight(self, *arguments: Any) -> Any:
            return weight.grad_weight(*arguments)

    report = check_conv(Both().forward, Both().backward, pairs=False)
    names = {failure.check: failure.diagnoses[0].name for failure in report.failures}
    assert names["grad_bias"] == "bias gradient averaged over the batch"
    assert names["grad_weight"] == "weight gradient flipped"


def test_another_data_type_does_not_hide_the_mistake() -> None:
    class Homework(Conv):  # in Python numbers, which are float64
        def kernel(self, weight: Any) -> Any:
            return weight[..., ::-1, ::-1]

        def work(self, dtype: Any) -> Any:
            return np.dtype("float64")

        def y(self, x: Any, *rest: Any) -> Any:
            return super().y(x.astype("float64"), *rest)

    report = check_conv(Homework().forward, pairs=False)
    names = {failure.check: [d.name for d in failure.diagnoses if d.rank == 1] for failure in report.failures}
    assert names["dtype"] == ["returns float64"]
    assert "kernel flipped in the forward pass" in names["values"]


@pytest.mark.parametrize("name", ["padding ignored altogether", "padding counted once in the output size"])
def test_an_exception_in_place_of_no_output_does_not_hide_the_mistake(name: str) -> None:
    mistake = BY_NAME[name].make()

    def forward(*arguments: Any) -> Any:
        y = mistake.forward(*arguments)
        if y.size == 0 < len(arguments[0]):
            raise ValueError("there is no output")
        return y

    report = check_conv(forward, pairs=False)
    assert {failure.check for failure in report.failures} >= {"call", "shape"}
    for failure in report.failures:
        assert [d.name for d in failure.diagnoses if d.rank == 1] == [name]


def test_exceptions_alone_are_not_given_the_name_of_a_mistake() -> None:
    def forward(x: Any, weight: Any, bias: Any, stride: Any, *rest: Any) -> Any:
        if max(stride) > 1:
            raise ValueError("stride")
        return Conv().forward(x, weight, bias, stride, *rest)

    (failure,) = check_conv(forward, pairs=False).failures
    assert (failure.check, failure.diagnoses) == ("call", ())


def test_an_unknown_mistake_is_not_given_a_name() -> None:
    def forward(*arguments: Any) -> Any:
        return Conv().forward(*arguments) + np.float32(1)

    report = check_conv(forward, pairs=False)
    assert report.failures[0].diagnoses == ()
    assert "no known mistake matches" in str(report)


@pytest.mark.thinned(2)
@pytest.mark.parametrize(
    ("name", "precision"),
    [("operands rounded to TF32", "tf32"), ("operands rounded to bfloat16", "bfloat16")],
)
def test_the_precision_is_named(name: str, precision: str) -> None:
    mistake = BY_NAME[name].make()
    options: dict[str, Any] = {"spatial_dims": 1, "pairs": False}
    report = check_conv(mistake.forward, mistake.backward, **options)
    assert set(report.precisions.values()) >= {precision}
    assert f"consistent with {precision}" in report.failures[0].message
    assert set(check_conv(Conv().forward, Conv().backward, **options).precisions.values()) == {"float32"}
    half = BY_NAME["float16 sums kept in float16"].make()
    report = check_conv(half.forward, half.backward, dtype="float16", **options)
    assert report.precisions["y"] == "float16 accumulation"


def test_no_precision_is_named_where_whole_numbers_are_wrong() -> None:
    mistake = BY_NAME["weight rows taken taps first"].make()
    report = check_conv(mistake.forward, Conv().backward, pairs=False)
    assert [failure.check for failure in report.failures] == ["values"]
    assert report.checks["real values"]
    assert set(report.precisions) == {"grad_x", "grad_weight", "grad_bias"}


@pytest.mark.parametrize(("dtype", "narrow"), [("int32", "float32"), ("uint32", "float32"), ("int64", "float64")])
def test_integers_summed_in_floating_point_are_caught(dtype: str, narrow: str) -> None:
    def forward(x: Any, weight: Any, bias: Any, *integers: Any) -> Any:
        bias = None if bias is None else bias.astype(narrow)
        return Conv().forward(x.astype(narrow), weight.astype(narrow), bias, *integers).astype(dtype)

    report = check_conv(forward, dtype=dtype, pairs=False, cases=1)
    assert [failure.check for failure in report.failures] == ["large numbers"]
    assert "seem to be in floating point" in report.failures[0].message


# --- The arguments ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"forward": 3}, TypeError, r"forward must be a function of \(x, weight"),
        ({"forward": lambda x: x}, TypeError, r"forward must take \(x, weight, bias.*<lambda>\(x\)"),
        ({"backward": lambda g, x: x}, TypeError, r"backward must take \(grad_output, x"),
        ({"spatial_dims": 0}, ValueError, "spatial_dims"),
        ({"spatial_dims": 2.0}, TypeError, "spatial_dims"),
        ({"supports": "stride"}, TypeError, "supports must be a sequence"),
        ({"supports": ("strides",)}, ValueError, "got 'strides'"),
        ({"supports": (3,)}, ValueError, "got 3"),
        ({"supports": ("output_padding",)}, ValueError, "transposed=True"),
        ({"dtype": "bool"}, ValueError, "dtype must be one of"),
        ({"dtype": "nonsense"}, TypeError, "dtype must be one of"),
        ({"dtype": None}, ValueError, "dtype must be one of"),
        ({"supports": ("causal",)}, ValueError, "causal only with spatial_dims=1 and transposed=False"),
        ({"supports": ("causal",), "spatial_dims": 1, "transposed": True}, ValueError, "causal only with"),
        ({"output_dtype": "nonsense"}, TypeError, "output_dtype must be one of"),
        ({"output_dtype": "float16"}, ValueError, "same kind that holds every float32; got float16"),
        ({"output_dtype": "complex64"}, ValueError, "same kind that holds every float32; got complex64"),
        ({"dtype": "int8", "output_dtype": "float32"}, ValueError, "same kind that holds every int8; got float32"),
        ({"dtype": "int8", "output_dtype": "uint32"}, ValueError, "same kind that holds every int8; got uint32"),
        ({"transposed": 1}, TypeError, "transposed"),
        ({"cases": 0}, ValueError, "cases"),
        ({"cases": True}, TypeError, "cases"),
        ({"seed": -1}, ValueError, "seed"),
        ({"backward": Conv().backward, "backward_needs": (("x",),)}, TypeError, "backward must take .*needs="),
        ({"backward_needs": (("x",),)}, ValueError, "backward_needs needs a backward function"),
        ({"backward_needs": "x"}, TypeError, "backward_needs must be a sequence of tuples.* got 'x'"),
        ({"backward_needs": ("x",)}, TypeError, "backward_needs must be a sequence of tuples"),
        ({"backward_needs": (("y",),)}, ValueError, "may contain only x, weight, bias; got"),
        ({"backward_needs": ((),)}, ValueError, "may contain only"),
        ({"time_limit": 0}, ValueError, "time_limit"),
        ({"pairs": 1}, TypeError, "pairs"),
        ({"time_limit": "1"}, ValueError, "time_limit"),
    ],
)
def test_bad_arguments_are_named(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"forward": Conv().forward, "cases": 3} | change
    with pytest.raises(error, match=message):
        check_conv(**arguments)
