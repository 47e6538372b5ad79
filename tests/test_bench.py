"""Benchmarks: every peer computes the same, in a separate process, and ratios are ratios of medians."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import tracemalloc
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from refconv import settings, textbook
from refconv.bench import peers, run
from refconv.bench.peers import PASSES, PEERS, can, operands, threads
from refconv.bench.record import BenchError, header, start, write
from refconv.bench.record import run as run_python
from refconv.bench.roofs import roofs
from refconv.bench.run import Settings, run_bench, summary
from refconv.bench.timing import median_seconds
from refconv.bench.worker import measure
from refconv.bench.workloads import WORKLOADS, Layer
from refconv.settings import cores
from refconv.testing.oracles.definition import (
    definition_bias_grad,
    definition_conv,
    definition_input_grad,
    definition_weight_grad,
)
from tests.helpers import run_command, script

ROOT = Path(__file__).resolve().parents[1]
ROOFS = {"gflops": 100.0, "gigabytes_per_second": 10.0}
LAYERS = [
    Layer("dense", 2, 3, 7, 4, 3, stride=2, padding=1),
    Layer("uniform", 2, 4, 6, 8, 3, padding=1, spec="2"),
    Layer("logarithmic", 1, 8, 5, 8, 3, padding=1, spec="log:3"),
    Layer("depthwise", 2, 4, 5, 4, 2, spec="4"),
]


def flat(value: Any) -> list[Any]:
    """Return the arrays of nested results, channels first."""
    if isinstance(value, list | tuple):
        return [array for member in value for array in flat(member)]
    return [value.detach().numpy() if hasattr(value, "detach") else np.asarray(value)]


def expected(layer: Layer) -> dict[str, Any]:
    """Return the results by the definition, group by group."""
    x, weights, bias, grad = operands(layer, "float64")
    groups = layer.groups
    more = {"stride": (layer.stride,) * 2, "padding": ((layer.padding,) * 2,) * 2, "dilation": (1, 1)}
    parts: dict[str, list[Any]] = {"y": [], "x": [], "weight": [], "bias": []}
    for ins, outs, weight in zip(groups.in_channels, groups.out_channels, weights, strict=True):
        part, up = x[:, list(ins)], grad[:, list(outs)]
        parts["y"].append(definition_conv(part, weight, bias[list(outs)], **more))
        parts["x"].append(definition_input_grad(up, weight, part.shape, **more))
        parts["weight"].append(definition_weight_grad(up, part, weight.shape[2:], **more))
        parts["bias"].append(definition_bias_grad(up))
    joined: dict[str, Any] = {
        name: np.concatenate(parts[name], 0 if name == "bias" else 1) for name in ("y", "x", "bias")
    }
    joined["weight"] = [np.concatenate(parts["weight"])] if groups.is_uniform else parts["weight"]
    return joined


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("what", PASSES)
def test_every_peer_computes_the_same(peer: str, layer: Layer, what: str) -> None:
    reason = can(peer, layer, "float64", what)
    if reason is not None:
        pytest.skip(f"{peer}: {reason}")
    right = expected(layer)
    for call in PEERS[peer](layer, "float64", what).values():
        found, wanted = flat(call()), [right["y"]]
        if what != "forward":
            wanted = [right["x"], right["bias"], *right["weight"]]
        for array in wanted:
            layouts = [array, array.transpose(0, 2, 3, 1)] if array.ndim == 4 else [array]
            assert any(
                candidate.shape == a.shape and np.allclose(candidate, a, rtol=1e-9, atol=1e-11)
                for candidate in found
                for a in layouts
            )


@pytest.mark.parametrize("peer", ["refconv", "textbook", "torch"])
def test_the_backward_pass_is_timed_alone(peer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := can(peer, LAYERS[0], "float64", "backward"):
        pytest.skip(f"{peer}: {reason}")

    package = importlib.import_module("torch.nn.functional" if peer == "torch" else "refconv")
    name, forwards = ("conv2d" if peer == "torch" else "conv"), []
    original = getattr(package, name)
    monkeypatch.setattr(package, name, lambda *args, **more: forwards.append(1) or original(*args, **more))
    for what, count in {"training": 1, "backward": 0}.items():
        for call in PEERS[peer](LAYERS[0], "float64", what).values():
            for _ in range(2):  # it can be repeated
                forwards.clear()
                found = [array.shape for array in flat(call())]
                assert {(4,), (2, 3, 7, 7), (4, 3, 3, 3)} <= {*found}
                assert (len(forwards), len(found) <= 3) == (count, what == "backward" or peer == "torch")


def test_the_textbook_peer_runs_the_textbook(monkeypatch: pytest.MonkeyPatch) -> None:
    class UsedError(Exception):
        pass

    def correlate(*arguments: Any) -> Any:
        raise UsedError

    monkeypatch.setattr(textbook, "correlate", correlate)
    monkeypatch.setenv("REFCONV_ENGINE", "fast")
    PEERS["refconv"](LAYERS[0], "float32", "forward")["default"]()
    with pytest.raises(UsedError):
        PEERS["textbook"](LAYERS[0], "float32", "forward")["default"]()


def test_multiply_adds_are_alexnets() -> None:
    macs = {layer.name: layer.macs for layer in WORKLOADS["alexnet"]}
    assert {name: count // 8 for name, count in macs.items()} == {
        "conv1": 105_415_200, "conv2": 223_948_800, "conv3": 149_520_384, "conv4": 112_140_288, "conv5": 74_760_192
    }  # fmt: skip
    assert sum(layer.macs for layer in WORKLOADS["alexnet-dense"]) == 8 * 1_076_634_144


def test_what_cannot_be_timed_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("torch", "onnx") else found(name))
    monkeypatch.setitem(peers._PACKAGES, "onnxruntime", "numpy")
    layer = LAYERS[0]
    assert can("torch", layer, "float32", "forward") == "torch is not installed"
    assert can("onnxruntime", layer, "float32", "forward") == "onnx is not installed"
    assert can("scipy", layer, "float32", "training") == "it has no gradients"
    assert can("scipy", layer, "float32", "backward") == "it has no gradients"
    assert can("scipy", replace(layer, batch=10**6), "float32", "forward") == "it would take minutes"
    assert can("textbook", layer, "float64", "training") is None
    assert can("jax", replace(layer, threads=1), "float32", "forward") in (
        "its threads cannot be set", "jax is not installed"
    )  # fmt: skip
    assert can("textbook", replace(layer, threads=cores()), "float32", "forward") is None
    assert can("textbook", replace(layer, threads=cores() + 1), "float32", "forward") == f"there are {cores()} cores"


def test_a_layer_says_how_many_threads_are_used() -> None:
    one = replace(LAYERS[0], threads=1)
    before = settings._workers.get()
    with threads("refconv", one):
        assert settings._workers.get() == 1
    with threads("refconv", LAYERS[0]):
        assert settings._workers.get() == before
    with threads("textbook", one):
        assert {pool["num_threads"] for pool in threadpool_info()} <= {1}
    if importlib.util.find_spec("torch") is not None:
        import torch

        found = torch.get_num_threads()
        with threads("torch", one):
            assert torch.get_num_threads() == 1
        torch.set_num_threads(found)
    assert [layer.threads for layer in WORKLOADS["threads"]][:3] == [1, 2, 4]
    assert {layer.macs for layer in WORKLOADS["threads"]} == {WORKLOADS["alexnet"][1].macs}


def test_the_worker_sets_the_threads_of_a_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int | None] = []
    watched = {"default": lambda: found.append(settings._workers.get())}
    monkeypatch.setitem(PEERS, "refconv", lambda layer, dtype, what: watched)
    monkeypatch.setitem(WORKLOADS, "threads", WORKLOADS["threads"][:1])
    assert measure("refconv", "threads", "numpy", "float32", "forward", 0.0)["1"]["variant"] == "default"
    assert set(found) == {1}


def test_elements_are_of_input_weights_and_output() -> None:
    assert LAYERS[1].elements == 2 * 4 * 36 + 8 * 2 * 9 + 2 * 8 * 36


def test_roofs_are_rates() -> None:
    found = roofs("float64", 0.0, side=64, copied=2**16)
    assert list(found) == ["gflops", "gigabytes_per_second"]
    assert all(0.001 < rate < 1e6 for rate in found.values())


def test_the_median_is_of_repeated_calls() -> None:
    calls: list[int] = []
    assert 0 <= median_seconds(lambda: calls.append(1), 0.0) < 0.1
    assert len(calls) == 7  # two to warm up, and the minimum for a median


def test_ratios_are_of_medians_over_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"refconv": iter([1.0, 9.0, 2.0]), "textbook": iter([8.0, 4.0, 1.0])}
    order: list[str] = []

    def measured(peer: str, workload: str, settings: Settings) -> dict[str, Any]:
        order.append(peer)
        if peer == "torch":
            return {"1×3×8×8": {"reason": "torch is not installed"}}
        return {"1×3×8×8": {"seconds": next(times[peer]), "variant": "default"}}

    peaks = iter([3.0, 5.0, 4.0])
    monkeypatch.setattr(run, "_measure", measured)
    monkeypatch.setattr(run, "_roofs", lambda settings: {"gflops": next(peaks), "gigabytes_per_second": 2.0})
    monkeypatch.setattr(run._Pace, "is_kept", lambda self: True)
    record = run_bench(Settings(("small",), ("textbook", "torch"), rounds=3))
    assert order == ["refconv", "textbook", "torch"] * 3
    assert record["slowed"] == 0
    assert record["roofs"] == {"gflops": 5.0, "gigabytes_per_second": 2.0}
    own, textbook, torch = record["results"]
    assert (own["ratio"], own["median"]) == (1.0, 2.0)
    assert (own["macs"], own["bytes"]) == (36 * 4 * 27, 4 * (3 * 64 + 4 * 27 + 4 * 36))
    assert (textbook["ratio"], textbook["median"], textbook["smallest"], textbook["largest"]) == (0.5, 4.0, 1.0, 8.0)
    assert torch["reason"] == "torch is not installed"
    assert summary(record) == {"small": {"textbook": 0.5}}
    json.dumps(record)


@pytest.mark.parametrize(("patience", "seconds", "slowed"), [(60.0, [1.0, 4.0], 0), (0.0, [9.0, 5.0], 1)])
def test_a_process_that_was_slowed_down_runs_again(
    monkeypatch: pytest.MonkeyPatch, patience: float, seconds: list[float], slowed: int
) -> None:
    """The pace is measured before and after each process; the machine slows down only during the first one."""
    kept, times = iter([True, False, True, True, True, True]), iter([9.0, 1.0, 4.0] if patience else [9.0, 5.0])
    monkeypatch.setattr(run._Pace, "is_kept", lambda self: next(kept))
    monkeypatch.setattr(run, "_roofs", lambda settings: ROOFS)
    monkeypatch.setattr(run, "_measure", lambda *_: {"1×3×8×8": {"seconds": next(times), "variant": "default"}})
    record = run_bench(Settings(("small",), ("textbook",), rounds=1, patience=patience))
    assert [result["median"] for result in record["results"]] == seconds
    assert record["slowed"] == slowed


def test_the_pace_is_that_of_the_best_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    copying, multiplying = [1.0, 1.1, 1.3, 0.5, 1.0], [2.0, 2.0, 2.0, 2.0, 1.0]
    times = iter([n for pair in zip(copying, multiplying, strict=True) for n in (pair[0],) * 4 + (pair[1],) * 8])
    monkeypatch.setattr(run, "wall_seconds", lambda call: next(times))
    pace = run._Pace()
    assert [pace.is_kept() for _ in copying] == [True, True, False, True, False]


def test_a_peer_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run._Pace, "is_kept", lambda self: True)
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(BenchError, match="measuring roofs failed: exit code 1"):
        run_bench(Settings(("small",), (), rounds=1))
    monkeypatch.setattr(run, "_roofs", lambda settings: ROOFS)
    with pytest.raises(BenchError, match="refconv failed on small: exit code 1"):
        run_bench(Settings(("small",), (), rounds=1))


@pytest.mark.long
def test_the_command_times_for_real(capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(run._Pace, "is_kept", lambda self: True)
    arguments = ["bench", "small", "--peers", "textbook", "--rounds", "1", "--seconds", "0.01"]
    code, out, err = run_command(capsys, *arguments, "--json", "--out", str(tmp_path / "record.json"))
    record = json.loads(out)
    steps = ["roofs", "small, refconv", "small, textbook"]
    assert (code, err.splitlines()) == (0, [f"round 1/1: {step}" for step in steps])
    assert all(rate > 0 for rate in record["roofs"].values())
    assert [result["peer"] for result in record["results"]] == ["refconv", "textbook"]
    assert all(result["median"] > 0 for result in record["results"])
    assert json.loads((tmp_path / "record.json").read_text()) == record
    monkeypatch.setattr(run, "_roofs", lambda settings: ROOFS)
    code, out, err = run_command(capsys, *arguments)
    assert code == 0
    assert "1×3×8×8" in out


HEADER = ["date", "command", "machine", "versions"]


def test_every_record_begins_alike(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        found = list(json.loads(path.read_text("utf-8")))
        begins = [key for key in HEADER if key in found]  # the settings determine the command of refconv bench
        assert found[: len(begins)] == begins
        assert {"date", "versions"} <= {*begins}
    monkeypatch.setattr(sys, "argv", ["/somewhere/memory.py"])
    given = Namespace(rounds=2, json=tmp_path / "record.json", worker=None)
    write(header(given), given.json)
    record = json.loads(given.json.read_text("utf-8"))
    assert list(record) == HEADER
    assert record["command"] == "python benchmarks/memory.py --rounds 2"
    assert list(record["machine"]) == ["processor", "cores", "system"]
    assert list(record["versions"]) == ["python", "refconv", "numpy"]


def test_processes_that_measure_lack_what_slows_blas(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        monkeypatch.setenv(name, "1")
    code = "import json, os; print(json.dumps([name for name in os.environ if name.startswith('OPENBLAS')]))"
    assert run_python("it failed", "-c", code) == []
    with start("-c", code) as process:
        assert json.loads(process.communicate()[0]) == []
    with pytest.raises(BenchError, match=r"^it failed: exit code 3$"):
        run_python("it failed", "-c", "raise SystemExit(3)")


def test_untimed_layers_are_listed_below_the_table(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(peer: str, workload: str, settings: Settings) -> dict[str, Any]:
        reason = {"reason": "there are 2 cores"}
        return {
            layer.name: {"seconds": 2.0, "variant": "default"} if layer.name in "12" else reason
            for layer in WORKLOADS[workload]
        }

    monkeypatch.setattr(run, "_measure", measured)
    monkeypatch.setattr(run, "_roofs", lambda settings: ROOFS)
    monkeypatch.setattr(run._Pace, "is_kept", lambda self: True)
    code, out, _ = run_command(capsys, "bench", "threads", "--peers", "textbook", "--rounds", "1")
    assert code == 0
    assert "2000.00" in out
    assert "4, 8, 16, 32, 64: not timed, there are 2 cores" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vgg"], "WORKLOADS must be one of alexnet"),
        (["--peers", "caffe"], "peers must be one of refconv"),
        (["--dtype", "int8"], "dtype must be one of float32, float64"),
        (["--pass", "back"], "pass must be one of forward, backward, training"),
        (["--rounds", "0"], "0 is not in the range"),
        (["--seconds", "0"], "seconds must be more than 0"),
        (["--seconds", "nan"], "seconds must be more than 0"),
        (["--patience", "-1"], "patience must be at least 0"),
        (["--backend", "array_api_strict"], "backend must be one of numpy, cupy, torch"),
        (["--out", "."], "it is a folder"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(capsys: Any, arguments: list[str], message: str) -> None:
    code, out, err = run_command(capsys, "bench", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def made_up() -> dict[str, Any]:
    """Return a record of workloads of all kinds, with times that depend only on the number of layers."""
    results: list[dict[str, Any]] = []
    for workload in ("alexnet", "alexnet-dense", "batch", "threads"):
        for seconds, layer in enumerate(WORKLOADS[workload], 1):
            for peer in ("refconv", "textbook"):
                found: dict[str, Any] = {"workload": workload, "layer": layer.name, "peer": peer}
                found |= {"macs": layer.macs, "bytes": 4096}
                if (layer.threads or 1) < 4:
                    found |= {"median": seconds * (1 + (workload == "alexnet-dense")), "ratio": 1.0}
                results.append(found)
    settings = {"dtype": "float32", "pass": "forward", "rounds": 1, "seconds": 1.0}
    machine = {"processor": "abacus", "cores": 2}
    told = {"date": "today", "machine": machine, "versions": {}, "settings": settings}
    return {**told, "roofs": ROOFS, "results": results}


def test_the_page_shows_the_records() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
    assert script("docs/make_benchmarks.py").page() == page
    named = re.findall(r"\]\((benchmarks/.*?\.png)\)", page)
    assert sorted(named) == sorted(f"benchmarks/{path.name}" for path in (ROOT / "docs" / "benchmarks").iterdir())


def test_a_record_is_shown_with_its_contents() -> None:
    make = script("docs/make_benchmarks.py")
    section = make.section("mine", made_up())
    assert "groups: 0.50 of the time without groups, 0.62 of the multiply-adds" in section
    assert re.findall(r"\((benchmarks/.*)\)", section) == [
        f"benchmarks/{kind}_mine.png" for kind in ("time", "roofline", "scaling")
    ]
    assert "| threads | 2 |" in section
    assert "| threads | 4 |" not in section
    without = made_up()
    del without["roofs"]
    assert make.kinds(without) == ["time", "scaling"]
    without["results"] = [result for result in without["results"] if result["workload"] == "alexnet"]
    assert make.kinds(without) == ["time"]
    assert "with two groups" not in make.section("mine", without)


def test_figures_are_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="Matplotlib is not installed: no figure is drawn")
    make = script("docs/make_benchmarks.py")
    monkeypatch.setattr(make, "RESULTS", tmp_path)
    (tmp_path / "bench_mine.json").write_text(json.dumps(made_up()), "utf-8")
    images = make.draw_all()
    assert list(images) == ["time_mine.png", "roofline_mine.png", "scaling_mine.png"]
    assert all(image.startswith(b"\x89PNG") for image in images.values())
    time, roofline, scaling = (make.KINDS[kind][0](made_up()) for kind in make.KINDS)
    assert [len(line.get_xdata()) for line in time.axes[0].lines] == [16, 16]
    assert [line.get_label() for line in roofline.axes[0].lines][-2:] == [
        "matrix product,\n100 GFLOP/s",
        "copying,\n10 GB/s",
    ]
    assert [axis.get_title() for axis in scaling.axes] == ["batch", "threads"]


def test_every_marker_of_a_roofline_is_another() -> None:
    make = script("docs/make_benchmarks.py")
    markers = [mark["marker"] for mark in make.MARKS]
    assert len(set(markers)) == len(markers) >= len(WORKLOADS) - 1


def test_memory_excludes_arguments_and_result(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = script("benchmarks/memory.py")
    record = json.loads((ROOT / "benchmarks" / "results" / "memory.json").read_text("utf-8"))
    assert list(record["extra_bytes"]) == list(memory.PASSES)
    assert record["columns_bytes"] == memory.COLUMNS
    assert all(
        0 < found <= record["limit_bytes"] for extra in record["extra_bytes"].values() for found in extra.values()
    )
    monkeypatch.setattr(memory, "INPUT", (2, 64, 16, 16))
    monkeypatch.setattr(memory.refconv, "conv", lambda x, weight, padding: 2 * x + 1)
    allocated = memory.extra_bytes("forward")["allocated"]
    tracemalloc.stop()
    assert 4 * 2 * 64 * 16 * 16 <= allocated < 2**19  # the product, of the size of the result
