"""Trainings and comparisons on a Dask cluster: the results of one process, and workers that are killed."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refconv.distributed import TowerLostError, open_cluster, sweep
from refconv.experiments.compare import EVALUATION, RESULTS, InterruptedComparisonError, run_comparison
from refconv.experiments.tasks import CompareError, CompareSettings
from refconv.experiments.train import (
    CHECKPOINT,
    InterruptedTrainingError,
    TrainError,
    TrainSettings,
    run_training,
)
from refconv.experiments.widths import Network
from refconv.nn import Recipe, load_checkpoint
from refconv.progress import CompareObserver
from tests.helpers import run_command
from tests.nn_helpers import write_cifar
from tests.test_training import assert_same, ends

for module in ("distributed", "safetensors", "matplotlib", "scipy"):
    pytest.importorskip(module, reason=f"{module} is not installed")

posix = pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX's")
COMPARISON = CompareSettings(["digits"], ["dense", "log:3"], [3600], 2, 2, recipe=Recipe(epochs=1, batch_size=64))


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with open_cluster(2) as client:
        yield client


@pytest.fixture
def two_workers(client: Any) -> Any:
    """The client, with new workers for those that a test killed."""
    client.wait_for_workers(2, timeout=30)
    return client


@pytest.fixture
def cluster(two_workers: Any) -> Any:
    return contextlib.nullcontext(two_workers)


@contextlib.contextmanager
def never_opened() -> Iterator[Any]:
    pytest.fail("the cluster was opened")
    yield


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> TrainSettings:
    """Sixty images in small towers, for six steps."""
    data = write_cifar(tmp_path_factory.mktemp("cifar"), 6, 10)
    recipe = Recipe(epochs=3, batch_size=15, lr=0.01, schedule="cosine")
    return TrainSettings("alexnet", data, "2", {"width": 1 / 16}, side=63, recipe=recipe)


@pytest.fixture(scope="module")
def whole(client: Any, settings: TrainSettings, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The files of an undisturbed training, and how long it took."""
    out, started = tmp_path_factory.mktemp("whole") / "out", time.monotonic()
    run_training(settings, out, cluster=contextlib.nullcontext(client))
    return ends(out), time.monotonic() - started


@contextlib.contextmanager
def killed(client: Any, within: float) -> Iterator[None]:
    """Kill a worker at a random moment within some seconds, new in every run; at the end the cluster knows of it."""
    draw = np.random.default_rng()
    address, pid = sorted(client.run(os.getpid).items())[draw.integers(2)]
    timer = threading.Timer(draw.uniform(0, within), os.kill, (pid, signal.SIGKILL))
    timer.start()
    try:
        yield
    finally:
        timer.join()
        while address in client.scheduler_info(n_workers=-1)["workers"]:
            time.sleep(0.05)


# --- Trainings ---


def test_checkpoints_go_both_ways(cluster: Any, settings: TrainSettings, whole: Any, tmp_path: Path) -> None:
    for first, second in ((cluster, None), (None, cluster)):
        out = tmp_path / ("alone" if first is None else "towers")
        with pytest.raises(InterruptedTrainingError):
            run_training(settings, out, stopping=lambda: True, cluster=first)
        run_training(settings, out, resume=True, cluster=second)
        arrays, (training, config, rows) = ends(out)
        (expected, (wanted, same, wanted_rows)) = whole[0]
        assert config == same
        assert list(arrays) == list(expected)
        assert training["generators"] == wanted["generators"]
        for name, array in arrays.items():
            np.testing.assert_allclose(array, expected[name], rtol=1e-3, atol=1e-6, err_msg=name)
        assert [row["train_loss"] for row in rows] == pytest.approx([row["train_loss"] for row in wanted_rows])


@posix
@pytest.mark.long
@pytest.mark.parametrize("kill", range(10))
def test_ten_kills_of_a_worker_end_with_the_same_bits(
    two_workers: Any, cluster: Any, settings: TrainSettings, whole: Any, kill: int, tmp_path: Path
) -> None:
    expected, seconds = whole
    lost = []
    with killed(two_workers, seconds):
        try:
            run_training(settings, tmp_path, checkpoint_every=1, cluster=cluster)
        except TowerLostError as error:
            lost.append(str(error))
    if lost:
        two_workers.wait_for_workers(2, timeout=30)
        run_training(settings, tmp_path, resume=(tmp_path / CHECKPOINT).exists(), cluster=cluster)
    for message in lost:
        assert re.match(r"the worker of towers? [01](, 1)?, tcp://127\.0\.0\.1:\d+, ended$", message)
    assert_same(ends(tmp_path), expected)


def test_wrong_settings_open_no_cluster(settings: TrainSettings, tmp_path: Path) -> None:
    for wrong, message in (({"side": 9}, "side must be at least 63"), ({"groups": "5"}, "towers=5 must divide")):
        with pytest.raises(ValueError, match=f"^{message}"):
            run_training(dataclasses.replace(settings, **wrong), tmp_path / "new", cluster=never_opened())
    with pytest.raises(ValueError, match=r"^budgets must suit the groups and digits: budget=1 cannot be met"):
        run_comparison(dataclasses.replace(COMPARISON, budgets=[1]), tmp_path / "new", cluster=never_opened())
    assert not (tmp_path / "new").exists()


def test_a_comparison_with_nothing_left_opens_no_cluster(evaluated: Path) -> None:
    run_comparison(COMPARISON, evaluated, resume=True, cluster=never_opened())


def test_only_alexnet_has_towers(cluster: Any, settings: TrainSettings, tmp_path: Path) -> None:
    other = dataclasses.replace(settings, model="residual", groups="2", options={})
    with pytest.raises(TrainError, match=r"^towers need the model alexnet; got residual"):
        run_training(other, tmp_path / "new", cluster=cluster)
    assert not (tmp_path / "new").exists()


def words(settings: TrainSettings, out: Path) -> list[str]:
    given = f"train alexnet --towers 2 --data {settings.data} --side 63 --width 0.0625 --epochs 3 --batch-size 15"
    return [*given.split(), *f"--lr 0.01 --schedule cosine --checkpoint-every 1 --out {out}".split()]


@posix
@pytest.mark.long
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, 2), (signal.SIGINT, 130)])
def test_a_command_whose_worker_is_killed_or_that_is_interrupted(
    settings: TrainSettings, whole: Any, number: int, code: int, tmp_path: Path
) -> None:
    import psutil

    process = subprocess.Popen(
        [sys.executable, "-m", "refconv", *words(settings, tmp_path), "--epochs", "1000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    assert "epoch" in process.stderr.readline()
    if number == signal.SIGINT:  # as Ctrl-C does, to the workers too
        os.killpg(process.pid, signal.SIGINT)
    else:
        listening = [p for p in psutil.Process(process.pid).children(recursive=True) if p.net_connections()]
        assert len(listening) == 2
        listening[1].kill()
    out, err = process.communicate(timeout=120)
    last = err.splitlines()[-1]
    assert (process.returncode, out) == (code, ""), err
    expected = {
        signal.SIGKILL: r"refconv: the worker of tower [01], \S+, ended; to resume from the last checkpoint: ",
        signal.SIGINT: r"refconv: interrupted after step \d+ of 2000, which is saved; to resume: ",
    }[signal.Signals(number)]
    match = re.match(expected + r"(refconv train .* --resume)$", last)
    assert match, last
    step = load_checkpoint(tmp_path / CHECKPOINT).meta["training"]["step"]
    assert step >= 2
    again = [*shlex.split(match[1])[1:], "--epochs", "1000"]
    assert again[: len(words(settings, tmp_path))] == words(settings, tmp_path)


@pytest.mark.parametrize("saved", [True, False])
def test_a_lost_tower_ends_the_command_with_how_to_resume(
    capsys: Any, monkeypatch: pytest.MonkeyPatch, settings: TrainSettings, saved: bool, tmp_path: Path
) -> None:
    def lost(_: TrainSettings, out: Path, **__: Any) -> None:
        if saved:
            (out / CHECKPOINT).touch()
        raise TowerLostError([1], "tcp://127.0.0.1:7")

    monkeypatch.setattr("refconv.distributed.open_cluster", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr("refconv.experiments.train.run_training", lost)
    given = words(settings, tmp_path)
    code, out, err = run_command(capsys, *given)
    assert (code, out) == (2, "")
    resume = f"to resume from the last checkpoint: {shlex.join(['refconv', *given, '--resume'])}"
    advice = resume if saved else "start again, for nothing is saved"
    assert err == f"refconv: the worker of tower 1, tcp://127.0.0.1:7, ended; {advice}\n"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("train alexnet --workers 2", "--workers and --scheduler need --towers"),
        ("train alexnet --towers 2 --groups 4", "--towers 2 must be the same as the groups, 4"),
        ("train residual --towers 2 --groups 2", "--towers needs the model alexnet; got residual"),
        ("train alexnet --towers two", "--towers must be a number N"),
        ("train alexnet --towers 5 --side 63", "--towers=5 must divide AlexNet's"),
        ("train alexnet --towers log:20 --side 63", "--towers=log:20 must fit every layer"),
        ("train alexnet --towers 2 --workers 1 --scheduler tcp://x:1", "--workers and --scheduler must not both"),
        ("train alexnet --towers 2 --memory-limit 1MB", "--memory-limit must be at least 1048576 B; got '1MB'"),
        ("train alexnet --memory-limit 1GiB", "--memory-limit needs workers"),
        ("compare --memory-limit 1GiB", "--memory-limit needs workers"),
        ("train alexnet --towers 2 --workers 1 --memory-limit much", "--memory-limit must be a number of bytes"),
        ("train alexnet --towers 2 --scheduler tcp://127.0.0.1:9", "no Dask scheduler can be reached at tcp://127"),
        ("compare --workers 2 --jobs 2", "--jobs must not be given with --workers or --scheduler"),
        ("compare --scheduler nowhere:9", "no Dask scheduler can be reached at nowhere:9"),
        ("towers --scheduler 127.0.0.1:9", "no Dask scheduler can be reached at 127.0.0.1:9"),
        ("towers --scheduler=", "--scheduler must be an address such as tcp://10.0.0.1:8786; got ''"),
        ("towers --memory-limit=", "--memory-limit must be a number of bytes"),
        ("towers --groups table", "--groups must be a number N"),
        ("towers --groups 5", "--groups=5 must divide AlexNet's"),
        ("towers --groups log:20", "--groups=log:20 must fit every layer"),
        ("towers --side 9", "--side must be at least 63"),
        ("towers --batch 99999999999", "--batch=99999999999, side=224: the array of a step's images would need"),
    ],
)
def test_wrong_command_lines(
    capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("refconv.distributed.cluster.SECONDS_TO_CONNECT", 0.3)
    code, out, err = run_command(capsys, *given.split())
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert message in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "option"),
    [
        ("towers", "refconv towers"),
        ("train alexnet --towers 2", "--towers"),
        ("train alexnet --towers 2 --workers 2", "--workers"),
        ("compare --workers 2", "--workers"),
        ("compare --scheduler tcp://127.0.0.1:9", "--scheduler"),
    ],
)
def test_without_dask_the_option_and_the_extra_are_named(
    capsys: Any, monkeypatch: pytest.MonkeyPatch, given: str, option: str
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "distributed" else found(name))
    expected = f"refconv: {option} needs distributed: pip install distributed, or the extra refconv[distributed]\n"
    assert run_command(capsys, *given.split()) == (2, "", expected)


TOWERS = "towers --side 63 --width 0.0625 --batch 2 --steps 2"


@pytest.mark.long
def test_towers_reports_and_draws(capsys: Any, tmp_path: Path) -> None:
    given = f"{TOWERS} --whole-numbers --groups log:3 --workers 2 --json --figure"
    code, out, _ = run_command(capsys, *given.split(), str(tmp_path / "timeline.png"))
    report = json.loads(out)
    assert code == 0
    assert report["losses"] == report["single"]["losses"]
    assert [len(report[name]) for name in ("towers", "crossings", "losses", "seconds")] == [3, 4, 2, 2]
    assert {"parameters", "activations", "predicted_bytes", "peak_bytes", "received_bytes", "worker"} < {
        *report["towers"][0]
    }
    for crossing in report["crossings"]:
        assert crossing["received_bytes"] == crossing["bytes"] + crossing["gradient_bytes"]
    assert (tmp_path / "timeline.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.long
def test_towers_print_tables(capsys: Any) -> None:
    code, out, _ = run_command(capsys, *f"{TOWERS} --workers 1".split())
    assert code == 0
    for words in ("waiting for 1, s", "pool2 → conv3", "A step takes", "share its measured peak", "Losses: "):
        assert words in out


# --- Comparisons ---


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a comparison in one process."""
    out = tmp_path_factory.mktemp("alone")
    run_comparison(COMPARISON, out)
    return out


def test_a_comparison_has_the_same_numbers(cluster: Any, evaluated: Path, tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []

    class Recorder(CompareObserver):
        def after(self, row: dict[str, Any]) -> None:
            seen.append(row)

    with pytest.raises(InterruptedComparisonError, match=r"interrupted after [123] of 4"):
        run_comparison(
            COMPARISON,
            tmp_path,
            observer=Recorder(),
            stopping=lambda: bool(seen),
            cluster=cluster,
        )
    assert seen
    run_comparison(COMPARISON, tmp_path, resume=True, cluster=cluster)
    assert (tmp_path / EVALUATION).read_bytes() == (evaluated / EVALUATION).read_bytes()
    assert len((tmp_path / RESULTS).read_text().splitlines()) == 5


@posix
@pytest.mark.long
@pytest.mark.parametrize("kill", range(10))
def test_ten_kills_cost_only_their_training(
    two_workers: Any, cluster: Any, evaluated: Path, kill: int, tmp_path: Path
) -> None:
    with killed(two_workers, 3):
        run_comparison(COMPARISON, tmp_path, cluster=cluster)
    assert (tmp_path / EVALUATION).read_bytes() == (evaluated / EVALUATION).read_bytes()


def test_a_training_that_diverges_on_a_worker(cluster: Any, tmp_path: Path) -> None:
    settings = dataclasses.replace(COMPARISON, recipe=Recipe(epochs=1, lr=1e9))
    with pytest.raises(CompareError, match=r"^the loss is \S+ at step \d+ of .*: the training diverged"):
        run_comparison(settings, tmp_path, cluster=cluster)


def test_workers_with_other_images_are_noticed(two_workers: Any) -> None:
    task = (COMPARISON, Network("digits", 3600, "dense", 12, 3600, 1), 0)
    with pytest.raises(CompareError, match=r"^a worker reads other images as digits"):
        list(sweep.rows_of_cluster(two_workers, [task], {"digits": "0" * 64}, lambda: False))


def test_lost_clusters_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    task = (COMPARISON, Network("digits", 3600, "dense", 12, 3600, 1), 4)
    from distributed import Client, KilledWorker, LocalCluster

    killed = sweep._failure(task, KilledWorker("task", None, 3))
    assert str(killed).startswith("dense, 3,600 parameters, seed 4 ended its worker 4 times")
    assert "the scheduler ended" in str(sweep._failure(task, None))
    monkeypatch.setattr(sweep, "SECONDS_WITHOUT_WORKERS", 0.2)
    options: dict[str, Any] = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with (
        LocalCluster(n_workers=0, **options) as cluster,
        Client(cluster) as client,
        pytest.raises(CompareError, match=r"^the cluster has no workers left"),
    ):
        list(sweep.rows_of_cluster(client, [task], {"digits": "0"}, lambda: False))
