"""Benchmarks: every peer computes the same, in a process of its own, and ratios are of medians."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refconv.bench import peers, run
from refconv.bench.peers import PASSES, PEERS, can, operands
from refconv.bench.run import BenchError, Settings, run_bench, summary
from refconv.bench.worker import median_seconds
from refconv.bench.workloads import WORKLOADS, Layer
from refconv.testing.definition import (
    definition_bias_grad,
    definition_conv,
    definition_input_grad,
    definition_weight_grad,
)
from tests.test_cli import run as run_command

ROOT = Path(__file__).resolve().parents[1]
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
    """Return results of the definition, group by group."""
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
        if what == "training":
            weights = right["weight"]
            if peer == "plain" and layer.groups.is_uniform:  # it has one for each group
                weights = np.split(weights[0], layer.groups.n)
            wanted = [right["x"], right["bias"], *weights]
        for array in wanted:
            layouts = [array, array.transpose(0, 2, 3, 1)] if array.ndim == 4 else [array]
            assert any(
                candidate.shape == a.shape and np.allclose(candidate, a, rtol=1e-9, atol=1e-11)
                for candidate in found
                for a in layouts
            )


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
    assert can("scipy", replace(layer, batch=10**6), "float32", "forward") == "it would take minutes"
    assert can("plain", layer, "float64", "training") is None


def test_the_median_is_of_repeated_calls() -> None:
    calls: list[int] = []
    assert 0 <= median_seconds(lambda: calls.append(1), 0.0) < 0.1
    assert len(calls) == 7  # two to warm up, and the least that a median is taken of


def test_ratios_are_of_medians_over_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"refconv": iter([1.0, 9.0, 2.0]), "plain": iter([8.0, 4.0, 1.0])}
    order: list[str] = []

    def measured(peer: str, workload: str, settings: Settings) -> dict[str, Any]:
        order.append(peer)
        if peer == "torch":
            return {"1×3×8×8": {"reason": "torch is not installed"}}
        return {"1×3×8×8": {"seconds": next(times[peer]), "variant": "default"}}

    monkeypatch.setattr(run, "_measure", measured)
    monkeypatch.setattr(run, "_quiet", lambda: True)
    record = run_bench(Settings(("small",), ("plain", "torch"), rounds=3))
    assert order == ["refconv", "plain", "torch"] * 3
    assert record["busy_rounds"] == 0
    own, plain, torch = record["results"]
    assert (own["ratio"], own["median"]) == (1.0, 2.0)
    assert (plain["ratio"], plain["median"], plain["smallest"], plain["largest"]) == (0.5, 4.0, 1.0, 8.0)
    assert torch["reason"] == "torch is not installed"
    assert summary(record) == {"small": {"plain": 0.5}}
    json.dumps(record)


def test_a_peer_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_quiet", lambda: True)
    monkeypatch.setattr(run.sys, "executable", "false")
    with pytest.raises(BenchError, match="refconv failed on small: exit code 1"):
        run_bench(Settings(("small",), (), rounds=1))


def test_the_command_times_for_real(capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(run, "_quiet", lambda: True)
    arguments = ["bench", "small", "--peers", "plain", "--rounds", "1", "--seconds", "0.01"]
    code, out, err = run_command(capsys, *arguments, "--json", "--out", str(tmp_path / "record.json"))
    record = json.loads(out)
    assert (code, err.splitlines()) == (0, ["round 1/1: small, refconv", "round 1/1: small, plain"])
    assert [result["peer"] for result in record["results"]] == ["refconv", "plain"]
    assert all(result["median"] > 0 for result in record["results"])
    assert json.loads((tmp_path / "record.json").read_text()) == record
    code, out, err = run_command(capsys, *arguments)
    assert code == 0
    assert "1×3×8×8" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vgg"], "workloads must be one of alexnet"),
        (["--peers", "caffe"], "peers must be one of refconv"),
        (["--dtype", "int8"], "dtype must be one of float32, float64"),
        (["--pass", "back"], "pass must be one of forward, training"),
        (["--rounds", "0"], "0 is not in the range"),
        (["--seconds", "0"], "seconds must be more than 0"),
        (["--seconds", "nan"], "seconds must be more than 0"),
        (["--backend", "array_api_strict"], "--backend must be numpy"),
        (["--out", "."], "is a directory"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(capsys: Any, arguments: list[str], message: str) -> None:
    code, out, err = run_command(capsys, "bench", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_the_page_shows_the_records() -> None:
    spec = importlib.util.spec_from_file_location("make_benchmarks", ROOT / "docs" / "make_benchmarks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.page() == (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
