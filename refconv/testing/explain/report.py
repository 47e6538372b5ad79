"""Findings: one for each result, and all of them together."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from refconv.testing.oracles.definition import Array
from refconv.testing.oracles.problems import Problem


@dataclass(frozen=True)
class Part:
    """The finding for one result, on the problem that was read out.

    Attributes
    ----------
    name : str
        "forward", "grad_x", "grad_weight" or "grad_bias".
    text : str
        The finding in sentences.
    is_right : bool
        Whether it is exactly right on this problem.
    is_linear : bool or None
        Whether it is linear in each operand; None if that was not found out.
    is_convolution : bool
        Whether some convolution has these products: one line per axis, zeros around, one factor.
    stride, dilation, padding : tuple of (int or None), or None
        The fitted numbers per axis, and the padding before the first element. None for a number that this problem
        does not determine, and None altogether where no line fits.
    flipped : tuple of (bool or None), or None
        Whether the kernel is reversed along each axis.
    axes : tuple or None
        For each image axis, the axis of positions and of taps that it goes with; (0, 0), (1, 1) and so on if right.
    channels : dict
        For each output channel, the input channels that it reads; of a gradient, those that it is paired with.
    channel_order : str or None
        Name of the way in which channels, groups and weight rows go together: "right", a known mix-up, or None.
    samples : str or None
        How samples of the batch go together: "right", "only 0", "reversed", "all", or None.
    factor : float, complex or None
        The one number that multiplies every product; None if there are several.
    border : tuple of (str, str), or None
        The elements read before and beyond the image along each axis; "zeros" if right.
    missing, extra : int
        Numbers of products that are absent, and of products that should be absent.
    layout : dict or None
        If one array has its elements in the wrong places: {"array", "from", "to"}, two orders of axes between which it
        is as if reshaped; or {"array", "steps"} where rows run into one another.
    bias : dict or None
        Of the forward pass: {"factor", "is_right", "channels"}.
    shape : tuple of int or None
        Shape of the result.
    inputs : tuple of numpy.ndarray
        The two operands that show that it is not linear.
    """

    name: str
    text: str = ""
    is_right: bool = False
    is_linear: bool | None = None
    is_convolution: bool = False
    stride: tuple[int | None, ...] | None = None
    dilation: tuple[int | None, ...] | None = None
    padding: tuple[int | None, ...] | None = None
    flipped: tuple[bool | None, ...] | None = None
    axes: tuple[tuple[int, int], ...] | None = None
    channels: Mapping[int, list[int]] = field(default_factory=dict)
    channel_order: str | None = None
    samples: str | None = None
    factor: complex | None = None
    border: tuple[tuple[str, str], ...] | None = None
    missing: int = 0
    extra: int = 0
    layout: Mapping[str, Any] | None = None
    bias: Mapping[str, Any] | None = None
    shape: tuple[int, ...] | None = None
    inputs: tuple[Array, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as plain data."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        plain["inputs"] = [{"shape": a.shape, "values": _numbers(a)} for a in self.inputs]
        plain["channels"] = {str(q): m for q, m in self.channels.items()}
        plain["factor"] = str(self.factor) if isinstance(self.factor, complex) else self.factor
        return plain


def _numbers(array: Array) -> list[Any]:
    return [str(v) if isinstance(v, complex) else v for v in array.reshape(-1).tolist()]


@dataclass(frozen=True)
class Explanation:
    """What a convolution and its gradients compute.

    Attributes
    ----------
    text : str
        A paragraph for each part.
    is_linear : bool
        Whether every part that was read is linear in each operand.
    is_convolution : bool
        Whether every part has the products of some convolution.
    parts : dict of str to Part
        Findings for "forward" and, with a backward function, "grad_x", "grad_weight" and "grad_bias".
    problem : Problem
        The problem on which the function was read out.
    """

    parts: Mapping[str, Part]
    problem: Problem

    @property
    def text(self) -> str:
        """Return all findings."""
        lines = [f"{name}: {part.text}" for name, part in self.parts.items()]
        if all(part.is_right for part in self.parts.values()):
            lines.append("It may still be wrong for other sizes: check_conv tries many.")
        return "\n".join(lines)

    @property
    def is_linear(self) -> bool:
        """Return whether every part is linear."""
        return all(part.is_linear is True for part in self.parts.values())

    @property
    def is_convolution(self) -> bool:
        """Return whether every part has the products of a convolution."""
        return all(part.is_convolution for part in self.parts.values())

    def __str__(self) -> str:
        return self.text

    def to_json(self) -> str:
        """Return the explanation as a JSON object."""
        problem = {f.name: getattr(self.problem, f.name) for f in dataclasses.fields(self.problem)}
        return json.dumps(
            {
                "text": self.text,
                "is_linear": self.is_linear,
                "is_convolution": self.is_convolution,
                "problem": problem,
                "parts": {name: part.as_dict() for name, part in self.parts.items()},
            },
            indent=2,
        )
