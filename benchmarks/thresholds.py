"""Measure every cost and every threshold of the CPU engine, the basis of each constant in refconv/cpu.

A cost is timed directly, on one thread. A threshold is tried with real calls on either side of it, each computed both
ways: the constant, or the line of code that has it, is replaced so that the engine uses the method that it would not
choose. A constant that is a size has no sides; it is made smaller and larger.

The ways alternate in one process. Every gain is the median over rounds of another way's time, divided by the time of
the engine's own choice: above 1, the choice is right. A constant "pays" if it gains at least 3 % in some case and loses
3 % in none; it makes "no difference" if all gains are smaller; otherwise it is "wrong" in some case.

    python benchmarks/thresholds.py [--rounds 9] [--seconds 0.03] [--only NAME ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

import refconv
from refconv.bench.peers import operands
from refconv.bench.record import header, options, run, write
from refconv.bench.workloads import WORKLOADS, Layer
from refconv.cpu import adjoint, choices, layouts, passes, plan, threads
from refconv.im2col import scatter_columns
from refconv.nn import keep_memory
from refconv.shapes import Geometry, geometry

MODULES = (adjoint, choices, layouts, passes, plan, threads)
MARGIN = 0.03
"""Minimum relative difference of times that counts."""

Seconds = dict[str, list[float]]
Way = Callable[[], contextlib.AbstractContextManager[None]]
"""Makes a context manager, for each round, in which calls are computed in one way."""


# --- Costs, in nanoseconds on one thread ---


def multiply() -> list[float]:
    """Return the time of a multiply-add in a large product."""
    a, b = np.random.default_rng(0).standard_normal((2, 2048, 2048)).astype(np.float32)
    product = np.empty_like(a)
    return [least(lambda: np.matmul(a, b, out=product)) / 2048**3]


def narrow() -> list[float]:
    """Return NARROW from products of 8, 16, 32 and 64 rows, each compared with one of 1,024 rows."""
    rng = np.random.default_rng(0)
    columns = rng.standard_normal((576, 3136)).astype(np.float32)

    def of(rows: int) -> float:
        matrix = rng.standard_normal((rows, 576)).astype(np.float32)
        product = np.empty((rows, 3136), np.float32)
        return least(lambda: np.matmul(matrix, columns, out=product)) / rows

    wide = of(1024)
    return [rows * (of(rows) / wide - 1) for rows in (8, 16, 32, 64)]


def _image(stride: int) -> tuple[Geometry, Any]:
    geo = geometry((56, 56), (3, 3), stride=stride, padding=1, dilation=1)
    return geo, np.random.default_rng(0).standard_normal((1, 64, *geo.padded)).astype(np.float32)


def copy() -> list[float]:
    """Return the time of an element that im2col copies, with strides 1 and 2."""
    found = []
    for stride in (1, 2):
        geo, image = _image(stride)
        columns = layouts.Taps().gather(image, geo, 1)
        found.append(least(lambda geo=geo, image=image: layouts.Taps().gather(image, geo, 1)) / columns.size)
    return found


def sum_() -> list[float]:
    """Return the time of an element that is added to a sum in cache."""
    total, product = np.zeros((2, 64, 3136), np.float32)
    return [least(lambda: np.add(total, product, out=total)) / total.size]


def scatter(stride: int) -> list[float]:
    """Return the time of an element that col2im adds."""
    geo, image = _image(stride)
    columns = layouts.Taps().gather(image, geo, 1)[0, 0]
    return [least(lambda: scatter_columns(np, columns, geo, 1)) / columns.size]


def call() -> list[float]:
    """Return the time of one more product of small matrices, and its sum."""
    left, right = (list(np.ones((9, 1, 4, 4), np.float32)) for _ in range(2))
    one, nine = (least(lambda n=n: layouts.sum_of_products(left[:n], right[:n])) for n in (1, 9))
    return [(nine - one) / 8]


def least(work: Callable[[], object], seconds: float = 0.2) -> float:
    """Return the shortest time of a call, in nanoseconds."""
    work()
    times: list[int] = []
    until = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < until:
        started = time.perf_counter_ns()
        work()
        times.append(time.perf_counter_ns() - started)
    return float(min(times))


COSTS: dict[str, Callable[[], list[float]]] = {
    "MULTIPLY": multiply,
    "NARROW": narrow,
    "COPY": copy,
    "SUM": sum_,
    "SCATTER": lambda: scatter(1),
    "SCATTER_APART": lambda: scatter(2),
    "CALL": call,
}


# --- Ways: replacements in the engine ---


@contextlib.contextmanager
def put(module: ModuleType, **values: Any) -> Iterator[None]:
    """Replace names of a module, and empty the caches that depend on the old ones."""
    before = {name: getattr(module, name) for name in values}
    try:
        for name, value in values.items():
            setattr(module, name, value)
        forget()
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)
        forget()


@contextlib.contextmanager
def rewritten(function: Any, old: str, new: str) -> Iterator[None]:
    """Replace part of a function's source in every module of the engine that has the function."""
    source = inspect.getsource(inspect.unwrap(function))
    if source.count(old) != 1:
        raise ValueError(f"{function.__name__} must contain {old!r} once; it has changed")
    home = sys.modules[function.__module__]
    made = dict(vars(home))
    exec(compile(source.replace(old, new), f"<{function.__name__}>", "exec"), made)
    replacement, globals_ = made[function.__name__], vars(home)
    inner = inspect.unwrap(replacement)
    bound = type(inner)(inner.__code__, globals_, inner.__name__, inner.__defaults__, inner.__closure__)
    bound.__kwdefaults__ = inner.__kwdefaults__
    with contextlib.ExitStack() as stack:
        for module in MODULES:
            if vars(module).get(function.__name__) is function:
                stack.enter_context(put(module, **{function.__name__: bound}))
        yield


def forget() -> None:
    """Empty every cache of the engine."""
    for module in (adjoint, choices, passes, plan):
        for value in vars(module).values():
            if hasattr(value, "cache_clear") and value.__module__ == module.__name__:
                value.cache_clear()


def constant(module: ModuleType, name: str, value: Any) -> Way:
    """Return the way that results from another value of a constant."""
    return lambda: put(module, **{name: value})


def source(function: Any, old: str, new: str) -> Way:
    """Return the way that results from another line of a function."""
    return lambda: rewritten(function, old, new)


def answer(module: ModuleType, name: str, value: bool) -> Way:
    """Return the way that results if a function always gives the same answer."""
    return constant(module, name, lambda *arguments: value)


NEVER, ALWAYS = 2**62, 0
"""Used as the minimum of a property: no call reaches it, or every call does."""


# --- Trials ---


class Case(NamedTuple):
    """One call, and the engine's way if the ways differ only in time, not in layouts and tiles."""

    layer: Layer
    what: str  # "forward", "input gradient", "weight gradient", "both gradients" or "bias gradient"
    chosen: str = ""
    sides: tuple[tuple[str, str], ...] = ()  # the way, and the side of the threshold on which the engine uses it
    dtype: str = "float32"
    padding_mode: str = "zeros"

    def __str__(self) -> str:
        n = self.layer
        text = f"{n.c_in}→{n.c_out} channels" + (f" in {n.groups.n} groups" if n.groups.n > 1 else "")
        text += f", {n.kernel}×{n.kernel}" + (f", stride {n.stride}" if n.stride > 1 else "")
        text += f", {n.batch}×{n.size}×{n.size}" + (f", {self.dtype}" if self.dtype != "float32" else "")
        return text + (f", {self.padding_mode}" if self.padding_mode != "zeros" else "")

    def make(self) -> Callable[[], object]:
        """Return the call."""
        x, weights, _, grad = operands(self.layer, self.dtype)
        groups: Any = self.layer.groups
        w: Any = weights
        if groups.is_uniform:
            w, groups = np.concatenate(weights), groups.n
        options: dict[str, Any] = {"stride": self.layer.stride, "padding": self.layer.padding, "groups": groups}
        options["padding_mode"] = self.padding_mode
        if self.what == "forward":
            return lambda: refconv.conv(x, w, **options)
        needs = {"both gradients": ("x", "weight")}.get(self.what, (self.what.removesuffix(" gradient"),))
        needs = ("x",) if needs == ("input",) else needs
        return lambda: refconv.conv_backward(grad, x, w, needs=needs, **options)


class Trial(NamedTuple):
    """One constant: its place, its purpose, the ways that it chooses between, and the calls to time.

    `name` is the name of the constant, or the line of code that has it.
    """

    name: str
    module: ModuleType
    decides: str
    ways: dict[str, Way]
    cases: Sequence[Case]

    @property
    def value(self) -> str:
        """The constant's value, if it has a name."""
        value = getattr(self.module, self.name, None)
        return f"{value:,}" if isinstance(value, int) else ""


def layer(c_in: int, c_out: int, size: int, kernel: int = 3, batch: int = 8, spec: str = "1", **more: Any) -> Layer:
    """Return a layer whose output is as large as its input, unless it has a stride."""
    return Layer("", batch, c_in, size, c_out, kernel, padding=kernel // 2, spec=spec, **more)


def sides(below: Layer, above: Layer, what: str, chosen: tuple[str, str], **more: Any) -> list[Case]:
    """Return a case on either side of a threshold."""
    names = tuple(zip(chosen, ("below", "above"), strict=True))
    return [Case(call, what, way, names, **more) for call, way in zip((below, above), chosen, strict=True)]


def sizes(module: ModuleType, name: str, factor: int = 8) -> dict[str, Way]:
    """Return a constant's own size, a smaller and a larger one."""
    own = getattr(module, name)
    found = {f"1/{factor}": own // factor, "own": own, f"×{factor}": own * factor}
    return {way: constant(module, name, value) for way, value in found.items()}


ALEXNET, (RESNEXT,), (DEPTHWISE,), (LOG4,) = (
    WORKLOADS[name] for name in ("alexnet", "resnext", "depthwise", "logarithmic")
)
STRIDED = layer(64, 64, 56, stride=2)


def trials() -> list[Trial]:
    """Return every trial."""
    minimum = {"yes": ALWAYS, "no": NEVER}  # values of a constant that is a minimum
    maximum = {"yes": NEVER, "no": ALWAYS}

    def both(name: str, values: dict[str, int]) -> dict[str, Way]:
        return {way: constant(choices, name, value) for way, value in values.items()}

    return [
        Trial(
            "FEW",
            choices,
            "positions of a sample up to which samples share a product",
            both("FEW", maximum),
            [
                *sides(layer(64, 64, 14), layer(64, 64, 28), "forward", ("yes", "no")),
                *sides(layer(32, 128, 14), layer(32, 128, 28), "forward", ("yes", "no")),
            ],
        ),
        Trial(
            "HEAVY",
            choices,
            "weights of a group from which samples share a product",
            both("HEAVY", minimum),
            [
                *sides(layer(32, 32, 13), layer(64, 64, 13), "forward", ("no", "yes")),
                *sides(layer(16, 64, 13), layer(192, 192, 13), "forward", ("no", "yes")),
            ],
        ),
        Trial(
            "LONG",
            choices,
            "length of a run from which channels last are faster",
            both("LONG", minimum),
            [
                *sides(layer(16, 64, 28), layer(32, 64, 28), "weight gradient", ("no", "yes")),
                *sides(layer(8, 64, 28), layer(64, 64, 28), "weight gradient", ("no", "yes")),
                *sides(layer(12, 64, 13, 5), layer(16, 64, 13, 5), "forward", ("no", "yes")),
            ],
        ),
        Trial(
            "PAYS_OFF",
            choices,
            "positions of a batch from which transposing the weight pays off",
            both("PAYS_OFF", minimum),
            [
                *sides(layer(64, 64, 28, batch=1), layer(64, 64, 28, batch=2), "weight gradient", ("no", "yes")),
                *sides(layer(256, 384, 13, batch=4), ALEXNET[2], "weight gradient", ("no", "yes")),
            ],
        ),
        Trial(
            "LARGEST",
            choices,
            "weights up to which they are copied tap by tap",
            both("LARGEST", maximum),
            sides(layer(512, 768, 13), layer(768, 768, 13), "weight gradient", ("yes", "no"))
            + sides(layer(512, 768, 28, batch=2), layer(768, 768, 28, batch=2), "forward", ("yes", "no")),
        ),
        Trial(
            "SHARED_ELEMENTS",
            choices,
            "numbers in a weight up to which both gradients come from the same columns",
            both("SHARED_ELEMENTS", maximum),
            [
                *sides(layer(256, 256, 13), layer(384, 384, 13), "both gradients", ("yes", "no")),
                *sides(layer(64, 64, 28), layer(512, 512, 13), "both gradients", ("yes", "no")),
            ],
        ),
        Trial(
            "rows_pay_for_images",
            choices,
            "row columns for sums over taps, by costs",
            {"yes": answer(choices, "rows_pay_for_images", True), "no": answer(choices, "rows_pay_for_images", False)},
            [
                Case(ALEXNET[0], "forward"),
                Case(layer(64, 64, 56), "forward"),
                Case(RESNEXT, "forward"),
                Case(layer(3, 256, 56), "forward"),
            ],
        ),
        Trial(
            "rows_pay_for_kernels",
            choices,
            "row columns for sums over the batch, by costs",
            {
                "yes": answer(choices, "rows_pay_for_kernels", True),
                "no": answer(choices, "rows_pay_for_kernels", False),
            },
            [
                Case(ALEXNET[0], "weight gradient"),
                Case(RESNEXT, "weight gradient"),
                Case(layer(16, 256, 56), "weight gradient"),
            ],
        ),
        Trial(
            "correlation_pays",
            choices,
            "scatter as a correlation, by costs",
            {"yes": answer(adjoint, "correlation_pays", True), "no": answer(adjoint, "correlation_pays", False)},
            [
                Case(ALEXNET[0], "input gradient"),
                Case(ALEXNET[1], "input gradient"),
                Case(STRIDED, "input gradient"),
                Case(layer(256, 64, 28, 1, stride=2), "input gradient"),
                Case(layer(64, 3, 56, 3, stride=2), "input gradient"),
            ],
        ),
        Trial(
            "TILE_BYTES",
            plan,
            "size of a tile",
            sizes(plan, "TILE_BYTES", 4),
            [
                Case(ALEXNET[0], "forward", "own"),
                Case(ALEXNET[1], "forward", "own"),
                Case(layer(64, 64, 112), "forward", "own"),
                Case(layer(64, 64, 112, batch=2), "both gradients", "own"),
            ],
        ),
        Trial(
            "CHANNELS",
            plan,
            "image channels that a tile of a gradient takes together",
            sizes(plan, "CHANNELS", 4),
            [
                Case(layer(256, 64, 112, batch=2), "weight gradient", "own"),
                Case(layer(128, 128, 112, batch=2, stride=2), "weight gradient", "own"),
                Case(layer(256, 16, 112, batch=2), "weight gradient", "own"),
            ],
        ),
        Trial(
            "4 * halo",
            plan,
            "rows of a tile, in rows read twice, below which it takes fewer channels",
            {
                "1/4": source(plan._rows_of_a_tile, "4 * halo", "halo"),
                "own": contextlib.nullcontext,
                "×4": source(plan._rows_of_a_tile, "4 * halo", "16 * halo"),
            },
            [
                Case(layer(64, 64, 224, batch=1), "weight gradient", "own"),
                Case(layer(128, 64, 112, 5, batch=2), "weight gradient", "own"),
            ],
        ),
        Trial(
            "many_small",
            plan,
            "groups and channels of a group with which a tile is twice as large",
            {
                "yes": source(plan.make_plan, "if many_small or", "if True or"),
                "no": source(plan.make_plan, "if many_small or", "if"),
            },
            [
                *sides(RESNEXT, layer(512, 512, 28, spec="16"), "forward", ("yes", "no")),
                *sides(RESNEXT, layer(512, 512, 28, spec="16"), "both gradients", ("yes", "no")),
                Case(DEPTHWISE, "both gradients", "yes", (("yes", "below"), ("no", "above"))),
            ],
        ),
        Trial(
            "budget = 2 * TILE_BYTES",
            plan,
            "size of a tile of many small groups, or of samples that share a product",
            {
                "1": source(plan.make_plan, "budget = 2 * TILE", "budget = TILE"),
                "2": contextlib.nullcontext,
                "4": source(plan.make_plan, "budget = 2 * TILE", "budget = 4 * TILE"),
            },
            [
                Case(RESNEXT, "forward", "2"),
                Case(DEPTHWISE, "forward", "2"),
                Case(layer(256, 384, 13, batch=32), "forward", "2"),
            ],
        ),
        Trial(
            "8 * TILE_BYTES",
            plan,
            "size of a tile whose rows cannot be cut",
            {
                "1": source(plan.make_plan, "else 8 * TILE", "else TILE"),
                "8": contextlib.nullcontext,
                "32": source(plan.make_plan, "else 8 * TILE", "else 32 * TILE"),
            },
            [
                Case(layer(64, 64, 56), "input gradient", "8", padding_mode="circular"),
                Case(layer(64, 64, 112, batch=2), "input gradient", "8", padding_mode="circular"),
            ],
        ),
        Trial(
            "slices = 4 if len(shares) == 1 else 2",
            plan,
            "slices of a batch, at least, for threads to share",
            {
                "1": source(plan._plan, "slices = 4 if len(shares) == 1 else 2", "slices = 1"),
                "4 or 2": contextlib.nullcontext,
                "8 or 4": source(
                    plan._plan, "slices = 4 if len(shares) == 1 else 2", "slices = 8 if len(shares) == 1 else 4"
                ),
            },
            [
                Case(ALEXNET[4], "forward", "4 or 2"),
                Case(layer(64, 64, 28), "forward", "4 or 2"),
                Case(RESNEXT, "forward", "4 or 2"),
                Case(LOG4, "forward", "4 or 2"),
                Case(layer(64, 64, 28), "both gradients", "4 or 2"),
            ],
        ),
        Trial(
            "parts=4",
            plan,
            "parts of the batch whose sums are added last",
            {
                "1": source(plan._plan, "parts=4 if", "parts=1 if"),
                "4": contextlib.nullcontext,
                "8": source(plan._plan, "parts=4 if", "parts=8 if"),
            },
            [
                Case(ALEXNET[0], "weight gradient", "4"),
                Case(layer(64, 64, 56), "weight gradient", "4"),
                Case(layer(64, 64, 56), "both gradients", "4"),
            ],
        ),
        Trial(
            "sums > tile",
            plan,
            "size of a weight from which threads share its channels instead of the batch",
            {
                "tile": contextlib.nullcontext,
                "tile // 4": source(plan._plan, "sums > tile", "sums > tile // 4"),
            },
            [
                Case(layer(192, 192, 28), "weight gradient", "tile"),
                Case(layer(128, 192, 28), "weight gradient", "tile", dtype="float64"),
                Case(ALEXNET[1], "weight gradient", "tile", dtype="float64"),
            ],
        ),
        Trial(
            "min(sums, tile) // 4",
            plan,
            "pieces, at least, of a weight whose channels threads share",
            {
                "2": source(plan._plan, "min(sums, tile) // 4", "min(sums, tile) // 2"),
                "4": contextlib.nullcontext,
                "16": source(plan._plan, "min(sums, tile) // 4", "min(sums, tile) // 16"),
            },
            [
                Case(layer(384, 384, 13), "weight gradient", "4"),
                Case(layer(512, 512, 13), "weight gradient", "4"),
            ],
        ),
        Trial(
            "TASK_BYTES",
            threads,
            "work up to which the calling thread does it alone",
            {
                "alone": constant(threads, "TASK_BYTES", NEVER),
                "threads": constant(threads, "TASK_BYTES", threads.TASK_BYTES // 32),
            },
            [
                *sides(layer(16, 64, 28, batch=4), layer(16, 128, 112), "bias gradient", ("alone", "threads")),
                *sides(
                    layer(16, 16, 14, spec="log:4", batch=8),
                    layer(64, 64, 28, spec="log:4"),
                    "forward",
                    ("alone", "threads"),
                ),
            ],
        ),
        Trial(
            "COPIED_AT_ONCE",
            passes,
            "elements of a weight that one task copies",
            sizes(passes, "COPIED_AT_ONCE"),
            [
                Case(ALEXNET[2], "forward", "own"),
                Case(layer(384, 384, 13), "both gradients", "own"),
                Case(layer(512, 512, 13), "input gradient", "own"),
            ],
        ),
        Trial(
            "TRANSPOSED_AT_ONCE",
            passes,
            "columns of a weight that are copied together",
            sizes(passes, "TRANSPOSED_AT_ONCE"),
            [
                Case(ALEXNET[2], "forward", "own"),
                Case(layer(512, 512, 13), "forward", "own"),
                Case(layer(512, 512, 13), "input gradient", "own"),
            ],
        ),
        Trial(
            "LOCKED",
            layouts,
            "results of a product up to which it is divided, so that other threads can work",
            {"yes": constant(layouts, "LOCKED", layouts.LOCKED), "no": constant(layouts, "LOCKED", 0)},
            [
                Case(layer(3, 4, 224), "weight gradient", "yes"),
                Case(layer(1, 4, 224), "weight gradient", "yes"),
                Case(layer(4, 16, 224), "weight gradient", "yes"),
            ],
        ),
    ]


# --- Measurement ---


def compare(call: Callable[[], object], ways: dict[str, Way], rounds: int, seconds: float) -> Seconds:
    """Return the median time of a call per round and way, alternately; the first call after a change is not timed."""
    found: Seconds = {name: [] for name in ways}
    order = list(ways)
    for number in range(rounds):
        for name in order[number % len(order) :] + order[: number % len(order)]:
            with ways[name]():
                call()
                times: list[float] = []
                until = time.perf_counter() + seconds
                while len(times) < 2 or time.perf_counter() < until:
                    started = time.perf_counter()
                    call()
                    times.append(time.perf_counter() - started)
                found[name].append(statistics.median(times))
    return found


def trace(call: Callable[[], object], way: Way) -> list[Any]:
    """Return the layouts and tiles of a call in one way."""
    seen: list[Any] = []

    def told(decide: Callable[..., Any], shown: Callable[[Any], Any]) -> Callable[..., Any]:
        def spy(*arguments: Any, **options: Any) -> Any:
            found = decide(*arguments, **options)
            seen.append(shown(found))
            return found

        return spy

    with contextlib.ExitStack() as stack:
        stack.enter_context(way())
        for name in ("for_images", "for_kernels", "for_both"):
            stack.enter_context(put(choices, **{name: told(getattr(choices, name), type)}))
        stack.enter_context(put(passes, make_plan=told(passes.make_plan, lambda plan: plan)))
        stack.enter_context(put(passes, as_correlation=told(passes.as_correlation, bool)))
        call()
    return seen


def way_of_engine(trial: Trial, case: Case, call: Callable[[], object]) -> str:
    """Return the engine's own way for a case: the one with the layouts and tiles of the unchanged engine."""
    own = trace(call, contextlib.nullcontext)
    same = [name for name, way in trial.ways.items() if trace(call, way) == own]
    if not same:
        raise ValueError(f"{trial.name}: the engine takes none of {', '.join(trial.ways)} for {case}")
    return case.chosen if case.chosen in same else same[0]


def result(trial: Trial, case: Case, rounds: int, seconds: float) -> dict[str, Any]:
    """Return the time of the engine's choice for one case, and its gain over each other way."""
    call = case.make()
    chosen = way_of_engine(trial, case, call)
    times = compare(call, trial.ways, rounds, seconds)
    own = times[chosen]
    gains = {
        name: statistics.median(other / mine for other, mine in zip(of, own, strict=True))
        for name, of in times.items()
        if name != chosen
    }
    medians = {name: statistics.median(of) for name, of in times.items()}
    return {
        "side": dict(case.sides).get(chosen, ""),
        "call": str(case),
        "pass": case.what,
        "chosen": chosen,
        "seconds": medians,
        "gains": gains,
    }


def verdict(cases: Sequence[dict[str, Any]]) -> str:
    """Return "pays", "no difference" or "wrong"."""
    gains = [gain for case in cases for gain in case["gains"].values()]
    if min(gains) < 1 - MARGIN:
        return "wrong"
    return "pays" if max(gains) > 1 + MARGIN else "no difference"


def measure(rounds: int, seconds: float, only: Sequence[str]) -> dict[str, Any]:
    """Return costs and trials; print each when it is done."""
    keep_memory()
    with threadpool_limits(1, user_api="blas"):
        costs = {name: cost() for name, cost in COSTS.items() if not only or name in only}
    found = []
    for trial in trials():
        if only and trial.name not in only:
            continue
        cases = [result(trial, case, rounds, seconds) for case in trial.cases]
        found.append(
            {
                "name": trial.name,
                "file": f"refconv/cpu/{trial.module.__name__.rpartition('.')[2]}.py",
                "value": trial.value,
                "decides": trial.decides,
                "verdict": verdict(cases),
                "cases": cases,
            }
        )
        print(f"{trial.name}: {verdict(cases)}", file=sys.stderr, flush=True)
        for case in cases:
            gains = ", ".join(f"{name} {gain:.2f}" for name, gain in case["gains"].items())
            own = f"{case['chosen']} {1e3 * case['seconds'][case['chosen']]:.2f} ms"
            print(f"    {case['side']:<6}{case['pass']}, {case['call']}: {own}; {gains}", file=sys.stderr, flush=True)
    return {
        "costs": {name: {"value": getattr(choices, name), "measured": of} for name, of in costs.items()},
        "trials": found,
    }


def main() -> None:
    """Measure in a process whose BLAS is at its best, print and record."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.03, help="seconds for which a way is repeated in a round")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="only these constants")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        print(json.dumps(measure(given.rounds, given.seconds, given.only)))
        return
    record = {**header(given), **run("measuring failed", __file__, "--worker", *options(given))}
    for name, cost in record["costs"].items():
        print(f"{name}: {cost['value']:g}, measured {', '.join(f'{value:.3g}' for value in cost['measured'])}")
    write(record, given.json)


if __name__ == "__main__":
    main()
