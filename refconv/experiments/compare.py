"""Compare channel groups: the same residual network in several widths, trained with the same seeds.

Every budget of parameters is met by every grouping, by its number of channels. A seed draws the initial weights and the
order of the images; the split of the data is always the same one. So two groupings of one budget are compared seed by
seed. Each finished training is a line of a file, from which a comparison that was cut off goes on.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import refconv
from refconv.cost import parse_groups
from refconv.experiments.figures import STYLES, accuracy_against_parameters
from refconv.experiments.paired import paired_interval
from refconv.experiments.tables import markdown, short_name, summary
from refconv.experiments.train import fingerprint
from refconv.experiments.trainings import CompareError, CompareSettings, image_shape, result_rows, trainer_of
from refconv.experiments.widths import Network, match_width, residual_cost
from refconv.integers import as_int, shown
from refconv.nn import Split
from refconv.nn.checkpoint import alone_in, replacing
from refconv.nn.data import load_dataset
from refconv.nn.data.split import needing

RESULTS, SUMMARY, TABLE, FIGURE = "results.jsonl", "comparison.json", "comparison.md", "comparison.png"


_Key = tuple[str, int, str, int]


class InterruptedComparisonError(Exception):
    """A comparison was asked to stop; every finished training is saved."""

    def __init__(self, done: int, total: int) -> None:
        super().__init__(f"interrupted after {done} of {total} trainings, which are saved")


class CompareObserver:
    """Is told how a comparison proceeds. This one keeps silent; subclasses print."""

    def begin(self, done: int, total: int) -> None:
        """Take note of how many trainings there are, and how many are done from before."""

    def after(self, row: dict[str, Any]) -> None:
        """Take note of a finished training: a line of the results."""


def run_comparison(
    settings: CompareSettings,
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    jobs: int = 1,
    observer: CompareObserver | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Train every grouping at every budget on every data set with every seed, and say what the differences show.

    Parameters
    ----------
    settings : CompareSettings
        What is compared.
    out : path
        Folder for ``results.jsonl`` (the settings, then an object a line for each training), ``comparison.json`` (all
        that follows from it), ``comparison.md`` (tables and conclusion) and ``comparison.png``. Made if need be.
    resume : bool
        Go on from the results in `out`.
    jobs : int
        Trainings at a time, at most 61; more than one run in processes of their own, which import the caller's main
        module: it must do its work under ``if __name__ == "__main__"``. The results are the same for any number.
    observer : CompareObserver, optional
        Is told of every training.
    stopping : callable () -> bool, optional
        Asked all the time whether to stop.

    Returns
    -------
    dict
        What ``comparison.json`` holds: see :func:`refconv.experiments.tables.summary`.

    Raises
    ------
    CompareError
        If there are results and `resume` is false, or none and it is true; if another process works in `out`; if they
        are damaged or of a comparison with
        other settings (then nothing is written); or if a process of its own died.
    InterruptedComparisonError
        If `stopping` asked for it; the comparison can be resumed.
    ValueError, TypeError, ImportError, refconv.BackendError
        If a setting is wrong, or a package is missing.
    OSError
        If a file cannot be written; what was saved before stays.
    """
    folder, observer = Path(out), CompareObserver() if observer is None else observer
    jobs = as_int(jobs, "jobs", 1, 61)
    settings = _checked(settings)
    sets = {name: load_dataset(name) for name in settings.data}
    networks = _networks(settings, sets)
    config = _config(settings, sets)
    tasks = [(settings, network, seed) for seed in range(settings.seeds) for network in networks]
    trainer_of(tasks[0], sets[tasks[0][1].data])  # says what is wrong with the recipe before anything is written
    if not resume:
        folder.mkdir(parents=True, exist_ok=True)
    elif not folder.is_dir():
        raise CompareError(f"cannot resume: there is no {folder / RESULTS}")
    with alone_in(folder) as alone:
        if not alone:
            raise CompareError(f"{folder} is in use by another training or comparison; choose another --out, or wait")
        tested = {name: len(data.test_labels) for name, data in sets.items()}
        rows = _saved(folder, config, resume, {network.key(seed) for _, network, seed in tasks}, tested)
        done = {_key(row): row for row in rows}
        _begin_results(folder, config, rows)
        observer.begin(len(done), len(tasks))
        left = [task for task in tasks if task[1].key(task[2]) not in done]
        with contextlib.closing(result_rows(left, sets, jobs, stopping)) as found:
            for row in found:
                _append(folder / RESULTS, row)
                done[_key(row)] = row
                observer.after(row)
        if len(done) < len(tasks):
            raise InterruptedComparisonError(len(done), len(tasks))
        return _concluded(folder, config, sets, networks, done)


def _concluded(
    folder: Path,
    config: dict[str, Any],
    sets: dict[str, Split],
    networks: list[Network],
    done: dict[_Key, dict[str, Any]],
) -> dict[str, Any]:
    """Write what follows from the trainings, and return it."""
    result = summary(config, sets, networks, {key: row["right"] for key, row in done.items()})
    for name, contents in (
        (SUMMARY, (json.dumps(result, indent=2) + "\n").encode()),
        (TABLE, markdown(result).encode()),
        (FIGURE, accuracy_against_parameters(result)),
    ):
        with replacing(folder / name) as partial:
            partial.write_bytes(contents)
    return result


def _checked(settings: CompareSettings) -> CompareSettings:
    """Return the settings in one way of writing them, or say what is wrong with them."""
    refconv.load_backend(settings.backend)
    seeds = as_int(settings.seeds, "seeds", 2, 2**32)  # one has no spread
    as_int(settings.recipe.epochs, "epochs", 1)
    as_int(settings.blocks, "blocks", 1, 26)  # without blocks nothing is grouped
    paired_interval([0] * 2)  # if SciPy or Matplotlib is missing, that is said before the training, not after
    with needing("figures", "Matplotlib"):
        import matplotlib.figure  # noqa: F401
    if len(settings.groups) > len(STYLES):
        raise ValueError(
            f"groups must be at most {len(STYLES)}, which a figure can tell apart; got {len(settings.groups)}"
        )
    groups = []
    for name in settings.groups:
        spec = parse_groups(name)
        groups.append(
            "dense" if spec.label == 1 else f"uniform:{spec.n}" if spec.kind == "uniform" else str(spec.label)
        )
    budgets = [as_int(budget, "budgets") for budget in settings.budgets]
    for what, values, least in (("data", settings.data, 1), ("groups", groups, 2), ("budgets", budgets, 1)):
        if len(set(values)) < len(values):
            raise ValueError(f"{what} must not name the same twice; got {', '.join(map(str, values))}")
        if len(values) < least:
            raise ValueError(f"{what} must be at least {least}; got {shown(list(values))}")
    return CompareSettings(
        tuple(settings.data), tuple(groups), tuple(budgets), seeds, settings.blocks, settings.backend, settings.recipe
    )


def _networks(settings: CompareSettings, sets: dict[str, Split]) -> list[Network]:
    found = []
    for data, budget, groups in itertools.product(settings.data, settings.budgets, settings.groups):
        shape = {"blocks": settings.blocks, **image_shape(sets[data])}
        try:
            channels = match_width(groups, budget, **shape)
        except ValueError as error:
            raise ValueError(f"{error} (on {short_name(data)})") from None
        cost = residual_cost(groups, channels, **shape)
        found.append(Network(data, budget, groups, channels, cost.parameters, cost.macs))
    return found


def _config(settings: CompareSettings, sets: dict[str, Split]) -> dict[str, Any]:
    """Return the settings as a file gives them back."""
    config = asdict(settings)
    recipe = config.pop("recipe")
    images = {name: fingerprint(data) for name, data in sets.items()}
    found: dict[str, Any] = json.loads(json.dumps(config | recipe | {"data_sha256": images}))
    return found


# --- What is saved --------------------------------------------------------------------------------------------


def _key(row: dict[str, Any]) -> _Key:
    return row["data"], row["budget"], row["groups"], row["seed"]


def _saved(
    folder: Path, config: dict[str, Any], resume: bool, keys: set[_Key], tested: Mapping[str, int]
) -> list[dict[str, Any]]:
    """Return the trainings to go on from. The last line is ignored if it is not whole, as a kill leaves it."""
    path = folder / RESULTS
    if not path.exists():
        if resume:
            raise CompareError(f"cannot resume: there is no {path}")
        return []
    if not resume:
        raise CompareError(f"{path} is there already: --resume goes on from it, another --out begins anew")
    lines = path.read_bytes().split(b"\n")[:-1]
    try:
        first, *rows = [json.loads(line) for line in lines]
        before, found = dict(first["settings"]), {_key(row) for row in rows}
        if not all(type(row[name]) is int for row in rows for name in ("budget", "seed", "right")):  # no bool, no float
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CompareError(f"cannot resume: {path} is damaged, or not a comparison's") from error
    for name in [*config, *before]:
        was, now = before.get(name), config.get(name)
        if was != now:
            what = "other images" if name == "data_sha256" else f"{name}={_shown(was)}, not {name}={_shown(now)}"
            raise CompareError(f"{path} is of a comparison with {what}: it can go on only as it began")
    if not found <= keys or len(found) < len(rows):
        raise CompareError(f"cannot resume: {path} is damaged: it has trainings that its settings have not")
    for row in rows:
        if not 0 <= row["right"] <= tested[row["data"]]:
            raise CompareError(
                f"cannot resume: {path} is damaged: of {tested[row['data']]} images {row['right']} right"
            )
    return rows


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _begin_results(folder: Path, config: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Write the results so far anew, whole lines only."""
    with replacing(folder / RESULTS) as partial:
        partial.write_text("".join(json.dumps(row) + "\n" for row in [{"settings": config}, *rows]), encoding="utf-8")


def _append(path: Path, row: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())
