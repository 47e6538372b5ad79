"""Compare channel groups: the same residual network in several widths, trained with the same seeds.

Every grouping meets every budget of parameters, by its number of channels. A seed draws the initial weights and the
order of the images; the split of the data is always the same. So two groupings of one budget are compared seed by seed.
Each finished training is a line of a file. An interrupted comparison can be resumed from this file.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import refconv
from refconv.cost import parse_groups, residual
from refconv.distributed.sweep import rows_of_cluster
from refconv.experiments.figures import STYLES, accuracy_by_budget
from refconv.experiments.paired import paired_interval
from refconv.experiments.tables import evaluation, markdown, short_name
from refconv.experiments.tasks import CompareError, CompareSettings, image_shape, result_rows, trainer_of
from refconv.experiments.train import fingerprint
from refconv.experiments.widths import LARGEST_BUDGET, Network, match_width
from refconv.files import alone_in, replacing
from refconv.integers import as_int, shown
from refconv.nn import Split
from refconv.nn.data import load_dataset
from refconv.nn.data.split import needing
from refconv.progress import CompareObserver

if TYPE_CHECKING:
    from distributed import Client

RESULTS, EVALUATION, TABLE, FIGURE = "results.jsonl", "comparison.json", "comparison.md", "comparison.png"


_Key = tuple[str, int, str, int]


class InterruptedComparisonError(Exception):
    """A comparison was asked to stop; every finished training is saved."""

    def __init__(self, done: int, total: int) -> None:
        super().__init__(f"interrupted after {done} of {total} trainings, which are saved")


def run_comparison(
    settings: CompareSettings,
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    jobs: int = 1,
    observer: CompareObserver | None = None,
    stopping: Callable[[], bool] = lambda: False,
    cluster: contextlib.AbstractContextManager[Client] | None = None,
) -> dict[str, Any]:
    """Train every grouping at every budget on every data set with every seed, and evaluate the differences.

    Parameters
    ----------
    settings : CompareSettings
        Settings of the comparison.
    out : path
        Folder for ``results.jsonl`` (the settings, then one object per line and training), ``comparison.json`` (the
        evaluation), ``comparison.md`` (tables and conclusion) and ``comparison.png``. Created if necessary.
    resume : bool
        Resume from the results in `out`.
    jobs : int
        Number of trainings at a time, at most 61. If more than 1, they run in separate processes that import the
        caller's main module, which must do its work under ``if __name__ == "__main__"``. It changes no result.
    observer : CompareObserver, optional
        Called for every training.
    stopping : callable () -> bool, optional
        Called frequently; if it returns true, the comparison stops.
    cluster : context manager of distributed.Client, optional
        Run the trainings on the workers of this Dask cluster instead of `jobs`: see
        :func:`refconv.distributed.open_cluster`. It is opened after the settings and the results in `out` have been
        checked, and changes no result. If a worker ends, its training runs again.

    Returns
    -------
    dict
        The contents of ``comparison.json``: see :func:`refconv.experiments.tables.evaluation`.

    Raises
    ------
    CompareError
        If there are results and `resume` is false, or no results and it is true; if another process works in `out`;
        if the results are damaged or belong to a comparison with other settings (nothing is written then); or if a
        training process died.
    InterruptedComparisonError
        If `stopping` returned true; the comparison can be resumed.
    ValueError, TypeError, ImportError, refconv.BackendError
        If a setting is wrong, or a package is missing.
    OSError
        If a file cannot be written; earlier results remain.
    """
    folder, observer = Path(out), CompareObserver() if observer is None else observer
    jobs = as_int(jobs, "jobs", 1, 61)
    settings = _checked(settings)
    sets = {name: load_dataset(name) for name in settings.data}
    networks = _networks(settings, sets)
    config = _config(settings, sets)
    tasks = [(settings, network, seed) for seed in range(settings.seeds) for network in networks]
    trainer_of(tasks[0], sets[tasks[0][1].data])  # checks the recipe before anything is written
    keys = {network.key(seed) for _, network, seed in tasks}
    tested = {name: len(data.test_labels) for name, data in sets.items()}
    with contextlib.ExitStack() as stack:
        client = None
        if cluster is not None and len(_saved(folder, config, resume, keys, tested)) < len(tasks):
            client = stack.enter_context(cluster)
        if not resume:
            folder.mkdir(parents=True, exist_ok=True)
        elif not folder.is_dir():
            raise CompareError(f"cannot resume: there is no {folder / RESULTS}")
        if not stack.enter_context(alone_in(folder)):
            raise CompareError(f"{folder} is in use by another training or comparison; choose another --out, or wait")
        rows = _saved(folder, config, resume, keys, tested)
        done = {_key(row): row for row in rows}
        _begin_results(folder, config, rows)
        observer.begin(len(done), len(tasks))
        left = [task for task in tasks if task[1].key(task[2]) not in done]
        rows_left = (
            result_rows(left, sets, jobs, stopping)
            if client is None
            else rows_of_cluster(client, left, config["data_sha256"], stopping)
        )
        with contextlib.closing(rows_left) as found:
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
    """Write the evaluation of the trainings, and return it."""
    result = evaluation(config, sets, networks, {key: row["right"] for key, row in done.items()})
    for name, contents in (
        (EVALUATION, (json.dumps(result, indent=2) + "\n").encode()),
        (TABLE, markdown(result).encode()),
        (FIGURE, accuracy_by_budget(result)),
    ):
        with replacing(folder / name) as partial:
            partial.write_bytes(contents)
    return result


def _checked(settings: CompareSettings) -> CompareSettings:
    """Return the settings in a normal form, or raise an error if they are wrong."""
    refconv.load_backend(settings.backend)
    seeds = as_int(settings.seeds, "seeds", 2, 2**32)  # one seed has no spread
    as_int(settings.recipe.epochs, "epochs", 1)
    as_int(settings.blocks, "blocks", 1, 26)  # without blocks nothing is grouped
    paired_interval([0] * 2)  # raises before the training if SciPy is missing
    with needing("figures", "Matplotlib"):
        import matplotlib.figure  # noqa: F401
    if len(settings.groups) > len(STYLES):
        raise ValueError(
            f"groups must have length at most {len(STYLES)}, a figure's number of styles; got {len(settings.groups)}"
        )
    groups = []
    for name in settings.groups:
        spec = parse_groups(name)
        groups.append(
            "dense" if spec.label == 1 else f"uniform:{spec.n}" if spec.kind == "uniform" else str(spec.label)
        )
    budgets = [as_int(budget, "budgets", 1, LARGEST_BUDGET) for budget in settings.budgets]
    for what, values, least in (("data", settings.data, 1), ("groups", groups, 2), ("budgets", budgets, 1)):
        if len(set(values)) < len(values):
            raise ValueError(f"{what} must not contain duplicates; got {', '.join(map(str, values))}")
        if len(values) < least:
            raise ValueError(f"{what} must have length at least {least}; got {shown(list(values))}")
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
            raise ValueError(f"budgets must suit the groups and {short_name(data)}: {error}") from None
        cost = residual(groups, channels=channels, **shape)
        found.append(Network(data, budget, groups, channels, cost.parameters, cost.macs))
    return found


def _config(settings: CompareSettings, sets: dict[str, Split]) -> dict[str, Any]:
    """Return the settings as read back from a file."""
    config = asdict(settings)
    recipe = config.pop("recipe")
    images = {name: fingerprint(data) for name, data in sets.items()}
    found: dict[str, Any] = json.loads(json.dumps(config | recipe | {"data_sha256": images}))
    return found


# --- Saved results --------------------------------------------------------------------------------------------


def _key(row: dict[str, Any]) -> _Key:
    return row["data"], row["budget"], row["groups"], row["seed"]


def _saved(
    folder: Path, config: dict[str, Any], resume: bool, keys: set[_Key], tested: Mapping[str, int]
) -> list[dict[str, Any]]:
    """Return the finished trainings. An incomplete last line, as left by a kill, is ignored."""
    path = folder / RESULTS
    if not path.exists():
        if resume:
            raise CompareError(f"cannot resume: there is no {path}")
        return []
    if not resume:
        raise CompareError(f"{path} already exists: --resume continues from it, another --out starts afresh")
    if not path.is_file():  # reading a pipe might never end
        raise CompareError(f"cannot resume: {path} is not a file")
    lines = path.read_bytes().split(b"\n")[:-1]
    try:
        first, *rows = [json.loads(line) for line in lines]
        before, found = dict(first["settings"]), {_key(row) for row in rows}
        if not all(type(row[name]) is int for row in rows for name in ("budget", "seed", "right")):  # not bool
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CompareError(f"cannot resume: {path} is damaged, or not the results of a comparison") from error
    for name in [*config, *before]:
        was, now = before.get(name), config.get(name)
        if was != now:
            what = "other images" if name == "data_sha256" else f"{name}={_shown(was)}, not {name}={_shown(now)}"
            raise CompareError(f"{path} belongs to a comparison with {what}; resume with its own settings")
    if not found <= keys or len(found) < len(rows):
        raise CompareError(f"cannot resume: {path} is damaged: it contains trainings outside its settings")
    for row in rows:
        if not 0 <= row["right"] <= tested[row["data"]]:
            raise CompareError(
                f"cannot resume: {path} is damaged: {row['right']} of {tested[row['data']]} images right"
            )
    return rows


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _begin_results(folder: Path, config: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Rewrite the results so far, with complete lines only."""
    with replacing(folder / RESULTS) as partial:
        partial.write_text("".join(json.dumps(row) + "\n" for row in [{"settings": config}, *rows]), encoding="utf-8")


def _append(path: Path, row: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())
