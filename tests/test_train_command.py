"""``refconv train`` as a real process: killed, interrupted, out of disk, and given nonsense."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refconv.cli.train import unlike_cost
from refconv.cost import residual
from refconv.experiments.train import CHECKPOINT, METRICS
from refconv.nn import load_checkpoint, save_checkpoint
from tests.helpers import run_command
from tests.nn_helpers import write_cifar
from tests.test_training import assert_same, ends

pytest.importorskip("safetensors", reason="safetensors is not installed: no checkpoints")
posix = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Sixty small training images in CIFAR-10's format, so that a process starts fast."""
    return write_cifar(tmp_path_factory.mktemp("cifar"), 12, 20)


def command(images: str, out: Path, *more: str) -> list[str]:
    arguments = f"train residual --data {images} --side 8 --channels 8 --epochs 6 --batch-size 16 --checkpoint-every 1"
    return [sys.executable, "-m", "refconv", *arguments.split(), "--out", str(out), *more]


def finish(images: str, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(images, out, *more), capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def whole(images: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The results of an undisturbed training, and the duration of its process."""
    out = tmp_path_factory.mktemp("whole")
    started = time.monotonic()
    done = finish(images, out)
    assert done.returncode == 0, done.stderr
    return ends(out), time.monotonic() - started


@pytest.mark.thinned(10)
@posix
@pytest.mark.parametrize("kill", range(10))
def test_ten_kills_at_random_moments_end_with_the_same_bits(images: str, whole: Any, kill: int, tmp_path: Path) -> None:
    expected, seconds = whole
    draw = np.random.default_rng(int.from_bytes(os.urandom(8)))  # ten random moments, new in every run
    killed = 0
    for attempt in range(4):
        resume = ["--resume"] if (tmp_path / CHECKPOINT).exists() else []
        process = subprocess.Popen(command(images, tmp_path, *resume), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            # The first kill may come at any moment, later ones soon after the start.
            process.communicate(timeout=float(draw.uniform(0.3, 1)) * seconds if attempt < 2 else 120)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            killed += process.returncode == -signal.SIGKILL
        if process.returncode == 0:
            break
        if (tmp_path / CHECKPOINT).exists():
            load_checkpoint(tmp_path / CHECKPOINT)  # complete at every moment
    assert process.returncode == 0
    assert_same(ends(tmp_path), expected)
    assert len((tmp_path / METRICS).read_text().splitlines()) == 6


@posix
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_saves_and_says_how_to_go_on(
    images: str, whole: Any, number: int, code: int, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        command(images, tmp_path, "--epochs", "100000"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / METRICS).exists() or not (tmp_path / METRICS).read_text():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "")
    last = err.splitlines()[-1]
    step = load_checkpoint(tmp_path / CHECKPOINT).meta["training"]["step"]
    assert last.startswith(
        f"refconv: interrupted after step {step} of 400000, which is saved; to resume: refconv train "
    )
    assert last.endswith(" --resume")
    assert f"--out {tmp_path}" in last
    assert "Traceback" not in err


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="hang-up is POSIX's")
@pytest.mark.parametrize("nohup", [False, True])
def test_a_hang_up_stops_a_training_but_under_nohup(images: str, nohup: bool, tmp_path: Path) -> None:
    given = command(images, tmp_path, "--epochs", "100000")
    start = (
        "import signal, sys; signal.signal(signal.SIGHUP, signal.{}); from refconv.cli import main; main(sys.argv[1:])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", start.format("SIG_IGN" if nohup else "SIG_DFL"), *given[3:]],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    process.stderr.readline()  # of the first epoch
    process.send_signal(signal.SIGHUP)
    if nohup:
        assert [process.stderr.readline()[:5] for _ in range(5)] == ["epoch"] * 5
        process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == (143 if nohup else 129)


@posix
def test_two_trainings_at_once_in_one_folder_are_refused(images: str, capsys: Any, tmp_path: Path) -> None:
    given = command(images, tmp_path, "--epochs", "100000")
    process = subprocess.Popen(given, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        process.stderr.readline()  # of the first epoch
        for more in ([], ["--resume"]):
            code, out, err = run_command(capsys, *given[3:], *more)
            assert (code, out) == (2, "")
            assert ("is in use by another training" if more else "already exists") in err
            assert len(err.splitlines()) == 1
    finally:
        process.kill()
        process.communicate()
    code, _, err = run_command(capsys, *given[3:], "--resume", "--momentum", "0.5")  # a kill ends the lock
    assert (code, "resume with its own settings" in err) == (2, True)


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
from refconv.cli import main
main(sys.argv[2:])
"""


@posix
def test_a_full_disk_is_one_line_and_loses_nothing(images: str, whole: Any, capsys: Any, tmp_path: Path) -> None:
    """The checkpoint grows by a row of metrics per epoch; files may not exceed its size after the second epoch."""
    arrays, (training, config, rows) = whole[0]
    sizes = []
    for epochs in (2, 3):
        save_checkpoint(tmp_path / "size", arrays, {"training": training, "config": config, "epochs": rows[:epochs]})
        sizes.append((tmp_path / "size").stat().st_size)
    assert run_command(capsys, *command(images, tmp_path / "probe", "--epochs", "2")[3:])[0] == 0
    limit = (tmp_path / "probe" / CHECKPOINT).stat().st_size + (sizes[1] - sizes[0]) // 2
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(limit), *command(images, tmp_path / "out")[3:]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert lines[:-1] == [line for line in lines if line.startswith("epoch ")]
    assert re.fullmatch(r"refconv: cannot write .*: File too large.*; earlier files stay", lines[-1])
    epochs = len(lines[:-1])
    assert epochs >= 2
    assert 4 * epochs <= load_checkpoint(tmp_path / "out" / CHECKPOINT).meta["training"]["step"] < 4 * (epochs + 1)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [CHECKPOINT, METRICS]
    assert run_command(capsys, *command(images, tmp_path / "out", "--resume")[3:])[0] == 0
    assert_same(ends(tmp_path / "out"), whole[0])


def test_resuming_takes_the_model_and_all_options_from_the_checkpoint(images: str, capsys: Any, tmp_path: Path) -> None:
    arguments = command(images, tmp_path, "--epochs", "1", "--lr", "0.03", "--seed", "3", "--groups", "2", "--json")[3:]
    code, out, _ = run_command(capsys, *arguments)
    before = json.loads(out)["settings"]
    assert (code, before["lr"], before["seed"]) == (0, 0.03, 3)
    resume = ["train", "--resume", "--out", tmp_path, "--json"]
    code, out, _ = run_command(capsys, *resume)
    assert (code, json.loads(out)["settings"]) == (0, before)
    code, out, _ = run_command(capsys, *resume, "--epochs", "2", "--lr", "0.01")
    assert (code, json.loads(out)["settings"]) == (0, before | {"epochs": 2, "lr": 0.01})
    code, out, _ = run_command(capsys, *resume)  # the new rate is kept, too
    assert (code, json.loads(out)["settings"]) == (0, before | {"epochs": 2, "lr": 0.01})
    for more, message in [
        (["lenet5"], f"{tmp_path} contains a training of residual, not of lenet5; choose another --out"),
        (["--seed", "4"], "belongs to a training with seed=3, not seed=4"),
        (["--data", "digits"], "belongs to a training with data="),
        (["--epochs", "1"], "epochs must be at least 2 to resume"),
        (["--width", "2"], "model residual has no option width"),
    ]:
        code, out, err = run_command(capsys, *resume, *more)
        assert (code, out) == (2, "")
        assert message in err
        assert len(err.splitlines()) == 1


def test_json_is_one_object_and_nothing_else(images: str, capsys: Any, tmp_path: Path) -> None:
    code, out, err = run_command(capsys, *command(images, tmp_path, "--epochs", "1", "--json")[3:])
    assert code == 0
    found = json.loads(out)
    assert found["settings"]["channels"] == 8
    assert found["epochs"][0]["epoch"] == 1
    assert Path(found["checkpoint"]).exists()
    assert sum(map(sum, found["confusion"])) == 20
    assert sum(found["confusion"][index][index] for index in range(10)) / 20 == found["test_accuracy"]
    assert err.startswith("epoch 1/1  loss ")


def test_a_training_that_diverges_says_so_and_leaves_only_numbers(images: str, capsys: Any, tmp_path: Path) -> None:
    arguments = command(images, tmp_path, "--checkpoint-every", "1000", "--lr", "1e9", "--json")[3:]
    for more in ([], ["--resume"]):
        code, out, err = run_command(capsys, *arguments, *more)
        assert (code, out) == (2, "")
        last = err.splitlines()[-1]
        found = re.fullmatch(
            r"refconv: the loss is (?:nan|inf) at step \d: the training diverged; to resume from step 0 with a smaller "
            r"learning rate: refconv (train .*) --lr 1e\+08 --resume; if that diverges too, start again with another "
            "--out",
            last,
        )
        assert found
        assert "Warning" not in err
    assert (tmp_path / METRICS).read_text() == ""
    assert load_checkpoint(tmp_path / CHECKPOINT).meta["epochs"] == []
    code, out, _ = run_command(capsys, *shlex.split(found[1]), "--lr", "0.02", "--resume")
    assert (code, len(json.loads(out)["epochs"])) == (0, 6)


def test_the_output_says_why_cost_counts_other_parameters(images: str, capsys: Any, tmp_path: Path) -> None:
    """LeNet-5 is counted as in the paper; the residual network on the digits is counted as trained."""
    assert unlike_cost("residual", "log:3", 12_426) == ""
    assert unlike_cost("residual", "log:9", 690) == ""  # not possible for the default size, which cost counts
    text = unlike_cost("lenet5", "table", 60_850)
    assert text.startswith(
        "(refconv cost lenet5 --groups table counts 60,000, for the default size, images of 1×32×32 "
    )
    assert "850 parameters more" in text
    code, out, err = run_command(capsys, "train", "residual", "--data", images, "--epochs", "0", "--out", tmp_path)
    assert (code, err) == (0, "")
    count = residual("log:3", side=32, c_in=3).parameters
    assert out.splitlines() == [
        f"residual: {count:,} parameters, not trained",
        "(refconv cost residual --groups log:3 counts 12,426, for the default size, images of 1×8×8 and 10 classes.)",
        str(tmp_path),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vgg"], "MODEL must be one of residual"),
        (["residual", "--data", "mnist"], "dataset must be one of digits"),
        (["residual", "--data", "cifar10:nowhere"], "nowhere"),
        (["residual", "--data", "folder:nowhere"], "nowhere"),
        (["residual", "--groups", "lg:3"], "'log:N'"),
        (["residual", "--groups", "uniform:5"], "groups=5 must divide c_in=32 and c_out=32"),
        (["residual", "--groups", "log:9"], "the largest n that fits is 6"),
        (["residual", "--width", "0.5"], "model residual has no option width; it has channels, blocks"),
        (["residual", "--channels", "0"], "0 is not in the range"),
        (["residual", "--side", "3"], "side must be at least 4"),
        (["residual", "--lr", "0"], "refconv: --lr must be finite and more than 0"),
        (["residual", "--lr", "nan"], "lr must be finite"),
        (["residual", "--shift", "9"], "shift must be at most the size of the images, (8, 8)"),
        (["residual", "--channels", "300000", "--groups", "dense"], "too little memory: "),
        (["residual", "--side", "10000000000000"], "refconv: --side must be at most 4096"),
        (["residual", "--blocks", "1000000000"], "1000000000 is not in the range"),
        (["alexnet", "--width", "1e308"], "width must be finite and at least 0 and less than 1048576"),
        (["residual", "--momentum", "1"], "momentum must be finite and at least 0 and less than 1"),
        (["residual", "--weight-decay", "-1"], "refconv: --weight-decay must be"),
        (["residual", "--schedule", "linear"], "schedule must be"),
        (["residual", "--batch-size", "0"], "0 is not in the range"),
        (["residual", "--epochs", "-1"], "-1 is not in the range"),
        (["residual", "--seed", "-1"], "-1 is not in the range"),
        (["residual", "--checkpoint-every", "0"], "0 is not in the range"),
        (["residual", "--backend", "jax"], "'jax' is not an array module"),
        (["residual", "--resume"], "cannot resume: "),
        (["--resume"], "cannot resume: "),
        (["--epochs", "2"], "MODEL is missing"),
        (["residual", "--epochs", "0", "--out", __file__], "must be a folder that can be written"),
        (["residual", "digits"], "unexpected extra argument"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(
    capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], message: str
) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed: no digits to train on")
    monkeypatch.chdir(tmp_path)
    code, out, err = run_command(capsys, "train", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("refconv: ")
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
