"""The tour: its parts with small settings, and its behaviour if the convolution is wrong or it is interrupted."""

from __future__ import annotations

import base64
import io
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import refconv
from refconv.progress import ConsoleReporter
from refconv.testing.oracles.problems import Operands, Problem, Results
from refconv.tour import Settings, run_tour
from refconv.tour.alexnet import load_photograph, run_alexnet
from refconv.tour.digits import DigitsResult, NetworkResult, Plan, run_digits
from refconv.tour.report import ReportError, write
from refconv.tour.verify import BackendReport, available_backends, compute, draw_expected, verify
from tests.helpers import Backend, long, run_command

QUICK = Settings(
    backend="numpy",
    exact_problems=12,
    real_problems=4,
    repetitions=1,
    training_seeds=2,
    training_epochs=1,
    training_images=64,
)


# Verification, and whether it can fail


def test_verification_passes(backend: Backend) -> None:
    name = backend.module
    found = verify([name], exact=60, real=15, seed=5)
    (report,) = found.backends
    assert found.passed, report.failures
    assert (report.name, report.exact_problems, report.real_problems) == (name, 60, 15)
    assert report.comparisons > 4 * 75
    assert report.identities == 2 * 60
    assert 0 < report.worst_error <= 1


def test_a_third_of_the_problems_are_transposed() -> None:
    """tests/test_strategies.py tests which other cases seeds reach."""
    assert sum(case.problem.transposed for case in draw_expected(0, exact=24, real=6)) == 10


def _flip_kernel(problem: Problem, operands: Operands, right: Results) -> Results:
    weight = operands.weight
    flipped = tuple(w[..., ::-1] for w in weight) if isinstance(weight, tuple) else weight[..., ::-1]
    return compute(np, problem, operands._replace(weight=flipped))


def _round_to_half(problem: Problem, operands: Operands, right: Results) -> Results:
    return right._replace(y=right.y.astype("float16").astype(right.y.dtype))


def _forget_strides_in_the_gradient(problem: Problem, operands: Operands, right: Results) -> Results:
    return right._replace(grad_x=np.zeros_like(right.grad_x)) if max(problem.stride) > 1 else right


def _first_group_only(problem: Problem, operands: Operands, right: Results) -> Results:
    if not isinstance(right.grad_weight, tuple):
        return right
    return right._replace(grad_weight=(right.grad_weight[0],) * len(right.grad_weight))


MUTANTS = {
    "kernel flipped": _flip_kernel,
    "output rounded": _round_to_half,
    "gradient of strides": _forget_strides_in_the_gradient,
    "first group only": _first_group_only,
    "bias gradient is a mean": lambda p, o, right: right._replace(grad_bias=right.grad_bias / 2),
    "another data type": lambda p, o, right: right._replace(y=right.y.astype("float64" if p.bias else "float16")),
    "one axis too many": lambda p, o, right: right._replace(y=right.y[None]),
    "NaN": lambda p, o, right: right._replace(grad_x=right.grad_x * np.nan),
}


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_verification_catches_a_wrong_convolution(mutant: Any) -> None:
    def run(xp: Any, problem: Problem, operands: Operands) -> Results:
        wrong: Results = mutant(problem, operands, compute(xp, problem, operands))
        return wrong

    found = verify(["numpy"], exact=30, real=6, run=run)
    assert not found.passed
    assert "Problem(" in found.backends[0].failures[0]


@pytest.mark.parametrize("part", Results._fields)
def test_verification_catches_an_error_just_beyond_the_bound(part: str) -> None:
    """Real values may have relative errors of about 1e-15; 1e-12 is too much."""

    def run(xp: Any, problem: Problem, operands: Operands) -> Results:
        right = compute(xp, problem, operands)
        value = getattr(right, part)
        value = value[0] if isinstance(value, tuple) else value
        value += 1e-12 * np.max(np.abs(value), initial=1)
        return right

    assert not verify(["numpy"], exact=0, real=6, run=run).passed


def test_verification_catches_an_exception() -> None:
    def run(xp: Any, problem: Problem, operands: Operands) -> Results:
        raise ZeroDivisionError("no groups")

    found = verify(["numpy"], exact=2, real=0, run=run)
    assert len(found.backends[0].failures) == 2
    assert "ZeroDivisionError: no groups, on Problem(" in found.backends[0].failures[0]


def test_a_verification_without_problems_does_not_pass() -> None:
    assert not BackendReport("numpy", "2").passed
    assert not verify(["numpy"], exact=0, real=0).passed
    assert not verify([], exact=0, real=0).passed


def test_every_array_module_is_verified_or_explained() -> None:
    present, missing = available_backends("numpy")
    assert present[0] == "numpy"
    assert sorted([*present, *missing]) == ["array_api_strict", "cupy", "numpy", "torch"]
    assert all("pip install" in reason or "GPU" in reason for reason in missing.values())


def test_a_wrong_convolution_is_exit_code_1_and_no_report(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
) -> None:
    right = refconv.conv
    monkeypatch.setattr(refconv, "conv", lambda x, weight, bias=None, **options: right(x, weight, None, **options))
    code, out, errors = run_command(capsys, "tour", "--quick", "--out", tmp_path / "report", "--json")
    assert code == 1
    assert "FAILED numpy: y is wrong in" in errors
    assert "Problem(" in errors
    assert "Traceback" not in errors
    results = json.loads(out)
    assert (results["passed"], results["report"]) == (False, None)
    assert not any(tmp_path.iterdir())


# The other steps


def test_photograph_is_real() -> None:
    photograph = load_photograph()
    assert photograph.shape == (227, 227, 3)
    assert photograph.dtype == np.float32
    assert 0 <= photograph.min() < 0.1 < 0.9 < photograph.max() <= 1


def test_alexnet(backend: Backend) -> None:
    found = run_alexnet(backend.xp, repetitions=1)
    assert [layer.output_shape for layer in found.layers] == [
        (96, 55, 55),
        (256, 27, 27),
        (384, 13, 13),
        (384, 13, 13),
        (256, 13, 13),
    ]
    assert found.total("parameters") == (2_334_080, 3_747_200)
    assert found.total("macs") == (665_784_864, 1_076_634_144)
    assert found.layers[1].macs == (223_948_800, 447_897_600)
    assert all(seconds > 0 for layer in found.layers for seconds in layer.seconds)
    assert found.feature_maps.shape == (96, 55, 55)
    assert found.feature_maps.min() == 0 < found.feature_maps.std()


@pytest.mark.thinned(5)  # NumPy alone in `make test`
def test_digits(backend: Backend) -> None:
    found = run_digits(backend.xp, plan=Plan(seeds=1, epochs=1, images=96), seed=3)
    assert (found.seeds, found.epochs, found.train_images, found.test_images) == ((3,), 1, 96, 450)
    assert not found.budget_reached
    parameters = {network.name: network.parameters for network in found.networks}
    assert parameters == {"dense": 23_946, "uniform, n=2": 14_730, "logarithmic, n=3": 12_426, "uniform, n=4": 10_122}


def test_too_little_time_means_fewer_epochs() -> None:
    found = run_digits(np, plan=Plan(seeds=3, epochs=9, seconds=0.01, images=64))
    assert (found.seeds, found.epochs) == ((0, 1), 1)
    assert found.budget_reached


def _digits(*accuracies: tuple[float, ...]) -> DigitsResult:
    networks = tuple(NetworkResult(f"net{i}", 10, values, 1.0) for i, values in enumerate(accuracies))
    return DigitsResult(networks, tuple(range(len(accuracies[0]))), 3, 1347, 450, budget_reached=False)


def test_a_null_result_is_called_one() -> None:
    found = _digits((0.98, 0.97, 0.96), (0.97, 0.96, 0.965))
    assert found.is_null
    assert found.conclusion().startswith("No clear difference: with 3 seeds, the means differ by at most 0.5 points")
    assert found.networks[0].mean == pytest.approx(0.97)
    assert found.networks[0].spread == pytest.approx(0.01)
    assert found.sampling_error == pytest.approx((0.9675 * 0.0325 / 450) ** 0.5)


def test_a_difference_is_called_one_but_no_ranking() -> None:
    found = _digits((0.98, 0.98, 0.98), (0.80, 0.81, 0.80))
    assert not found.is_null
    assert "between net0 (best) and net1 (worst)" in found.conclusion()
    assert "no ranking" in found.conclusion()


# The report


@pytest.fixture(scope="module")
def toured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A complete small tour: its folder and its output."""
    from rich.console import Console

    out, stream = tmp_path_factory.mktemp("tour") / "new" / "report", io.StringIO()
    run_tour(out, QUICK, ConsoleReporter(Console(file=stream, width=100), 4))
    return out, stream.getvalue()


def test_report_is_self_contained(toured: tuple[Path, str]) -> None:
    out, _ = toured
    assert sorted(path.name for path in out.iterdir()) == ["index.html", "results.json"]
    assert [path.name for path in out.parent.iterdir()] == ["report"]
    page = (out / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|<script|<link|@import|url\(", page)
    sources = re.findall(r'src="([^"]{21})', page)
    assert len(sources) == 4
    assert all(source.startswith("data:image/png;base64") for source in sources)
    assert page.count("alt=") == 4
    for stated in (
        "numpy", "665,784,864", "1,076,634,144", "Every check passed", "prefers-color-scheme: dark", "1707.09855",
        "NASA, public domain", "Local response", "logarithmic, n=3",
    ):  # fmt: skip
        assert stated in page


def test_a_narrow_window_shows_each_number_with_its_heading(toured: tuple[Path, str]) -> None:
    page = (toured[0] / "index.html").read_text(encoding="utf-8")
    assert "td::before { content: attr(data-label);" in page
    cells = re.findall(r"<td([^>]*)>([^<]*)</td>", page)
    modules = json.loads((toured[0] / "results.json").read_text("utf-8"))["verification"]["backends"]
    assert len(cells) == 5 * len(modules) + 6 * 7 + 4 * 2 + 4 * 5
    assert all("data-label=" in attributes for attributes, text in cells if text)
    headings = set(re.findall(r'data-label="([^",]*)', page))
    assert headings < set(re.findall(r"<th[^>]*>([^<]*)</th>", page))


def test_figures_of_the_report_fit_a_phone_and_are_cut_nowhere(toured: tuple[Path, str]) -> None:
    page = (toured[0] / "index.html").read_text(encoding="utf-8")
    for data in re.findall(r'src="data:image/png;base64,([^"]*)', page):
        image = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("L"))
        assert image.shape[1] == 896  # 5.6 inches: letters of 11 points are 7 points high on a phone
        assert min(edge.min() for edge in (image[0], image[-1], image[:, 0], image[:, -1])) == 255


def test_results_are_valid_json(toured: tuple[Path, str]) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    text = (toured[0] / "results.json").read_text(encoding="utf-8")
    results = json.loads(text, parse_constant=refuse)
    assert results["passed"] is True
    assert results["backend"] == "numpy"
    assert results["alexnet"]["macs_groups_2"] == 665_784_864
    assert {kind["name"]: kind["weights_kept"] for kind in results["connectivity"]} == {
        "dense": 1.0,
        "uniform, n=2": 0.5,
        "logarithmic, n=3": 0.375,
        "uniform, n=4": 0.25,
    }
    assert len(results["digits"]["networks"]) == 4


def test_progress_without_a_terminal_is_plain_lines(toured: tuple[Path, str]) -> None:
    _, printed = toured
    for step in ("[1/4] Verify: 16 random problems", "[2/4] AlexNet", "[3/4] Connectivity", "[4/4] Digits"):
        assert step in printed
    assert "worst error" in printed
    assert "\x1b" not in printed
    assert "\r" not in printed


def _earlier_report(out: Path) -> dict[str, str]:
    files = {
        "index.html": '<meta name="generator" content="refconv tour">earlier',
        "results.json": '{"generator": "refconv tour"}',
        "mine.txt": "kept",
    }
    out.mkdir(parents=True)
    for name, text in files.items():
        (out / name).write_text(text)
    return files


def _files(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir()}


def test_a_report_replaces_an_earlier_one_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "report"
    _earlier_report(out)
    assert write(out, {"a": 1}, "new page") == out / "index.html"
    assert _files(out) == {
        "index.html": "new page",
        "results.json": '{\n  "generator": "refconv tour",\n  "a": 1\n}\n',
        "mine.txt": "kept",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


@pytest.mark.parametrize("name", ["index.html", "results.json"])
def test_a_file_of_someone_else_is_not_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(ReportError, match="does not belong to a report of refconv tour"):
        run_tour(tmp_path, QUICK)
    assert _files(tmp_path) == {name: "mine"}


def test_a_place_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    (tmp_path / "page" / "index.html").mkdir(parents=True)
    for out in (tmp_path / "link", tmp_path / "page", tmp_path / ("a" * 300)):
        with pytest.raises(ReportError):
            run_tour(out, QUICK)


def test_an_exception_leaves_the_earlier_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    files = _earlier_report(tmp_path / "report")
    monkeypatch.setattr("refconv.tour.alexnet.run_alexnet", fail)
    with pytest.raises(MemoryError):
        run_tour(tmp_path / "report", QUICK)
    assert _files(tmp_path / "report") == files
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize(
    ("number", "code", "step"),
    [(signal.SIGTERM, 143, "[1/4]"), (signal.SIGINT, 130, "[1/4]"), long(signal.SIGINT, 130, "[4/4]")],
)
def test_an_interrupted_tour_leaves_the_earlier_report(tmp_path: Path, number: int, code: int, step: str) -> None:
    files = _earlier_report(tmp_path / "report")
    command = [sys.executable, "-m", "refconv", "tour", "--quick", "--out", str(tmp_path / "report")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        printed = ""
        while step not in printed:
            line = process.stderr.readline()
            assert line, f"the tour ended before {step}: {printed}"
            printed += line
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in err
    assert out == ""
    assert ("refconv: interrupted" in err) == (number == signal.SIGINT)
    assert _files(tmp_path / "report") == files
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
