"""The commands as a user sees them: output, exit codes, and one line for every error."""

from __future__ import annotations

import importlib.util
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import click
import pytest

import refconv
from refconv.cli.options import PATH, destination
from refconv.cli.run import cli
from refconv.cost import MODELS
from refconv.experiments.trainable import TRAINABLE
from tests.helpers import run_command


def test_cost_of_alexnet_as_json_by_the_real_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "refconv", "cost", "alexnet", "--groups", "2", "--json"],
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


@pytest.mark.parametrize("model", ["alexnet", "lenet5"])  # LeNet-5 has a note
@pytest.mark.parametrize("width", [40, 60, 80])
def test_cost_leaves_nothing_out_on_a_narrow_terminal(
    capsys: Any, monkeypatch: pytest.MonkeyPatch, width: int, model: str
) -> None:
    arguments = ("cost", model, "--batch", "1", "--batch", "128")
    _, wide, _ = run_command(capsys, *arguments)
    monkeypatch.setenv("COLUMNS", str(width))
    code, out, err = run_command(capsys, *arguments)
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= width
    assert {word.strip("─") for word in wide.split()} <= {word.strip("─") for word in out.split()}
    assert "…" not in out


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
        (["cost", "vgg"], "MODEL must be one of alexnet, lenet5"),
        (["cost", "--groups", "2"], "MODEL is missing; it must be one of alexnet, lenet5, residual"),
        (["train", "--epochs", "2"], "MODEL is missing; it must be one of alexnet, lenet5, residual"),
        (["cost", "alexnet", "--groups", "lg:3"], "'log:N'"),
        (["cost", "alexnet", "--groups", "0"], "groups must be at least 1; got 0"),
        (["cost", "alexnet", "--groups", "5"], "groups=5 does not divide C=96 input channels"),
        (["cost", "alexnet", "--groups", "table"], "groups=table is LeNet-5's"),
        (["cost", "alexnet", "--groups", "log:99"], "the largest n that fits is"),
        (["cost", "alexnet", "--groups"], "requires an argument"),
        (["cost", "alexnet", "--batch", "0"], "0 is not in the range"),
        (["cost", "alexnet", "--batch", "many"], "'many' is not a valid integer"),
        (["cost", "vgg", "--measure"], "MODEL must be one of alexnet, lenet5"),
        (["cost", "residual", "--groups", "5"], "layer block1a of residual: groups=5 does not divide C=32"),
        (["cost", "alexnet", "--backend", "jax"], "'jax' is not an array module"),
        (["cost", "alexnet", "lenet5"], "unexpected extra argument"),
        (["cost", "alexnet", "--jason"], "--jason"),
        (["tour", "--backend", "jax"], "'jax' is not an array module"),
        (["tour", "--seed", "-1"], "-1 is not in the range"),
        (["tour", "--seed", "one"], "'one' is not a valid integer"),
        (["cost", "alexnet", "--engine", "slow"], "--engine must be one of textbook, fast; got 'slow'"),
        (["check", ""], "must not be empty"),
        (["predict", ""], "must not be empty"),
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


def test_the_list_of_commands_cuts_no_sentence(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = run_command(capsys, "--help")
    lines = out.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in lines] == sorted(cli.commands)
    assert all(line.endswith(".") and not line.endswith("..") for line in lines)


def test_refconv_alone_prints_the_help(capsys: Any) -> None:
    assert run_command(capsys) == run_command(capsys, "--help")


def test_the_module_is_the_same_program() -> None:
    done = subprocess.run([sys.executable, "-m", "refconv"], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("Usage: refconv [OPTIONS]")
    assert done.stderr == ""


@pytest.mark.parametrize("command", ["cost", "train"])
def test_a_command_without_its_model_lists_the_models(capsys: Any, command: str) -> None:
    code, out, err = run_command(capsys, command)
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()[1:]] == sorted(MODELS)
    code, out, err = run_command(capsys, command, "--json")
    assert (code, json.loads(out).keys(), err) == (0, {"models"}, "")
    assert json.loads(out)["models"].keys() == MODELS.keys() == TRAINABLE.keys()


def test_version(capsys: Any) -> None:
    assert run_command(capsys, "--version") == (0, f"refconv, version {refconv.__version__}\n", "")


def test_an_interruption_has_an_exit_code_of_its_own(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("refconv.cost.model_cost", interrupt)
    code, out, err = run_command(capsys, "cost", "alexnet")
    assert (code, out) == (130, "")
    assert err.strip() == "refconv: interrupted"


# --- Starting, and Ctrl-C while starting ---


def test_a_command_starts_without_numpy() -> None:
    code = """
        import sys
        from refconv.cli import main
        try:
            main(["cost", "--help"])
        except SystemExit:
            print(*{name.split(".")[0] for name in sys.modules})
    """
    done = subprocess.run([sys.executable, "-c", dedent(code)], capture_output=True, text=True, timeout=60, check=True)
    loaded = done.stdout.splitlines()[-1].split()
    assert "click" in loaded
    assert not {"numpy", "scipy", "matplotlib", "rich", "safetensors"} & {*loaded}


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals as a terminal on POSIX does")
@pytest.mark.parametrize("module", ["click", "numpy", "numpy.random.mtrand", "subprocess"])
def test_ctrl_c_while_a_module_is_loaded_is_one_line(module: str) -> None:
    """Importing compiled modules, such as parts of numpy.random, may swallow an exception."""
    code = f"""
        import os, signal, sys

        class Interrupting:
            def find_spec(self, name, path, target=None):
                if name == {module!r}:
                    os.kill(os.getpid(), signal.SIGINT)

        sys.meta_path.insert(0, Interrupting())
        from refconv.cli import main
        main(["cost", "residual", "--batch=1", "--measure"])
    """
    done = subprocess.run([sys.executable, "-c", dedent(code)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "refconv: interrupted\n")


def test_the_interruption_of_a_program_that_calls_main_is_as_before(capsys: Any) -> None:
    before = signal.getsignal(signal.SIGINT)
    run_command(capsys, "cost", "alexnet")
    assert signal.getsignal(signal.SIGINT) is before


# --- Destinations: checked before any work ---

OPTIONS = {
    f"{name} {option.opts[0]}": (command, option)
    for name, command in cli.commands.items()
    for option in command.params
    if isinstance(option, click.Option)
}
DESTINATIONS = {name: found for name, found in OPTIONS.items() if found[1].callback is destination}


def test_every_path_is_checked() -> None:
    """Options that are paths are destinations, arguments are read. No path may be empty."""
    paths = [name for name, (_, option) in OPTIONS.items() if isinstance(option.type, click.Path)]
    assert paths == list(DESTINATIONS)
    assert {"tour --out", "train --out", "notebooks --to", "check --csv", "bench --out"} < {*paths}
    for name, (_, option) in OPTIONS.items():
        if option.metavar in ("FILE", "DIR") or {"path", "folder", "file"} & {*option.name.split("_")}:
            assert name in DESTINATIONS
    types = [param.type for command in cli.commands.values() for param in command.params]
    assert all(kind is PATH for kind in types if isinstance(kind, click.Path))


@pytest.mark.parametrize("name", DESTINATIONS)
def test_a_place_that_cannot_be_written_is_refused_before_any_work(
    capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    command, option = DESTINATIONS[name]
    folder = option.metavar == "DIR"
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("nowhere/x")
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(command, "callback", lambda **_: pytest.fail("the command was at work"))
    places = {
        "": "must not be empty",
        f"{tmp_path}/file/x": "Not a directory",
        f"{tmp_path}/{'a' * 300}": "File name too long",
        f"{tmp_path}/{'file' if folder else 'folder'}": "it is a file" if folder else "it is a folder",
        f"{tmp_path}/{'link' if folder else 'missing/x'}": "a link to nothing" if folder else "there is no folder",
    }
    if Path("/proc").is_dir():
        places["/proc/x"] = "No such file or directory"  # even root cannot write there
    for place, reason in places.items():
        code, out, err = run_command(capsys, name.split()[0], name.split()[1], place)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(f"refconv: Invalid value for '{name.split()[1]}'")
        assert reason in err
    assert sorted(tmp_path.iterdir()) == before


NEEDED = {  # command: its arguments, and modules of optional packages that it always needs
    "bench": ([], []),
    "check": ([], []),
    "compare": ([], ["matplotlib", "scipy"]),
    "cost": ([], []),
    "notebooks": (["--solutions"], ["jupytext"]),
    "predict": (["nowhere"], ["safetensors"]),
    "towers": ([], ["distributed"]),
    "tour": ([], ["jinja2", "matplotlib", "scipy", "skimage", "sklearn"]),
    "train": (["residual"], ["matplotlib", "safetensors"]),
    "vectors": ([], ["safetensors"]),
}


def test_every_command_has_its_needs() -> None:
    assert NEEDED.keys() == cli.commands.keys()


@pytest.mark.parametrize(("command", "module"), [(name, m) for name, (_, needs) in NEEDED.items() for m in needs])
def test_a_missing_package_is_noticed_before_any_work(
    capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str, module: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("refconv.nn.data.registry.load_digits_split", lambda *_: pytest.fail("data were loaded"))
    for name in [module, *(loaded for loaded in sys.modules if loaded.startswith(f"{module}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    options = {option.split()[1] for option in DESTINATIONS if option.split()[0] == command}
    out = [word for option in options for word in (option, str(tmp_path / "new"))]
    code, printed, err = run_command(capsys, command, *NEEDED[command][0], *out)
    assert (code, printed, err.count("\n")) == (2, "", 1)
    assert re.search(r"need.*pip install \w+", err)
    assert list(tmp_path.iterdir()) == []
