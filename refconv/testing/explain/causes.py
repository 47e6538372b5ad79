"""Causes: the numbers that known mistakes give on a problem, each with a clause that names the mistake."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from refconv.testing.explain.problems import remainders
from refconv.testing.explain.table import Asked, Line
from refconv.testing.oracles.problems import Problem

Numbers = tuple[int | None, int | None, int | None]
"""Stride, dilation (negative for a flipped kernel) and padding before of an axis, where these are known."""
STEPS = ("stride", "dilation")


def axis_reasons(numbers: Numbers, index: int, asked: Asked, flipped: str | None = None) -> dict[tuple[str, str], str]:
    """Return all possible causes of the numbers of an axis as clauses, by (what, cause).

    `flipped` names a flipped result, if not the kernel is flipped.
    """
    due = asked.lines[index]
    found = {}
    stride, step, _ = numbers
    if None not in (stride, step) and stride != due[0] and (stride, abs(step or 0)) == (due[1], due[0]):
        found["line", "exchanged"] = "stride and dilation are exchanged"
    if stride is not None and stride < 0:
        two = asked.shapes["positions"][2 + index] == 2
        found["line", "reversed"] = "the two positions are exchanged" if two else "positions are in reverse order"
    if step is not None and step < 0:
        found["line", "flipped"] = f"{flipped} comes out flipped" if flipped else "the kernel is flipped"
    for column, name in enumerate(STEPS):
        value = numbers[column]
        if value is not None and abs(value) != due[column]:
            for cause, (used, clause) in steps(asked, index, column).items():
                if used == abs(value):
                    found[name, cause] = clause
    return found | {("shift", key): clause for key, clause in shift_causes(numbers, index, asked).items()}


def steps(asked: Asked, index: int, column: int) -> dict[str, tuple[int, str]]:
    """Return the strides (column 0) or dilations (1) that mistakes give on one axis, each with its clause."""
    name, other = STEPS[column], STEPS[1 - column]
    due = asked.lines[index]
    found = {"ignored": (1, f"the {name} is ignored")}
    found |= {f"axis {j}": (line[column], f"the {name} is that of axis {j}") for j, line in enumerate(asked.lines)}
    found["halved"] = (due[column] // 2, f"the {name} is halved")
    found["doubled"] = (2 * due[column], f"the {name} is doubled")
    found["times"] = (due[0] * due[1], f"the {name} is multiplied by the {other}")
    found["more"] = (due[column] + 1, f"the {name} is one more than asked")
    found["less"] = (due[column] - 1, f"the {name} is one less than asked")
    return {cause: used for cause, used in found.items() if used[0] != due[column]}


def caused(causes: Collection[tuple[str, str]], index: int, asked: Asked) -> Line:
    """Return the line that causes give on an axis."""
    line, taps = list(asked.lines[index]), asked.problem.kernel[index]
    for what, cause in causes:
        column = STEPS.index(what) if what in STEPS else None
        if column is not None and cause in (known := steps(asked, index, column)):
            line[column] = known[cause][0]
        elif what == "shift" and cause in (pads := paddings(asked, index)):
            line[2] = -pads[cause][0]
        elif what == "shift" and cause.startswith("by "):
            line[2] += int(cause.removeprefix("by "))
    if ("line", "exchanged") in causes:
        line[:2] = line[1::-1]
    if ("line", "flipped") in causes:
        line[1:] = -line[1], line[2] + line[1] * (taps - 1)
    return line[0], line[1], line[2]


def shift(numbers: Numbers, index: int, asked: Asked) -> int:
    """Return by how many elements the first window starts too late; 0 if unknown."""
    return 0 if numbers[2] is None else asked.before[index] - numbers[2]


def elements(late: int) -> str:
    """Return by how many elements the first window starts late, or early."""
    count = "one element" if abs(late) == 1 else f"{abs(late)} elements"
    return f"it starts {count} {'late' if late > 0 else 'early'}"


def shift_causes(numbers: Numbers, index: int, asked: Asked) -> dict[str, str]:
    """Return the possible causes of the padding before, by a name for the same cause on other axes and problems.

    "by n" is the plain shift, so that it rules out a cause whose numbers are the same.
    """
    used, late = numbers[2], shift(numbers, index, asked)
    if used is None:
        return {}
    found = {name: clause for name, (padding, clause) in paddings(asked, index).items() if padding == used}
    others = [j for j, pair in enumerate(asked.before) if j != index and pair == used]
    if others:
        found["axis"] = f"the padding is that of axis {', '.join(map(str, others))}"
    return found | {f"by {late}": elements(late)}


def paddings(asked: Asked, index: int) -> dict[str, tuple[int, str]]:
    """Return the paddings before that mistakes give on one axis, each with the clause that names the mistake."""
    problem = asked.problem
    stride, dilation, taps = problem.stride[index], problem.dilation[index], problem.kernel[index]
    before, after = problem.pairs[index]
    span, rest, size = dilation * (taps - 1), remainders(problem)[index], problem.size[index]
    extra = (problem.output_padding or (0,) * len(asked.before))[index]
    same = max(0, (-(-size // stride) - 1) * stride + span + 1 - size)
    even, centred, undilated = taps % 2 == 0, taps // 2 * (dilation - 1), (taps - 1) * (dilation - 1)
    left = "what the stride leaves over"
    found = {
        "ignored": (0, "the padding before is ignored"),
        "exchanged": (after, "the padding after is used before"),
        "all": (before + after, "all padding is put before"),
        "halved": (before // 2, "the padding is halved"),
        "sign": (-before, "the padding has the wrong sign"),
        "times dilation": (before * dilation, "the padding is multiplied by the dilation"),
        "times stride": (before * stride, "the padding is multiplied by the stride"),
        "half kernel": (taps // 2, "the padding is k // 2"),
        "kernel": (taps - 1, "the padding is k − 1"),
        "half span": (span // 2, "the padding is dilation·(k − 1) // 2"),
        "centred": (taps // 2 * dilation, "the padding is dilation·(k // 2)"),
        "rounded up": (-(-before // stride) * stride, "the padding is rounded up to a multiple of the stride"),
        "rounded down": (before // stride * stride, "the padding is rounded down to a multiple of the stride"),
        "span": (span, "the padding is dilation·(k − 1), as in a full convolution"),
        "dilated kernel": (dilation * taps, "the padding is dilation·k"),
        "full": (span - before, "the padding is dilation·(k − 1) − padding"),
        "same": (same // 2, "the padding before is that of TensorFlow's SAME, which depends on the size"),
        "same lower": (same - same // 2, "the padding before is that of SAME_LOWER, which depends on the size"),
        "centre": (before + centred, "it starts (k // 2)·(dilation − 1) early: the kernel is dilated about its centre"),
        "undilated": (before + undilated, "it starts (k − 1)·(dilation − 1) early"),
        "undilated late": (before - undilated, "it starts (k − 1)·(dilation − 1) late"),
        "even": (before - even, "it starts one element late where k is even"),
        "even early": (before + even, "it starts one element early where k is even"),
        "late": (before - stride + 1, "the first window starts at the last element of a step"),
        "early": (before + stride - 1, "it starts stride − 1 early"),
        "stride": (before - stride, "it starts one stride late"),
        "stride early": (before + stride, "it starts one stride early"),
        "span late": (before - span, "it starts dilation·(k − 1) late"),
        "span early": (before + span, "it starts dilation·(k − 1) early"),
        "half": (before - stride // 2, "it starts half a stride late"),
        "rest": (before - rest, f"it starts late by {left}, so that the last window ends where the padded image ends"),
        "rest early": (before + rest, f"it starts early by {left} at the end"),
        "half rest": (before - rest // 2, f"it starts late by half of {left}, rounded down"),
        "half rest up": (before - -(-rest // 2),
                         f"it starts late by half of {left}, rounded up: the padding is that of SAME for this size"),
        "rest taps": (before - rest // dilation * dilation,
                      f"it starts late by {left} at the end, rounded down to a multiple of the dilation"),
        "extra": (before - extra, "it is shifted by output_padding, so that the extra elements come first"),
    }  # fmt: skip
    if isinstance(problem.padding, str):  # causal: dilation·(k − 1), so that others have the same numbers
        found = {
            name: found[name] for name in ("ignored", "kernel", "half span", "dilated kernel", "same", "same lower")
        }
    undetermined = {"times stride", "rounded up", "rounded down"} if stride == 1 else set()
    if dilation == 1:
        undetermined |= {
            "times dilation", "centred", "half span", "span", "dilated kernel", "centre", "undilated", "undilated late",
        }  # fmt: skip
    return {name: cause for name, cause in found.items() if name not in undetermined}


def ratios(value: float, problem: Problem) -> dict[str, str]:
    """Return the ratios that a factor equals, each with its number."""
    batch, columns = problem.batch or 1, problem.weight_shape[1]
    length, taps = math.prod(problem.output_size), math.prod(problem.kernel)
    per_group = "K/G" if problem.transposed else "C/G"
    sizes = (
        ("N", batch, "samples"),
        ("L", length, "output positions"),
        ("N·L", batch * length, "samples and output positions"),
        ("T", taps, "taps"),
        (per_group, columns, "channels"),
        (f"T·{per_group}", columns * taps, "taps and channels"),
        ("G", len(problem.lists), "groups"),
        ("∏s", math.prod(problem.stride), "as the product of the strides"),
    )
    return _ratios(value, sizes)


def axis_ratios(value: float, problem: Problem) -> dict[str, str]:
    """Return the ratios of numbers of one axis that a factor equals, each with its number."""
    taps = [(f"k{a + 1}", n, f"taps along axis {a}") for a, n in enumerate(problem.kernel)]
    positions = [(f"L{a + 1}", n, f"output positions along axis {a}") for a, n in enumerate(problem.output_size)]
    return _ratios(value, taps + positions)


def _ratios(value: float, sizes: Iterable[tuple[str, int, str]]) -> dict[str, str]:
    named = {}
    for name, size, counted in sizes:
        bracketed = f"({name})" if len(name) > 1 else name
        found = {name: size, f"1/{bracketed}": 1 / size, f"1/√{bracketed}": size**-0.5}
        for ratio, number in found.items():
            if abs(abs(value) / number - 1) < 1e-3:
                named[f"{'−' * (value < 0)}{ratio}"] = f"{name} = {size} {counted}"
    return named


def blocks(value: float, problem: Problem) -> dict[str, str]:
    """Return the numbers of blocks of channels, or of channels and taps, that a factor equals, each with its count."""
    outputs, inputs = problem.c_out // problem.n_groups, problem.c_in // problem.n_groups
    taps = math.prod(problem.kernel)
    sizes = [("channels", "C/G", inputs, "input channels"), ("channels", "K/G", outputs, "output channels")]
    if taps > 1:
        sizes.append(("channels and taps", "T·C/G", inputs * taps, "input channels and taps"))
    return {
        f"the number of blocks of {block} {noun} in {name}": f"{name} = {size} {counted}"
        for noun, name, size, counted in sizes
        for block in (4, 8, 16, 32, 64)
        if value == -(-size // block)
    }


def size_rules(problem: Problem, part: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield rules for spatial sizes that people use by mistake, with the sizes that they give."""
    d = problem.spatial_dims
    size, kernel, stride, dilation, pads = (
        problem.size, problem.kernel, problem.stride, problem.dilation, problem.pairs,
    )  # fmt: skip
    if part == "grad_weight":
        yield "the span dilation·(k − 1) + 1", tuple(e * (k - 1) + 1 for e, k in zip(dilation, kernel, strict=True))
        yield "the kernel's axes in reverse order", kernel[::-1]
        return
    if (part == "forward") == problem.transposed:  # the image's size
        image = problem.output_size if problem.transposed else size
        positions = problem.size if problem.transposed else problem.output_size
        extra = problem.output_padding or (0,) * d

        def full(s: Sequence[int] = stride, e: Sequence[int] = dilation, rest: Sequence[int] = extra) -> list[int]:
            axes = zip(positions, s, e, kernel, rest, strict=True)
            return [(n - 1) * sj + ej * (k - 1) + 1 + r for n, sj, ej, k, r in axes]

        def cropped(whole: Sequence[int], sign: int = -1) -> tuple[int, ...]:
            return tuple(n + sign * (b + a) for n, (b, a) in zip(whole, pads, strict=True))

        yield "the image with its padding not cropped", tuple(n + b + a for n, (b, a) in zip(image, pads, strict=True))
        yield "the image with its padding cropped a second time", cropped(image)
        if problem.transposed:
            yield "what padding added instead of cropped gives", cropped(full(), 1)
            for name, factors in (("dilation", dilation), ("stride", stride)):
                more = multiplied_pads(problem, factors)
                yield (
                    f"what padding·{name} gives",
                    tuple(max(0, n - b - a) for n, (b, a) in zip(full(), more, strict=True)),
                )
            yield "what stride 1 gives", cropped(full(s=[1] * d))
            yield "what dilation 1 gives", cropped(full(e=[1] * d))
            yield "what output_padding 0 gives", cropped(full(rest=[0] * d))
            axes = zip(positions, stride, full(), strict=True)
            yield (
                "n·stride where the kernel is smaller than that",
                cropped([max(w, (n - 1) * s + s + r) for (n, s, w), r in zip(axes, extra, strict=True)]),
            )
            yield "n·stride", tuple(n * s for n, s in zip(positions, stride, strict=True))
        else:
            yield (
                "what the windows reach, without the rows that the stride leaves over",
                tuple(min(n, w - b) for n, w, (b, _) in zip(image, cropped(full(rest=[0] * d), 0), pads, strict=True)),
            )
            yield "what the windows reach", cropped(full(rest=[0] * d))
        return

    def outputs(
        s: Sequence[int] = stride,
        e: Sequence[int] = dilation,
        p: Sequence[tuple[int, int]] = pads,
        k: Sequence[int] = kernel,
    ) -> list[tuple[int, int]]:
        axes = zip(size, k, s, e, p, strict=True)
        return [(n + b + a - ej * (kj - 1) - 1, sj) for n, kj, sj, ej, (b, a) in axes]

    def floor(pairs: list[tuple[int, int]]) -> tuple[int, ...]:
        return tuple(max(0, n // s + 1) for n, s in pairs)

    if problem.transposed:
        return
    yield "what ceil in place of floor gives", tuple(-(-n // s) + 1 for n, s in outputs())
    yield "one less than asked on each axis: + 1 is missing", tuple(n // s for n, s in outputs())
    yield "what adding 1 before the division by the stride gives", tuple((n + 1) // s for n, s in outputs())
    yield "what stride 1 gives", floor(outputs(s=[1] * d))
    yield "what the padding k // 2 gives", floor(outputs(p=[(k // 2, k // 2) for k in kernel]))
    yield "what no padding gives", floor(outputs(p=[(0, 0)] * d))
    for name, factors in (("dilation", dilation), ("stride", stride)):
        yield f"what padding·{name} gives", floor(outputs(p=multiplied_pads(problem, factors)))
    yield "what the padding before alone gives", floor(outputs(p=[(b, 0) for b, _ in pads]))
    yield "what dilation 1 gives", floor(outputs(e=[1] * d))
    yield "what stride and dilation exchanged give", floor(outputs(s=dilation, e=stride))
    yield (
        "what the span dilation·k gives",
        tuple((n + 1 - e) // s + 1 for (n, s), e in zip(outputs(), dilation, strict=True)),
    )
    yield "the size of x", size
    if d > 1:
        yield "that of axis 0 on all axes", (problem.output_size[0],) * d
        yield "that of the last axis on all axes", (problem.output_size[-1],) * d
        yield "what the kernel size of axis 0 on all axes gives", floor(outputs(k=[kernel[0]] * d))
        numbers: dict[str, tuple[str, Sequence[Any]]] = {
            "s": ("stride", stride), "p": ("padding", pads), "e": ("dilation", dilation)
        }  # fmt: skip
        for key, (name, values) in numbers.items():
            changes: list[dict[str, Any]] = [{key: values[::-1]}, {key: [values[0]] * d}]
            yield f"what the {name}s in reverse order give", floor(outputs(**changes[0]))
            yield f"what the {name} of axis 0 on all axes gives", floor(outputs(**changes[1]))
        yield "the sizes in reverse order", problem.output_size[::-1]


def multiplied_pads(problem: Problem, factors: Sequence[int]) -> list[tuple[int, int]]:
    """Return the paddings of all axes, each times a factor."""
    return [(b * f, a * f) for (b, a), f in zip(problem.pairs, factors, strict=True)]
