"""The commands as a user meets them: output, exit codes, and one line for whatever is wrong."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from typing import Any

import pytest

import refconv
from refconv.cli import cli
from tests.helpers import run_command


def test_cost_of_alexnet_as_json_by_the_real_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "refconv.cli", "cost", "alexnet", "--groups", "2", "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    counted = json.loads(done.stdout)
    assert done.stderr == ""
    assert (counted["parameters"], counted["macs"]) == (60965224, 724406816)
    conv2 = next(layer for layer in counted["layers"] if layer["name"] == "conv2")
    assert conv2 == {
        "name": "conv2",
        "parameters": 307456,
        "macs": 223948800,
        "output_shape": [256, 27, 27],
        "activations": 186624,
    }


@pytest.mark.parametrize(
    ("arguments", "parameters", "macs"),
    [
        (["alexnet"], 60965224, 724406816),
        (["alexnet", "--groups", "1"], 62378344, 1135256096),
        (["alexnet", "--groups", "uniform:1"], 62378344, 1135256096),
        (["alexnet", "--groups", "dense", "--backend", "numpy"], 62378344, 1135256096),
    ],
)
def test_cost_of_other_groups(capsys: Any, arguments: list[str], parameters: int, macs: int) -> None:
    code, out, err = run_command(capsys, "cost", *arguments, "--json")
    counted = json.loads(out)
    assert (code, err) == (0, "")
    assert (counted["parameters"], counted["macs"]) == (parameters, macs)
    assert sum(layer["macs"] for layer in counted["layers"]) == macs


def test_cost_of_the_connection_table(capsys: Any) -> None:
    _, out, _ = run_command(capsys, "cost", "lenet5", "--json")
    assert {layer["name"]: layer["parameters"] for layer in json.loads(out)["layers"]}["C3"] == 1516


def test_cost_as_a_table_shows_every_figure(capsys: Any) -> None:
    code, out, err = run_command(capsys, "cost", "alexnet")
    assert (code, err) == (0, "")
    for figure in ("60,965,224", "724,406,816", "307,456", "223,948,800", "256×27×27", "1,413,347", "2,077.9"):
        assert figure in out


def test_cost_leaves_nothing_out_on_a_narrow_terminal(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    code, out, err = run_command(capsys, "cost", "alexnet", "--batch", "1", "--batch", "128")
    assert (code, err) == (0, "")
    for shown in ("conv1 96×55×55", "conv5 256×13×13 442,624", "predicted peak 1,040.8", "708.5 354.8 2,077.9"):
        assert shown in " ".join(out.split())


def test_cost_shows_memory_for_batch_sizes_and_towers(capsys: Any) -> None:
    code, out, err = run_command(capsys, "cost", "alexnet", "--batch", "1", "--batch", "32")
    assert (code, err) == (0, "")
    for word in ("each of 2 towers", "activations kept", "predicted peak", "textbook's count", "232.6", "116.3"):
        assert word in out
    assert "measured" not in out.lower()
    code, out, err = run_command(capsys, "cost", "alexnet", "--batch", "1", "--batch", "32", "--json")
    memory = json.loads(out)["memory"]
    assert [(row["batch"], row["towers"]) for row in memory] == [(1, 1), (1, 2), (32, 1), (32, 2)]
    assert memory[0]["parameters"] == 4 * 60965224


def test_cost_measures_a_real_step(capsys: Any) -> None:
    code, out, err = run_command(
        capsys, "cost", "residual", "--groups", "log:2", "--batch", "16", "--measure", "--json"
    )
    assert (code, err) == (0, "")
    (measured,) = json.loads(out)["measured"]
    assert measured["batch"] == 16
    assert measured["bytes"] > 0
    assert measured["seconds"] > 0
    code, out, _ = run_command(capsys, "cost", "residual", "--batch", "16", "--measure")
    assert "measured peak" in out
    assert "measured seconds" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cost", "vgg"], "model must be one of alexnet, lenet5"),
        (["cost"], "Missing argument 'MODEL'"),
        (["cost", "alexnet", "--groups", "lg:3"], "'log:N'"),
        (["cost", "alexnet", "--groups", "0"], "groups must be at least 1; got 0"),
        (["cost", "alexnet", "--groups", "5"], "groups=5 does not divide C=96 input channels"),
        (["cost", "alexnet", "--groups", "table"], "groups=table is LeNet-5's"),
        (["cost", "alexnet", "--groups", "log:99"], "the largest n that fits is"),
        (["cost", "alexnet", "--groups"], "requires an argument"),
        (["cost", "alexnet", "--batch", "0"], "0 is not in the range"),
        (["cost", "alexnet", "--batch", "many"], "'many' is not a valid integer"),
        (["cost", "vgg", "--measure"], "model must be one of alexnet, lenet5"),
        (["cost", "residual", "--groups", "5"], "layer block1a of residual: groups=5 does not divide C=32"),
        (["cost", "alexnet", "--backend", "jax"], "'jax' is not an array module"),
        (["cost", "alexnet", "lenet5"], "unexpected extra argument"),
        (["cost", "alexnet", "--jason"], "--jason"),
        (["tour", "--backend", "jax"], "'jax' is not an array module"),
        (["tour", "--seed", "-1"], "-1 is not in the range"),
        (["tour", "--seed", "one"], "'one' is not a valid integer"),
        (["tour", "--out", __file__], "is a file; --out names a directory"),
        (["tour", "--out", f"{__file__}/report"], "cannot write to"),
        (["turo"], "turo"),
        (["--nope"], "--nope"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(capsys: Any, arguments: list[str], message: str) -> None:
    code, out, err = run_command(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert message in err
    assert err.startswith("refconv: ")
    assert len(err.splitlines()) == 1
    assert "Traceback" not in err


@pytest.mark.skipif(importlib.util.find_spec("cupy") is not None, reason="CuPy is installed")
@pytest.mark.parametrize("arguments", [["cost", "alexnet"], ["tour"]])
def test_missing_backend_is_one_line_that_says_what_to_install(capsys: Any, arguments: list[str]) -> None:
    code, out, err = run_command(capsys, *arguments, "--backend", "cupy")
    assert (code, out) == (2, "")
    assert "pip install cupy-cuda13x" in err
    assert len(err.splitlines()) == 1


def test_the_environment_chooses_the_backend(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFCONV_BACKEND", "jax")
    code, _, err = run_command(capsys, "cost", "alexnet")
    assert code == 2
    assert "REFCONV_BACKEND='jax'" in err
    code, _, err = run_command(capsys, "cost", "alexnet", "--backend", "numpy")
    assert (code, err) == (0, "")


def test_missing_packages_are_one_line_that_says_what_to_install(
    capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "skimage" else found(name))
    code, out, err = run_command(capsys, "tour", "--out", str(tmp_path / "report"))
    assert (code, out) == (2, "")
    assert err == "refconv: the tour needs scikit-image: pip install scikit-image\n"
    assert not any(tmp_path.iterdir())


def test_examples_in_help_keep_their_lines(capsys: Any) -> None:
    for command in cli.commands:
        code, out, _ = run_command(capsys, command, "--help")
        assert code == 0
        assert "\\b" not in out
    _, out, _ = run_command(capsys, "cost", "--help")
    assert "\n  refconv cost alexnet --groups log:3 --json\n" in out


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["cost", "--help"], ["tour", "--help"]])
def test_help(capsys: Any, arguments: list[str]) -> None:
    code, out, err = run_command(capsys, *arguments)
    assert (code, err) == (0, "")
    assert out.startswith("Usage: refconv")
    if len(arguments) == 2:
        assert "--backend NAME" in out
        assert "--json" in out


def test_no_command_is_one_line(capsys: Any) -> None:
    assert run_command(capsys) == (2, "", "refconv: a command is missing; refconv --help lists them\n")


def test_version(capsys: Any) -> None:
    assert run_command(capsys, "--version") == (0, f"refconv, version {refconv.__version__}\n", "")


def test_an_interruption_has_an_exit_code_of_its_own(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("refconv.cost.model_cost", interrupt)
    code, out, err = run_command(capsys, "cost", "alexnet")
    assert (code, out) == (130, "")
    assert err.strip() == "refconv: interrupted"
