"""Comparing groups: equal budgets, paired seeds, intervals, words; stopped and resumed to the same results."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import itertools
import json
import math
import multiprocessing
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refconv.cli import main
from refconv.cost import parse_groups, residual
from refconv.experiments.compare import (
    EVALUATION,
    FIGURE,
    RESULTS,
    TABLE,
    CompareObserver,
    InterruptedComparisonError,
    run_comparison,
)
from refconv.experiments.figures import STYLES, accuracy_by_budget
from refconv.experiments.paired import Interval, paired_interval, verdict
from refconv.experiments.tables import COLUMNS, evaluation, markdown, table_rows
from refconv.experiments.tasks import CompareError, CompareSettings
from refconv.experiments.widths import Network, match_width
from refconv.nn import Recipe, Split
from refconv.settings import engine, set_engine
from tests.nn_helpers import write_cifar

for module in ("scipy", "matplotlib"):
    pytest.importorskip(module, reason=f"{module} is not installed")

ROOT = Path(__file__).resolve().parents[1]

# --- Widths ---

IMAGES = [
    {"blocks": 2, "c_in": 1, "classes": 10, "side": 8},
    {"blocks": 1, "c_in": 3, "classes": 7, "side": 19},
    {"blocks": 3, "c_in": 2, "classes": 3, "side": 32},
]


@pytest.mark.parametrize("n", range(1, 8))
def test_more_channels_are_more_parameters(n: int) -> None:
    """match_width relies on this, although the sizes of logarithmic groups are rounded."""
    widths = range(2 ** (n - 1), 700)
    counts = [residual(f"log:{n}", channels=channels, **IMAGES[0]).parameters for channels in widths]
    assert all(a < b for a, b in itertools.pairwise(counts))


@given(
    groups=st.sampled_from(["dense", "2", "uniform:5", "uniform:8", "log:1", "log:3", "log:5"]),
    budget=st.integers(1, 40_000),
    images=st.sampled_from(IMAGES),
)
def test_no_other_width_is_nearer(groups: str, budget: int, images: dict[str, int]) -> None:
    spec = parse_groups(groups)
    allowed = range(spec.n, 500, spec.n) if spec.kind == "uniform" else range(2 ** (spec.n - 1), 500)
    counts = {}
    for channels in allowed:
        counts[channels] = residual(groups, channels=channels, **images).parameters
        if counts[channels] > 2 * budget:
            break
    nearest = min(counts, key=lambda channels: (abs(counts[channels] - budget), channels))
    if abs(counts[nearest] - budget) <= 0.1 * budget:
        assert match_width(groups, budget, **images) == nearest
    else:
        with pytest.raises(ValueError, match=f"{nearest} channels have {counts[nearest]} parameters"):
            match_width(groups, budget, **images)


def test_of_two_equally_near_widths_the_smaller() -> None:
    a, b = (residual("dense", channels=channels, **IMAGES[0]).parameters for channels in (19, 20))
    assert (a + b) % 2 == 0
    assert [match_width("dense", (a + b) // 2 + off, **IMAGES[0]) for off in (-1, 0, 1)] == [19, 19, 20]


@pytest.mark.parametrize(
    ("groups", "budget", "message"),
    [
        ("dense", 0, "budget must be at least 1"),
        ("dense", 10**7 + 1, "budget must be at most 10000000"),
        ("table", 3000, "groups=table has only one width"),
        ("lg:3", 3000, "groups must be"),
        ("dense", 100, "1 channels have"),
        ("uniform:999999999", 3000, "need at least 999999999 channels"),
        ("uniform:1000", 3000, "1000 channels have"),
        ("log:999999999999", 3000, "need at least"),
        ("log:12", 3000, "2048 channels have"),
    ],
)
def test_budgets_that_cannot_be_met(groups: str, budget: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        match_width(groups, budget, **IMAGES[0])


# --- Intervals and words ---


def test_interval_by_hand() -> None:
    # mean 2, s_d = √((4 + 0 + 1 + 9 + 4)/4) = √4.5, t_{0.975, 4} = 2.776445
    mean, low, high = paired_interval([0, 2, 3, 5, 0])
    assert mean == 2
    half = 2.776445 * math.sqrt(4.5) / math.sqrt(5)
    assert (low, high) == pytest.approx((2 - half, 2 + half), rel=1e-6)


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.998])
def test_interval_is_scipy_s(confidence: float) -> None:
    from scipy.stats import ttest_rel

    draw = np.random.default_rng(0)
    for n in (2, 3, 10, 31):
        a, b = draw.normal(size=(2, n))
        expected = ttest_rel(a, b).confidence_interval(confidence)
        found = paired_interval((a - b).tolist(), confidence)
        assert found[1:] == pytest.approx((expected.low, expected.high), rel=1e-9)


def test_equal_differences_leave_no_doubt() -> None:
    assert paired_interval([3, 3, 3]) == (3, 3, 3)
    assert paired_interval([0, 0]) == (0, 0, 0)
    with pytest.raises(ValueError, match="at least two"):
        paired_interval([1])
    with pytest.raises(ValueError, match="confidence must be"):
        paired_interval([1, 2], 1.0)


@pytest.mark.parametrize(
    ("alone", "corrected", "words"),
    [
        ((0, -1, 1), (0, -2, 2), "no clear difference"),
        ((1, 0, 2), (1, -1, 3), "no clear difference"),  # touching is not clear
        ((-1, -2, 0), (-1, -3, 1), "no clear difference"),
        ((0, 0, 0), (0, 0, 0), "no clear difference"),
        ((1, 1e-9, 2), (1, 0, 2), "better, taken alone"),
        ((-1, -2, -1e-9), (-1, -3, 0), "worse, taken alone"),
        ((2, 1, 3), (2, 0.5, 3.5), "better"),
        ((-2, -3, -1), (-2, -3.5, -0.5), "worse"),
        ((3, 3, 3), (3, 3, 3), "better"),
    ],
)
def test_verdicts(alone: Any, corrected: Any, words: str) -> None:
    assert verdict(Interval(*alone), Interval(*corrected)) == words


def made_up(right: dict[str, list[int]], budget: int = 1000) -> dict[str, Any]:
    """Return the evaluation on a data set of 200 test images, given the number of correct ones for each seed."""
    blank = np.zeros((0, 1, 8, 8), "float32")
    split = Split(blank, np.zeros(300, int), blank, np.zeros(200, int), ("a", "b"))
    networks = [Network("folder:/home/me", budget, groups, 4, 990, 12345) for groups in right]
    seeds = len(next(iter(right.values())))
    config = {"data": ["folder:/home/me"], "groups": list(right), "budgets": [budget], "seeds": seeds, "blocks": 2}
    config |= {"epochs": 1, "batch_size": 8, "lr": 0.1, "schedule": "constant"}
    counts = {network.key(seed): right[network.groups][seed] for network in networks for seed in range(seeds)}
    return evaluation(config, {"folder:/home/me": split}, networks, counts)


def test_summary_by_hand() -> None:
    result = made_up({"dense": [180, 182, 184], "log:3": [181, 184, 187], "2": [190, 192, 194], "4": [180, 181, 185]})
    dense, log3, two, four = result["networks"]
    assert dense["accuracies"] == [0.9, 0.91, 0.92]
    assert (dense["mean"], dense["difference"]) == (0.91, None)
    assert dense["deviation"] == pytest.approx(0.01)
    # differences 1, 2, 3 of 200: mean 2, s_d = 1, t_{0.975, 2} = 4.302653; of 3, t_{1 − 0.025/3, 2} = 7.648804
    assert log3["difference"]["mean"] == 0.01
    half, wide = (t / math.sqrt(3) / 200 for t in (4.302653, 7.648804))
    assert log3["difference"]["interval"] == pytest.approx([0.01 - half, 0.01 + half], rel=1e-5)
    assert log3["difference"]["corrected"] == pytest.approx([0.01 - wide, 0.01 + wide], rel=1e-5)
    assert log3["difference"]["verdict"] == "no clear difference"
    assert two["difference"]["interval"] == [0.05, 0.05]  # 10 of 200 for every seed: exactly equal
    assert two["difference"]["verdict"] == "better"
    assert four["difference"]["verdict"] == "no clear difference"
    p = (0.91 + 0.92 + 0.96 + 0.91) / 4
    assert result["data"]["folder:/home/me"]["standard_error"] == pytest.approx(math.sqrt(p * (1 - p) / 200))
    assert result["comparisons"] == 3
    assert result["conclusion"][:2] == [
        "folder, 1,000 parameters: 2 is better than dense by 5.00 points [+5.00, +5.00].",
        "folder: no clear difference from dense elsewhere.",
    ]
    assert "1 of 3 intervals exclude 0, " in result["conclusion"][2]
    assert "by chance alone about 0.15 would, if nothing differed" in result["conclusion"][2]
    assert "(Bonferroni), 1 still excludes it;" in result["conclusion"][2]
    assert result["conclusion"][3].startswith("folder: 200 test images alone leave a standard error of 1.86 points")
    json.dumps(result, allow_nan=False)


def test_null_results_stay_null() -> None:
    nothing = made_up({"dense": [180, 182], "log:3": [182, 180]})
    assert nothing["conclusion"][0] == "folder: no clear difference from dense in any comparison."
    # Differences 9, 10, 11, 12, 13 with eight more comparisons: clear taken alone, not for all together.
    draws = {f"{n}": [180] * 5 for n in range(2, 10)}
    one = made_up({"dense": [180] * 5, "log:3": [179, 178, 178, 179, 178], **draws})
    assert one["networks"][1]["difference"]["verdict"] == "worse"
    two = made_up({"dense": [180] * 5, "log:3": [179, 177, 180, 177, 178], **draws})
    assert two["conclusion"][0].startswith("folder, 1,000 parameters: log:3 is worse than dense by 0.90 points [−1.71")
    assert two["conclusion"][0].endswith("], taken alone.")


def test_tables_show_every_network() -> None:
    result = made_up({"dense": [180, 182, 184], "log:3": [181, 184, 181]})
    rows = table_rows(result, "folder:/home/me")
    assert rows[0] == ("1,000", "dense", "4", "990 (−1.0 %)", "12,345", "91.00 ± 1.00", "", "baseline")
    assert rows[1][6:] == ("+0.00 [−3.29, +3.29]", "no clear difference")
    text = markdown(result)
    assert all(f"| {' | '.join(row)} |" in text for row in [COLUMNS, *rows])
    assert all(sentence in text for sentence in result["conclusion"])
    assert "/home/me" not in text


# --- A whole comparison, on a few images in CIFAR-10's format ---


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> CompareSettings:
    return CompareSettings(
        data=[write_cifar(tmp_path_factory.mktemp("cifar"), 8, 8, brightness=20)],
        groups=["dense", "log:3"],
        budgets=[3000, 2000],
        seeds=3,
        blocks=1,
        recipe=Recipe(epochs=1, batch_size=16),
    )


@pytest.fixture(scope="module")
def whole(settings: CompareSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "a" / "b"
    run_comparison(settings, folder)
    return folder


def ends(folder: Path) -> Any:
    """Return the files of a comparison, without times and the order in which the trainings ended."""
    first, *rows = map(json.loads, (folder / RESULTS).read_text().splitlines())
    timeless = sorted(json.dumps({**row, "seconds": 0}) for row in rows)
    return first, timeless, [(folder / name).read_bytes() for name in (EVALUATION, TABLE, FIGURE)]


class TextbookRecipe(Recipe):
    """A recipe that trains only with the textbook."""

    def trainer(self, *arguments: Any, **options: Any) -> Any:
        assert engine() == "textbook"
        return super().trainer(*arguments, **options)


@pytest.mark.thinned(2)
@pytest.mark.parametrize("jobs", [1, 2])
def test_the_engine_reaches_the_processes(settings: CompareSettings, tmp_path: Path, jobs: int) -> None:
    few = dataclasses.replace(settings, seeds=2, budgets=[2000], recipe=TextbookRecipe(epochs=1, batch_size=16))
    with set_engine("textbook"):
        run_comparison(few, tmp_path, jobs=jobs)
    assert len((tmp_path / RESULTS).read_text().splitlines()) == 1 + 2 * 2


def test_what_a_comparison_leaves(settings: CompareSettings, whole: Path) -> None:
    assert sorted(path.name for path in whole.iterdir()) == sorted([RESULTS, EVALUATION, TABLE, FIGURE])
    first, *rows = map(json.loads, (whole / RESULTS).read_text().splitlines())
    assert first["settings"]["groups"] == ["dense", "log:3"]
    assert [(row["seed"], row["budget"], row["groups"]) for row in rows] == [
        (seed, budget, groups) for seed in range(3) for budget in (3000, 2000) for groups in ("dense", "log:3")
    ]
    result = json.loads((whole / EVALUATION).read_text())
    for network in result["networks"]:
        mine = [r for r in rows if (r["budget"], r["groups"]) == (network["budget"], network["groups"])]
        assert network["accuracies"] == [row["right"] / 8 for row in sorted(mine, key=lambda row: row["seed"])]
        assert abs(network["parameters"] / network["budget"] - 1) <= 0.1
    assert (whole / TABLE).read_text() == markdown(result)
    assert (whole / FIGURE).read_bytes()[:4] == b"\x89PNG"


def test_a_seed_is_the_same_training_whatever_else_is_compared(
    settings: CompareSettings, whole: Path, tmp_path: Path
) -> None:
    result = run_comparison(dataclasses.replace(settings, groups=["log:3", "dense"], budgets=[2000], seeds=2), tmp_path)
    before = json.loads((whole / EVALUATION).read_text())["networks"]
    expected = {e["groups"]: e["accuracies"][:2] for e in before if e["budget"] == 2000}
    assert {e["groups"]: e["accuracies"] for e in result["networks"]} == expected


def test_every_grouping_meets_the_images_in_the_order_of_its_seed(
    settings: CompareSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders: list[list[int]] = []
    trainer = Recipe.trainer

    def spy(self: Recipe, *arguments: Any, rng: np.random.Generator) -> Any:
        orders.append(copy.deepcopy(rng).permutation(40).tolist())
        return trainer(self, *arguments, rng=rng)

    monkeypatch.setattr(Recipe, "trainer", spy)
    run_comparison(dataclasses.replace(settings, seeds=2), tmp_path)
    assert len(orders) == 9  # the first only tries the recipe
    assert orders[:5] == [orders[0]] * 5
    assert orders[5:] == [orders[5]] * 4
    assert orders[0] != orders[5]


@pytest.mark.thinned(2)
@pytest.mark.parametrize("stop", [0, 1, 5, 11])
def test_a_comparison_that_was_stopped_ends_the_same(
    settings: CompareSettings, whole: Path, tmp_path: Path, stop: int
) -> None:
    seen: list[Any] = []

    class Recorder(CompareObserver):
        def begin(self, *numbers: int) -> None:
            seen.append(numbers)

        def after(self, row: Any) -> None:
            seen.append(row["right"])

    with pytest.raises(InterruptedComparisonError, match=f"after {stop} of 12 trainings, which are saved"):
        run_comparison(settings, tmp_path, observer=Recorder(), stopping=lambda: len(seen) > stop)
    assert [path.name for path in tmp_path.iterdir()] == [RESULTS]
    with (tmp_path / RESULTS).open("a") as file:  # as after a kill
        file.write('{"data": "cifar10:')
    run_comparison(settings, tmp_path, resume=True, observer=Recorder())
    assert ends(tmp_path) == ends(whole)
    assert (seen[0], seen[stop + 1], len(seen)) == ((0, 12), (stop, 12), 14)
    (tmp_path / EVALUATION).unlink()
    run_comparison(settings, tmp_path, resume=True)  # nothing is left to train
    assert ends(tmp_path) == ends(whole)


@pytest.mark.parametrize(
    "change",
    [{"right": -1}, {"right": 9}, {"right": True}, {"right": 10**400}, {"seed": True}, {"seed": 0.0}, {"budget": 2e3}],
)
def test_a_row_that_no_training_gave_is_refused(
    settings: CompareSettings, whole: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    first, row, *_ = (whole / RESULTS).read_text().splitlines()
    changed = json.dumps(json.loads(row) | change)
    for lines in ([first, changed], [first, row, row], ["[" * 100_000]):
        before = "".join(line + "\n" for line in lines)
        (tmp_path / RESULTS).write_text(before)
        with pytest.raises(CompareError, match="is damaged"):
            run_comparison(settings, tmp_path, resume=True, stopping=lambda: True)
        assert (tmp_path / RESULTS).read_text() == before


def test_two_comparisons_at_once_in_one_folder_are_refused(settings: CompareSettings, tmp_path: Path) -> None:
    pytest.importorskip("fcntl", reason="this system has no such locks")

    class Second(CompareObserver):
        def begin(self, *numbers: int) -> None:
            before = (tmp_path / RESULTS).read_bytes()
            for resume in (False, True):
                with pytest.raises(CompareError, match="is in use by another training or comparison"):
                    run_comparison(settings, tmp_path, resume=resume)
            assert (tmp_path / RESULTS).read_bytes() == before

    with pytest.raises(InterruptedComparisonError):
        run_comparison(settings, tmp_path, observer=Second(), stopping=lambda: True)


def test_a_training_under_way_is_stopped_and_not_counted(settings: CompareSettings, tmp_path: Path) -> None:
    asked = iter([False, False, True])  # before the first training, after its first step, after its second
    with pytest.raises(InterruptedComparisonError, match="after 0 of 12"):
        run_comparison(settings, tmp_path, stopping=lambda: next(asked))
    assert len((tmp_path / RESULTS).read_text().splitlines()) == 1


def test_a_full_disk_loses_nothing_that_was_saved(
    settings: CompareSettings, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs, real = iter(range(100)), os.fsync

    def full(file: int) -> None:
        if next(syncs) == 5:  # the settings take two: file and folder
            raise OSError(28, "No space left on device")
        real(file)

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            run_comparison(settings, tmp_path)
    run_comparison(settings, tmp_path, resume=True)
    assert ends(tmp_path) == ends(whole)


def test_a_run_that_cannot_resume_is_refused_and_nothing_is_overwritten(
    settings: CompareSettings, whole: Path, tmp_path: Path
) -> None:
    before = {path.name: path.read_bytes() for path in whole.iterdir()}
    replace = dataclasses.replace
    others = [
        ("already exists", settings, False),
        ("budgets=3000,2000, not budgets=2000", replace(settings, budgets=[2000]), True),
        ("groups=dense,log:3, not groups=dense,log:4", replace(settings, groups=["1", "log:4"]), True),
        ("seeds=3, not seeds=4", replace(settings, seeds=4), True),
        ("epochs=1, not epochs=2", replace(settings, recipe=replace(settings.recipe, epochs=2)), True),
    ]
    for message, other, resume in others:
        with pytest.raises(CompareError, match=message):
            run_comparison(other, whole, resume=resume)
    file = Path(settings.data[0].partition(":")[2]) / "test_batch.bin"
    contents = file.read_bytes()
    try:
        file.write_bytes(contents[:100] + bytes([contents[100] ^ 1]) + contents[101:])
        with pytest.raises(CompareError, match="other images"):
            run_comparison(settings, whole, resume=True)
    finally:
        file.write_bytes(contents)
    assert {path.name: path.read_bytes() for path in whole.iterdir()} == before
    with pytest.raises(CompareError, match="cannot resume: there is no"):
        run_comparison(settings, tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()
    good = before[RESULTS].split(b"\n")
    wrong = [
        b"",
        b"half",
        b"{}\n",
        b"[1]\n",
        b'{"settings": 3}\n',
        good[0] + b"\nhalf\n" + good[1] + b"\n",
        good[0] + b"\n" + good[1].replace(b'"log:3"', b'"log:9"').replace(b'"dense"', b'"log:9"') + b"\n",
        good[0] + b"\n" + good[1].replace(b'"right": ', b'"right": 0.') + b"\n",
    ]
    for text in wrong:
        (tmp_path / RESULTS).write_bytes(text)
        with pytest.raises(CompareError, match=r"cannot resume: .* is damaged"):
            run_comparison(settings, tmp_path, resume=True)
        assert (tmp_path / RESULTS).read_bytes() == text


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("groups must have length at least 2; got", {"groups": ["dense"]}),
        ("groups must not contain duplicates; got dense, dense", {"groups": ["dense", "uniform:1"]}),
        (f"groups must have length at most {len(STYLES)}, a figure's", {"groups": [str(n) for n in range(1, 9)]}),
        ("data must have length at least 1", {"data": []}),
        ("budgets must not contain duplicates", {"budgets": [2000, 2000]}),
        ("budgets must have length at least 1", {"budgets": []}),
        ("seeds must be at least 2; got 1", {"seeds": 1}),
        ("blocks must be at least 1; got 0", {"blocks": 0}),
        ("epochs must be at least 1; got 0", {"recipe": Recipe(epochs=0)}),
        ("dataset must be one of", {"data": ["mnist"]}),
        ("budgets must suit the groups and cifar10: budget=50 cannot be met with groups=dense: .*", {"budgets": [50]}),
        ("budgets must be at most 10000000", {"budgets": [10**9]}),
        ("schedule must be", {"recipe": Recipe(schedule="linear")}),
        ("lr must be", {"recipe": Recipe(lr=-1)}),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(
    settings: CompareSettings, tmp_path: Path, message: str, changes: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=message):
        run_comparison(dataclasses.replace(settings, **changes), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("package", ["scipy.stats", "matplotlib.figure"])
def test_a_missing_package_is_said_before_the_training(
    settings: CompareSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"need (SciPy|Matplotlib): pip install \1$"):
        run_comparison(settings, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("sets", [1, 2])
def test_the_figure_has_a_panel_for_each_data_set(monkeypatch: pytest.MonkeyPatch, sets: int) -> None:
    from matplotlib.figure import Figure

    result = made_up({"dense": [180, 182], "log:3": [170, 178]})
    name = result["settings"]["data"][0]
    if sets == 2:
        result["settings"]["data"].append("digits")
        result["data"]["digits"] = result["data"][name]
        result["networks"] += [{**network, "data": "digits"} for network in result["networks"]]
    drawn: list[Any] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k)))
    assert accuracy_by_budget(result)[:4] == b"\x89PNG"
    (figure,) = drawn
    assert len(figure.axes) == sets
    for axis in figure.axes:
        assert [tick.get_text() for tick in axis.get_xticklabels()] == ["1,000"]
        assert "parameters" in axis.get_xlabel()
        assert axis.get_ylabel() == "test accuracy (%)"
        dense, log3 = axis.containers
        assert (dense.get_label(), log3.get_label()) == ("dense", "log:3")
        for bars, mean, deviation, place in (
            (dense, 90.5, 1 / math.sqrt(2), -0.15),
            (log3, 87, 4 / math.sqrt(2), 0.15),
        ):
            (segment,) = bars.lines[2][0].get_segments()
            assert bars.lines[0].get_ydata() == pytest.approx([mean])
            assert segment[:, 1].tolist() == pytest.approx([mean - deviation, mean + deviation])
            assert segment[0, 0] == pytest.approx(place)
        assert axis.get_xlim() == (-0.5, 0.5)
    assert "2 seeds" in figure.get_supxlabel()


def test_styles_differ_without_colour() -> None:
    for key in ("color", "marker", "linestyle"):
        assert len({style[key] for style in STYLES}) == len(STYLES)


# --- In processes, and as a command ---


def test_a_process_that_dies_is_an_error_and_the_rest_goes_on(
    settings: CompareSettings, whole: Path, tmp_path: Path
) -> None:
    class Killer(CompareObserver):
        def after(self, row: Any) -> None:
            for child in multiprocessing.active_children():
                child.kill()

    with pytest.raises(CompareError, match="process died"):
        run_comparison(settings, tmp_path, jobs=2, observer=Killer())
    assert multiprocessing.active_children() == []
    run_comparison(settings, tmp_path, resume=True)
    assert ends(tmp_path) == ends(whole)


def arguments(settings: CompareSettings, out: Path) -> list[str]:
    options = "--budgets=3000,2000 --seeds=3 --blocks=1 --epochs=1 --batch-size=16"
    return ["compare", "--data", settings.data[0], "--groups", "dense, log:3", *options.split(), "--out", str(out)]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_training_that_diverges_says_so(
    settings: CompareSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str], jobs: int
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*arguments(settings, tmp_path), "--lr=1e9", f"--jobs={jobs}"])
    shown = capsys.readouterr()
    assert (stop.value.code, shown.out) == (2, "")
    assert re.fullmatch(
        r"refconv: the loss is (nan|inf) at step \d of \S+, \S+ parameters, seed \d: the training diverged; start "
        "again with a smaller --lr and another --out",
        shown.err.splitlines()[-1],
    )
    assert "Warning" not in shown.err


@pytest.mark.skipif(os.name != "posix", reason="sends signals as a terminal on POSIX does")
def test_ctrl_c_ends_every_process_and_says_how_to_go_on(
    settings: CompareSettings, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments(settings, tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "refconv", *given, "--jobs=2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline().startswith(" 1/12  cifar10, ")
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to all of them
    out, err = process.communicate(timeout=60)  # waits for all processes that have the pipes
    assert process.returncode == 130
    assert out == ""
    last = err.splitlines()[-1]
    assert last.startswith("refconv: interrupted after ")
    assert "of 12 trainings, which are saved; to resume: refconv compare --data cifar10:" in last
    assert last.endswith(" --jobs=2 --resume")
    assert "Traceback" not in err
    with pytest.raises(SystemExit) as stop:
        main([*given, "--jobs=1", "--resume", "--json"])
    shown = capsys.readouterr()
    assert stop.value.code == 0
    assert json.loads(shown.out) == json.loads((tmp_path / EVALUATION).read_text())
    assert "resuming after" in shown.err
    assert "12/12  cifar10, 2,000 parameters, log:3, seed 2" in shown.err
    assert ends(tmp_path) == ends(whole)


def test_the_tables_on_standard_output(
    settings: CompareSettings, whole: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*arguments(settings, whole), "--resume"])
    shown = capsys.readouterr()
    assert stop.value.code == 0
    result = json.loads((whole / EVALUATION).read_text())
    words = " ".join(shown.out.split())
    for row in table_rows(result, settings.data[0]):
        assert " ".join(row).replace("  ", " ") in words
    for sentence in result["conclusion"]:
        assert sentence in words
    assert shown.out.endswith(f"{whole}\n")
    monkeypatch.setenv("COLUMNS", "50")
    with pytest.raises(SystemExit):
        main([*arguments(settings, whole), "--resume"])
    narrow = capsys.readouterr().out.removesuffix(f"{whole}\n")
    assert max(map(len, narrow.splitlines())) <= 50
    for budget, groups, *_ in table_rows(result, settings.data[0]):
        assert len(re.findall(rf"^ +{budget} +{groups} ", narrow, re.MULTILINE)) > 1  # in every part


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--data", ""], "data must have length at least 1"),
        (["--data", "cifar10:/nowhere"], "nowhere"),
        (["--groups", "dense,lg:3"], "'log:N'"),
        (["--groups", "dense,table"], "groups=table has only one width"),
        (["--budgets", "7000,many"], "--budgets must be whole numbers"),
        (["--budgets", "-7000"], "--budgets must be whole numbers"),
        (["--budgets", "100"], "budget=100 cannot be met with groups=dense"),
        (["--budgets", "99999999999"], "--budgets must be at most 10000000"),
        (["--seeds", "1"], "1 is not in the range"),
        (["--jobs", "0"], "0 is not in the range"),
        (["--lr", "nan"], "lr must be finite"),
        (["--backend", "jax"], "'jax' is not an array module"),
        (["--out", __file__], "it is a file"),
        (["--out", f"{__file__}/folder"], "must be a folder that can be written"),
        (["--resume"], "cannot resume: there is no"),
        (["digits"], "unexpected extra argument"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, given: list[str], message: str
) -> None:
    if "--data" not in given and importlib.util.find_spec("sklearn") is None:
        pytest.skip("scikit-learn is not installed: no digits")
    with pytest.raises(SystemExit) as stop:
        main(["compare", "--data", "digits", "--out", str(tmp_path / "new"), *given])
    shown = capsys.readouterr()
    assert (stop.value.code, shown.out) == (2, "")
    assert shown.err.startswith("refconv: ")
    assert message in shown.err
    assert len(shown.err.splitlines()) == 1
    assert not (tmp_path / "new").exists()


# --- What the documentation shows ---


def test_the_page_shows_the_committed_comparison() -> None:
    result = json.loads((ROOT / "docs" / "comparison.json").read_text("utf-8"))
    assert markdown(result) in (ROOT / "docs" / "compare.md").read_text("utf-8")
    sets = {
        name: Split(*[np.zeros((data[f"{part}_images"],)) for part in ("train", "train", "test", "test")], ())
        for name, data in result["data"].items()
    }
    counts = {}
    networks = []
    for entry in result["networks"]:
        tested = result["data"][entry["data"]]["test_images"]
        networks.append(Network(*(entry[f.name] for f in dataclasses.fields(Network))))
        counts |= {networks[-1].key(seed): round(a * tested) for seed, a in enumerate(entry["accuracies"])}
        if entry["data"] == "digits":
            assert entry["mean"] >= 0.975
    assert result["settings"]["seeds"] >= 10
    again = evaluation(result["settings"], sets, networks, counts)
    assert [e["mean"] for e in again["networks"]] == [e["mean"] for e in result["networks"]]
    assert again["conclusion"] == result["conclusion"]
    for before, now in zip(result["networks"], again["networks"], strict=True):
        for key in ("interval", "corrected"):
            if before["difference"] is not None:
                assert now["difference"][key] == pytest.approx(before["difference"][key], abs=1e-12)
