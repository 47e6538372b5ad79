"""docs/engine.md and the scripts behind it: the page is made from the records, and every constant is measured."""

import ast
import contextlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

import refconv
from refconv.bench.workloads import Layer
from refconv.cpu import choices, plan
from tests.helpers import script

ROOT = Path(__file__).resolve().parents[1]
CPU = ROOT / "refconv" / "cpu"


def constants() -> set[str]:
    """Return the names of the constants that the engine's modules define."""
    found: set[str] = set()
    for path in CPU.glob("*.py"):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.Assign) and not isinstance(node.value, ast.Name):
                names = [name.id for name in ast.walk(node.targets[0]) if isinstance(name, ast.Name)]
                found.update(name for name in names if name.isupper())
    return found


def test_every_constant_of_the_engine_is_measured():
    thresholds = script("benchmarks/thresholds.py")
    assert {"TILE_BYTES", "SCATTER_APART", "FEW"} <= constants()
    assert constants() <= {*thresholds.COSTS, *(trial.name for trial in thresholds.trials())}


def test_every_way_can_be_taken_and_leaves_nothing_behind():
    thresholds = script("benchmarks/thresholds.py")
    modules = (choices, plan, *thresholds.MODULES)
    before = [dict(vars(module)) for module in modules]
    for trial in thresholds.trials():
        for way in trial.ways.values():
            with way():
                pass
    assert [dict(vars(module)) for module in modules] == before


def test_a_line_that_has_changed_is_seen():
    thresholds = script("benchmarks/thresholds.py")
    way = thresholds.source(plan._plan, "parts=5 if", "parts=1 if")()
    with pytest.raises(ValueError, match="_plan must contain 'parts=5 if' once; it has changed"):
        way.__enter__()


def test_an_engine_is_timed_both_ways():
    thresholds = script("benchmarks/thresholds.py")
    case = thresholds.Case(Layer("", 2, 1, 6, 2, 3, padding=1), "forward", "", (("no", "below"), ("yes", "above")))
    ways = {"yes": thresholds.constant(choices, "HEAVY", 0), "no": thresholds.constant(choices, "HEAVY", 2**60)}
    trial = thresholds.Trial("HEAVY", choices, "", ways, [case])
    found = thresholds.result(trial, case, 2, 0.0)
    assert (found["side"], found["chosen"], list(found["gains"])) == ("below", "no", ["yes"])
    assert found["call"] == "1→2 channels, 3×3, 2×6×6"
    assert set(found["seconds"]) == {"yes", "no"}
    with thresholds.constant(choices, "HEAVY", 0)():
        assert thresholds.result(trial, case, 1, 0.0)["side"] == "above"


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [([1.2, 1.0], "pays"), ([1.02, 0.98], "no difference"), ([1.2, 0.96], "wrong")],
)
def test_verdicts(gains, verdict):
    assert script("benchmarks/thresholds.py").verdict([{"gains": {"a": gain}} for gain in gains]) == verdict


def test_every_set_up_of_the_steps_computes_the_same():
    steps = script("benchmarks/engine_steps.py")
    rng = np.random.default_rng(0)
    x, w, g = (rng.integers(-3, 4, shape) * 1.0 for shape in ((2, 4, 8, 8), (6, 2, 3, 3), (2, 6, 8, 8)))
    expected = refconv.conv_backward(g, x, w, padding=1, groups=2)
    assert {set_up for step in steps.STEPS for set_up in step} == set(steps.SET_UPS)
    for switches in steps.SET_UPS.values():
        with contextlib.ExitStack() as stack:
            for switch in switches():
                stack.enter_context(switch)
            found = refconv.conv_backward(g, x, w, padding=1, groups=2)
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_page_and_figures_are_made_from_the_records():
    make = script("docs/make_engine.py")
    page = (ROOT / "docs" / "engine.md").read_text("utf-8")
    assert make.page() == page
    named = re.findall(r"\]\((engine/.*?\.png)\)", page)
    assert named == sorted(f"engine/{path.name}" for path in (ROOT / "docs" / "engine").iterdir())
    assert list(make.draw_all()) == [name.removeprefix("engine/") for name in named]


def test_a_figure_shows_every_layer_and_the_roof():
    make = script("docs/make_engine.py")
    record = json.loads((ROOT / "benchmarks" / "results" / "engine_steps.json").read_text("utf-8"))
    axis = make.figure(record, 0).axes[0]
    assert [text.get_text() for text in axis.get_yticklabels()] == [make.name(n) for n in record["layers"]][::-1]
    assert axis.lines[-1].get_xdata() == [record["gflops"]["one thread"]] * 2
