"""The tour from beginning to end: four steps, and a report of their findings."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import refconv
from refconv.arrays import Array, Namespace, device
from refconv.packages import check_packages
from refconv.progress import Reporter
from refconv.settings import cores

STEPS = 4
_PACKAGES = {
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "skimage": "scikit-image",
    "matplotlib": "matplotlib",
    "jinja2": "Jinja2",
}
"""Modules that the tour imports, and the packages that contain them."""


@dataclass(frozen=True)
class Settings:
    """Settings that determine the length of a tour.

    Attributes
    ----------
    backend : str or None
        The array module; None reads ``REFCONV_BACKEND``.
    seed : int
        Seed for the random problems and weights, and the first seed of the training.
    exact_problems, real_problems : int
        Random problems with whole numbers, and with real numbers.
    repetitions : int
        Timed runs of AlexNet's convolutions.
    training_seeds, training_epochs : int
        Maximum numbers of seeds and epochs, if time allows.
    training_images : int or None
        Digits to train on; None means all.
    seconds : float
        Approximate time for the whole tour. The training gets the time that the other steps leave, and at least a
        quarter.
    """

    backend: str | None = None
    seed: int = 0
    exact_problems: int = 300
    real_problems: int = 60
    repetitions: int = 9
    training_seeds: int = 5
    training_epochs: int = 6
    training_images: int | None = None
    seconds: float = 65.0

    @classmethod
    def quick(cls, backend: str | None = None, seed: int = 0) -> Settings:
        """Return the settings of a short tour, which only shows that everything runs."""
        return cls(
            backend=backend,
            seed=seed,
            exact_problems=40,
            real_problems=10,
            repetitions=2,
            training_seeds=2,
            training_epochs=1,
            training_images=320,
            seconds=8.0,
        )


@dataclass(frozen=True)
class TourResult:
    """The results of a tour.

    Attributes
    ----------
    passed : bool
        Whether the verification found no error.
    failures : tuple of str
        The errors that it found, each with a problem that shows it.
    results : dict
        All figures: the contents of ``results.json``.
    page : Path or None
        The report; None if the verification failed, because no report is written then.
    """

    passed: bool
    failures: tuple[str, ...]
    results: dict[str, Any]
    page: Path | None


def run_tour(
    out: str | os.PathLike[str], settings: Settings | None = None, reporter: Reporter | None = None
) -> TourResult:
    """Verify this installation, walk channel groups on real images, and write a report.

    Parameters
    ----------
    out : path
        Directory for ``index.html`` and ``results.json``. Both files or neither are written at the end, and replace the
        files of an earlier tour.
    settings : Settings, optional
        The length of the tour.
    reporter : Reporter, optional
        Called for every step; by default nothing is printed.

    Raises
    ------
    refconv.packages.MissingPackagesError
        If the extra ``refconv[tour]`` is not installed.
    ValueError, refconv.BackendError
        If there is no such array module, or it cannot be used here.
    refconv.tour.report.ReportError
        If no report can be written to `out`.
    """
    check_packages("the tour needs", _PACKAGES)
    from refconv.tour import report

    settings = Settings() if settings is None else settings
    reporter = Reporter() if reporter is None else reporter
    started = time.perf_counter()
    xp = refconv.load_backend(settings.backend)
    target = Path(out).absolute()
    report.check_target(target)
    results = _describe(xp, settings)
    failures = _verify(results, settings, reporter)
    if failures:  # the other steps are pointless if the convolution is wrong
        return TourResult(False, failures, results, None)
    figures = _alexnet(results, xp, settings, reporter)
    figures |= _connectivity(results, reporter)
    figures |= _digits(results, xp, settings, started, reporter)
    results["seconds"] = time.perf_counter() - started
    page = report.write(target, results, report.render(results, figures))
    return TourResult(True, (), results, page)


def _describe(xp: Namespace, settings: Settings) -> dict[str, Any]:
    name = _backend_name(xp)
    packages = ("numpy", *_PACKAGES.values())
    return {
        "passed": True,
        "version": refconv.__version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "backend": name,
        "device": str(device(_some_array(xp))),
        "seed": settings.seed,
        "environment": {
            "python": platform.python_version(),
            "system": f"{platform.system()} on {platform.machine()}",
            "cores": cores(),
            "packages": {package: importlib.metadata.version(package) for package in packages},
        },
    }


def _backend_name(xp: Namespace) -> str:
    return str(xp.__name__).rpartition(".")[2]


def _some_array(xp: Namespace) -> Array:
    return xp.zeros(1)


# The four steps: each adds its findings to the results, and returns its figures


def _verify(results: dict[str, Any], settings: Settings, reporter: Reporter) -> tuple[str, ...]:
    from refconv.tour import verify as step

    present, missing = step.available_backends(results["backend"])
    problems = settings.exact_problems + settings.real_problems
    with reporter.step(
        f"Verify: {problems} random problems on {', '.join(present)}", problems * (1 + len(present))
    ) as advance:
        found = step.verify(
            present,
            seed=settings.seed,
            exact=settings.exact_problems,
            real=settings.real_problems,
            missing=missing,
            advance=advance,
        )
    for report in found.backends:
        reporter.say(
            f"{report.name} {report.version}: {report.exact_problems} problems exact and {report.real_problems} within "
            f"bounds ({report.comparisons} arrays compared, {report.identities} adjoint identities), worst error "
            f"{report.worst_error:.2g} of its bound"
            if report.passed
            else f"{report.name} {report.version}: {len(report.failures)} of {problems} problems FAILED"
        )
    for reason in missing.values():
        reporter.say(f"not verified: {reason}")
    results["passed"] = found.passed
    results["verification"] = {
        "passed": found.passed,
        "seed": found.seed,
        "backends": [
            {
                "name": report.name,
                "version": report.version,
                "passed": report.passed,
                "exact_problems": report.exact_problems,
                "real_problems": report.real_problems,
                "comparisons": report.comparisons,
                "identities": report.identities,
                "worst_error_over_bound": report.worst_error,
                "failures": report.failures,
            }
            for report in found.backends
        ],
        "missing": missing,
    }
    return tuple(f"{report.name}: {failure}" for report in found.backends for failure in report.failures)


def _alexnet(results: dict[str, Any], xp: Namespace, settings: Settings, reporter: Reporter) -> dict[str, bytes]:
    from refconv.tour import alexnet as step
    from refconv.tour import figures

    with reporter.step(
        "AlexNet: five convolutions of a photograph, groups=2 and groups=1", settings.repetitions + 1
    ) as advance:
        found = step.run_alexnet(xp, seed=settings.seed, repetitions=settings.repetitions, advance=advance)
    for layer in found.layers:
        reporter.say(
            f"{layer.name}: {'×'.join(map(str, layer.output_shape)):>9}  "
            f"parameters {layer.parameters[0]:>9,} | {layer.parameters[1]:>9,}  "
            f"MACs {layer.macs[0]:>11,} | {layer.macs[1]:>11,}  "
            f"time {1e3 * layer.seconds[0]:5.1f} | {1e3 * layer.seconds[1]:5.1f} ms"
        )
    reporter.say(
        f"groups=1 needs {found.mac_ratio:.2f} times the multiply-adds of groups=2, and took "
        f"{found.time_ratio:.2f} times as long here (indicative)"
    )
    results["alexnet"] = {
        "photograph": "astronaut (Eileen Collins), NASA, public domain, from scikit-image",
        "repetitions": found.repetitions,
        "layers": [
            {
                "name": layer.name,
                "grouped": layer.grouped,
                "output_shape": list(layer.output_shape),
                **_by_groups("parameters", layer.parameters),
                **_by_groups("macs", layer.macs),
                **_by_groups("seconds", layer.seconds),
            }
            for layer in found.layers
        ],
        **_by_groups("parameters", found.total("parameters")),
        **_by_groups("macs", found.total("macs")),
        **_by_groups("seconds", found.seconds),
        "mac_ratio": found.mac_ratio,
        "time_ratio": found.time_ratio,
    }
    return {"photograph": figures.photograph_figure(found), "alexnet": figures.alexnet_figure(found)}


def _by_groups(what: str, pair: tuple[float, float]) -> dict[str, float]:
    return {f"{what}_groups_2": pair[0], f"{what}_groups_1": pair[1]}


def _connectivity(results: dict[str, Any], reporter: Reporter) -> dict[str, bytes]:
    from refconv.tour import figures
    from refconv.tour.digits import CHANNELS, GROUPINGS

    kinds = [(name, spec.build(CHANNELS, CHANNELS)) for name, spec in GROUPINGS.items()]
    with reporter.step("Connectivity: which output channel reads which input channel", 1) as advance:
        picture = figures.connectivity_figure(kinds)
        advance(1, "drawing")
    results["connectivity"] = [
        {
            "name": name,
            "in_sizes": list(groups.in_sizes),
            "out_sizes": list(groups.out_sizes),
            "weights_kept": int(groups.connectivity().sum()) / (groups.c_in * groups.c_out),
        }
        for name, groups in kinds
    ]
    for kind in results["connectivity"]:
        reporter.say(
            f"{kind['name']}: groups of {kind['in_sizes']} channels keep {kind['weights_kept']:.1%} of the weights"
        )
    return {"connectivity": picture}


def _digits(
    results: dict[str, Any], xp: Namespace, settings: Settings, started: float, reporter: Reporter
) -> dict[str, bytes]:
    from refconv.tour import digits as step
    from refconv.tour import figures

    left = max(settings.seconds - (time.perf_counter() - started), settings.seconds / 4)
    plan = step.Plan(settings.training_seeds, settings.training_epochs, left, settings.training_images)
    with reporter.step("Digits: train a small residual network", plan.seeds * len(step.GROUPINGS)) as advance:
        found = step.run_digits(xp, seed=settings.seed, plan=plan, advance=advance)
    reporter.say(
        f"seeds: {len(found.seeds)}, epochs: {found.epochs}, trained on {found.train_images} digits, tested on "
        f"{found.test_images}{' (limited by the time for the tour)' if found.budget_reached else ''}"
    )
    for network in found.networks:
        reporter.say(
            f"{network.name:<18} {network.parameters:>6,} parameters  "
            f"{100 * network.mean:.1f} ± {100 * network.spread:.1f} %"
        )
    reporter.say(found.conclusion())
    results["digits"] = {
        "seeds": list(found.seeds),
        "epochs": found.epochs,
        "train_images": found.train_images,
        "test_images": found.test_images,
        "budget_reached": found.budget_reached,
        "networks": [
            {
                "name": network.name,
                "parameters": network.parameters,
                "accuracies": list(network.accuracies),
                "mean": network.mean,
                "standard_deviation": network.spread,
                "training_seconds": network.seconds,
            }
            for network in found.networks
        ],
        "largest_difference": found.largest_difference,
        "largest_spread": found.largest_spread,
        "sampling_error": found.sampling_error,
        "no_clear_difference": found.is_null,
        "conclusion": found.conclusion(),
    }
    return {"digits": figures.accuracy_figure(found)}
