"""The entries of the catalogue of mistakes, and the decorator that adds one.

The class of a mistake needs no name, because its decorator names the mistake. Its docstring is the explanation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from refconv.testing.mutants.correct import Conv, ConvTranspose


@dataclass(frozen=True)
class Mutant:
    """A wrong implementation with a name.

    Attributes
    ----------
    name : str
        The mistake, in a few words.
    family : str
        One of :data:`FAMILIES`.
    explanation, hint : str
        The effect, in a sentence, and how to fix it.
    make : callable
        Makes the implementation: an object with ``forward`` and ``backward`` as :func:`~refconv.testing.check_conv`
        calls them.
    transposed : bool
        Whether it is a transposed convolution.
    dtype, output_dtype : str
        Data type in which the mistake shows, and that of the output if it is another.
    supports : tuple of str
        The words that :func:`~refconv.testing.check_conv` needs as `supports` to catch it.
    endless : bool
        Whether it does not return in some cases.
    """

    name: str
    family: str
    explanation: str
    hint: str
    make: Callable[[], Conv]
    transposed: bool = False
    dtype: str = "float32"
    supports: tuple[str, ...] = ("bias", "stride", "padding", "dilation", "groups")
    endless: bool = False
    output_dtype: str | None = None

    @property
    def spatial_dims(self) -> int:
        """Number of spatial axes of checks for this mistake: two, or one if it is about causal padding."""
        return 1 if "causal" in self.supports else 2

    def settings(self) -> dict[str, Any]:
        """Return the keyword arguments with which :func:`~refconv.testing.check_conv` catches it."""
        return {
            "spatial_dims": self.spatial_dims, "transposed": self.transposed, "dtype": self.dtype,
            "output_dtype": self.output_dtype, "supports": self.supports,
        }  # fmt: skip


FAMILIES = (
    "output size", "kernel flip", "stride", "dilation", "groups", "bias", "padding", "layout", "memory", "precision",
    "interface",
)  # fmt: skip
"""Families of mistakes, in the order of the catalogue."""

ENTERED: list[Mutant] = []
"""The mistakes entered so far, in the order of their files."""


def mistake(
    family: str,
    name: str,
    hint: str,
    *,
    dtype: str = "float32",
    output_dtype: str | None = None,
    supports: str = "",
    endless: bool = False,
    both: bool = False,
) -> Callable[[type[Conv]], type[Conv]]:
    """Enter a class into the catalogue, with its docstring as the explanation.

    `supports` is a word that the mistake needs beyond the usual five. With `both` the same mistake is entered for the
    transposed convolution too.
    """

    def enter(cls: type[Conv], called: str) -> None:
        assert family in FAMILIES
        assert called not in {m.name for m in ENTERED}, called
        explanation = " ".join((cls.__doc__ or "").split())
        words = ("bias", "stride", "padding", "dilation", "groups", *([supports] if supports else []))
        transposed = issubclass(cls, ConvTranspose)
        ENTERED.append(Mutant(called, family, explanation, hint, cls, transposed, dtype, words, endless, output_dtype))

    def register(cls: type[Conv]) -> type[Conv]:
        cls.output_dtype = output_dtype
        enter(cls, name)
        if both:
            enter(type("_", (cls, ConvTranspose), {"__doc__": cls.__doc__}), f"transposed: {name}")
        return cls

    return register
